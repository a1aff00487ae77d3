"""One short, seeded training and its scores."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hilo_nas.data.prepared_images import CachedData
from hilo_nas.errors import HiloNasError, is_out_of_memory
from hilo_nas.events import Emit, TrainingProgressed
from hilo_nas.measurement import ProxyPlan
from hilo_nas.models import LITv2, build_subject
from hilo_nas.proxy.batches import Augmenter, Sampler, image_statistics, open_split
from hilo_nas.proxy.checkpoints import load_checkpoint, read_generators, set_aside, set_generators
from hilo_nas.proxy.graph import Capture, Pass, find_capture
from hilo_nas.proxy.micro_batches import MicroBatch, free_cached_memory
from hilo_nas.proxy.recipe import (
    BATCHNORM_IMAGES,
    CLIP_NORM,
    autocast,
    batchnorms_of,
    build_average,
    build_loss,
    build_optimizer,
    collect_statistics,
    warmup_share,
)
from hilo_nas.proxy.score import HeldOutResult, chance_of, predict, score_balanced, score_likelihood, score_top1
from hilo_nas.proxy.work import Result, ScoreJob, Work

__all__ = ["Training", "TrainingWork"]

_METRICS = {"top1": score_top1, "balanced": score_balanced, "likelihood": score_likelihood}
_SECONDS_BETWEEN_EVENTS = 0.25
_EFFECT_OF_PIECES = (
    "Their gradients add up to the whole batch's, but batch norm takes its statistics from fewer images at once."
)


class TrainingWork(Work):
    """Trains a network up to one of its plan's budgets and scores it there."""

    def score(self, job: ScoreJob, emit: Emit) -> tuple[Result, ...]:
        """See `Work.score`.

        Raises:
            OutOfMemoryError: The network does not fit, even with one image at a time.
            HiloNasError: The training diverged.
            StorageError: The image cache is gone.
        """
        plan, data = job.plan, job.data
        torch.manual_seed(job.seed)
        model = build_subject(job.subject, data.num_classes, 3, plan.img_size)
        is_litv2 = isinstance(model, LITv2)
        training = Training(model, plan, data, seed=job.seed, device=torch.device(job.device), emit=emit)
        name = {
            "subject": json.dumps(job.subject, sort_keys=True),
            "plan": plan.hash(data.content_hash),
            "seed": job.seed,
        }
        if job.checkpoint is not None and job.checkpoint.exists():
            training.load_state(load_checkpoint(job.checkpoint, name, job.until, emit))
        for _ in training.steps(job.until):
            pass
        found = [training.evaluate(precision) for precision in (plan.precision, *job.score_under)]
        if job.checkpoint is not None:
            set_aside(job.checkpoint, name, training.state(), emit)
        return tuple(self._rate(result, training, is_baseline=not is_litv2) for result in found)

    def _rate(self, result: HeldOutResult, training: Training, *, is_baseline: bool) -> Result:
        value, standard_error = _METRICS[training.plan.metric](result)
        return Result(
            value=value,
            standard_error=standard_error,
            chance=chance_of(training.plan.metric, result.labels),
            loss=result.loss,
            n_val=len(result.labels),
            images_seen=training.images_seen,
            micro_batch_size=training.micro_batch.size,
            is_baseline=is_baseline,
        )


class Training:
    """A training under way; `steps` moves it on, `evaluate` may be called whenever that pauses.

    Args:
        model: The network, with fresh weights; it is moved to the device.
        plan: The training's conditions; of its budget, only what a full batch is.
        data: The prepared images.
        seed: Seed of the images' order and augmentation.
        device: Where to train.
        emit: Takes `TrainingProgressed` and `Notice`.
        watch: Opens a context around each part of a step (`batch`, `gradient`, `update`), for whoever times them.
        find_capture: Returns the capture of a whole batch's pass for a network and a device; None for no capture.

    Raises:
        StorageError: The image cache is gone.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: ProxyPlan,
        data: CachedData,
        *,
        seed: int,
        device: torch.device,
        emit: Emit,
        watch: Callable[[str], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
        find_capture: Callable[[nn.Module, torch.device], Capture | None] = find_capture,
    ) -> None:
        self.plan, self.device, self._emit, self._watch = plan, device, emit, watch
        self._autocast = autocast(device, plan.precision)
        self.images_seen = 0
        self.micro_batch = MicroBatch(plan.batch_size, emit)
        self._images, places, self._val_images, self._val_places = open_split(data, plan, device)
        self._generator = torch.Generator().manual_seed(seed)
        self._sampler = Sampler(places, self._generator)
        # Always the same images, drawn apart from the training's: legs give what the whole gives.
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
        self._batchnorm_places = torch.from_numpy(places)[order[:BATCHNORM_IMAGES]]
        self._augmenter = Augmenter(
            *image_statistics(self._images, places), hflip=plan.hflip, generator=self._generator
        )
        # Convolutions in reduced precision are faster with channels last on CUDA.
        if device.type == "cuda" and plan.precision != "fp32":
            model = model.to(memory_format=torch.channels_last)
        self.model = model.to(device)
        self._average = build_average(self.model)
        self._loss = build_loss()
        self._optimizer = build_optimizer(self.model, plan.batch_size)
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._scaler = torch.amp.GradScaler(device.type, enabled=plan.precision == "amp-fp16")
        self._capture = find_capture(self.model, device)
        self._graph: Pass | None = None
        self._latest_loss = torch.zeros((), device=device)
        self._is_finite = torch.ones((), dtype=torch.bool, device=device)
        self._told = time.monotonic()

    def steps(self, until: int) -> Iterator[int]:
        """Trains on, and yields the images seen so far after each update, until they are at least so many.

        Every batch is a full one: what a network learns does not depend on where it is scored.

        Raises:
            OutOfMemoryError: One image at a time is too many.
            HiloNasError: The loss is not finite any more.
        """
        self.model.train()
        while self.images_seen < until:
            with self._watch("batch"):
                images, labels = self._images.take(self._sampler.draw(self.plan.batch_size))
                inputs = self._augmenter.train(images)
            self.images_seen += self.plan.batch_size
            for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
                group["lr"] = rate * warmup_share(self.images_seen)
            with self._watch("gradient"):
                work = functools.partial(self._compute_gradient, inputs, labels)
                self._latest_loss = self.micro_batch.run(work, what="a training step", effect=_EFFECT_OF_PIECES)
                self._is_finite &= self._latest_loss.isfinite()
            with self._watch("update"):
                self._update_weights()
            self._tell(until, is_due=self.images_seen >= until)
            yield self.images_seen

    def evaluate(self, precision: str | None = None) -> HeldOutResult:
        """Returns what the averaged network says about the held-out images now; the training is left as it was.

        Networks other than LITv2s are scored with batch norm's statistics of training images; see `proxy/recipe.py`.

        Where memory runs out here, the images are cut for this once: a training step's pieces, and so batch norm's
        statistics, are as before.

        Args:
            precision: As `ProxyPlan.precision`, which is taken if left out.

        Raises:
            OutOfMemoryError: One image at a time is too many.
            HiloNasError: Its loss is not finite.
        """
        cast = autocast(self.device, precision or self.plan.precision)

        def infer(images: Tensor) -> Tensor:
            with cast:
                logits: Tensor = self._average.module(self._augmenter.plain(images))
            self._tell(self.images_seen)
            return logits

        pieces = MicroBatch(self.micro_batch.size, self._emit)
        model = self._average.module
        batchnorms = [] if isinstance(model, LITv2) else batchnorms_of(model)
        with _buffers_kept(model, in_any_case=True) if batchnorms else contextlib.nullcontext():
            if batchnorms:
                self._take_statistics(batchnorms, infer, pieces)
            result = predict(model, infer, self._val_images, self._val_places, pieces)
        self._check_finite(result.loss)
        return result

    def _take_statistics(
        self, batchnorms: Sequence[_BatchNorm], infer: Callable[[Tensor], Tensor], pieces: MicroBatch
    ) -> None:
        """Gives the averaged network's batch norms the statistics of training images under its own weights."""

        def through(size: int) -> None:
            with collect_statistics(self._average.module, batchnorms):
                for chunk in torch.split(self._batchnorm_places, size):
                    if len(chunk) == size or len(self._batchnorm_places) < size:  # a small rest would weigh as much
                        infer(self._images.take(chunk)[0])

        effect = "They come from fewer images at once."
        pieces.run(through, what="taking batch norm's statistics", effect=effect)

    def state(self) -> dict[str, Any]:
        """Returns all that the training needs to go on as if it had not paused."""
        return {
            "images_seen": self.images_seen,
            "micro_batch_size": self.micro_batch.size,
            "model": self.model.state_dict(),
            "average": self._average.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "sampler": self._sampler.left.clone(),  # a view would bring the whole order along
            "generator": self._generator.get_state(),
            **read_generators(self.device),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Puts the training where `state` was taken; an empty state leaves it at its beginning."""
        if not state:
            return
        self.images_seen, self.micro_batch.size = state["images_seen"], state["micro_batch_size"]
        self.model.load_state_dict(state["model"])
        self._average.module.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        self._sampler.left = state["sampler"]
        self._generator.set_state(state["generator"])
        set_generators(self.device, state)

    def _compute_gradient(self, inputs: Tensor, labels: Tensor, micro_batch_size: int) -> Tensor:
        """Leaves the batch's gradient in the parameters and returns its loss.

        However the batch is cut, each image weighs the same; batch norm's statistics are those of each piece. Where
        memory runs out, the buffers (running statistics) are as they were before.
        """
        if micro_batch_size < len(labels):
            self._graph = None
        elif self._graph is None:
            self._graph = self._captured(inputs, labels)
        if self._graph is not None:
            return self._graph(inputs, labels)
        with _buffers_kept(self.model):
            return self._backward(inputs, labels, micro_batch_size)

    def _captured(self, inputs: Tensor, labels: Tensor) -> Pass | None:
        """Returns the graph of a whole batch's pass, where there can be one; a lack of room for it costs nothing else.

        Not before the optimizer has its state: the graph keeps what a pass needs, and whatever came after it would find
        less room than in a plain training.
        """
        if self._capture is None or not self._optimizer.state:
            return None
        whole = functools.partial(self._backward, micro_batch_size=len(labels))
        try:
            with _buffers_kept(self.model, in_any_case=True):
                return self._capture(whole, inputs, labels)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._capture = None
        # Only outside the handler are the failed capture's tensors free, which its traceback held.
        self._optimizer.zero_grad(set_to_none=True)
        free_cached_memory()
        return None

    def _backward(self, inputs: Tensor, labels: Tensor, micro_batch_size: int) -> Tensor:
        self._optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        chunks = zip(torch.split(inputs, micro_batch_size), torch.split(labels, micro_batch_size), strict=True)
        for chunk, chunk_labels in chunks:
            with self._autocast:
                loss = self._loss(self.model(chunk), chunk_labels) * (len(chunk_labels) / len(labels))
            self._scaler.scale(loss).backward()
            total += loss.detach()
        return total

    def _update_weights(self) -> None:
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._average.update(self.model, step=self.images_seen // self.plan.batch_size)

    def _tell(self, until: int, is_due: bool = False) -> None:
        """Emits progress a few times a second, or where it is due anyway; only then is the device waited for."""
        if not is_due and time.monotonic() - self._told < _SECONDS_BETWEEN_EVENTS:
            return
        loss = float(self._latest_loss)
        self._check_finite(loss)
        self._told = time.monotonic()
        self._emit(TrainingProgressed(images_seen=self.images_seen, images_total=until, loss=loss))

    def _check_finite(self, loss: float) -> None:
        if not (math.isfinite(loss) and self._is_finite):
            raise HiloNasError(f"the training diverged: its loss was not finite after {self.images_seen} images")


@contextlib.contextmanager
def _buffers_kept(model: nn.Module, *, in_any_case: bool = False) -> Iterator[None]:
    """Puts a network's buffers back, in any case or where memory runs out: what follows begins where this began."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    is_undone = in_any_case
    try:
        yield
    except Exception as error:
        is_undone |= is_out_of_memory(error)
        raise
    finally:
        if is_undone:
            with torch.no_grad():
                for buffer, value in before:
                    buffer.copy_(value)
