"""Short, seeded training of one network, and its scores."""

from __future__ import annotations

import contextlib
import dataclasses
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
from hilo_nas.events import Emit, Notice, TrainingProgressed, TrainingStarted
from hilo_nas.measurement import ProxyPlan
from hilo_nas.models import LITv2, build_subject
from hilo_nas.proxy.batches import Augmenter, Sampler, image_statistics, open_split
from hilo_nas.proxy.checkpoints import load_checkpoint, read_generators, set_aside, set_generators
from hilo_nas.proxy.graph import Capture, Pass, find_capture
from hilo_nas.proxy.int8 import BATCH_SIZE as INT8_BATCH_SIZE
from hilo_nas.proxy.int8 import build_int8_inference
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
from hilo_nas.proxy.score import (
    HeldOutResult,
    chance_of,
    drop_error,
    predict,
    score_balanced,
    score_likelihood,
    score_top1,
)
from hilo_nas.proxy.work import Result, ScoreJob, Work

__all__ = ["Training", "TrainingWork"]

_METRICS = {"top1": score_top1, "balanced": score_balanced, "likelihood": score_likelihood}
_SECONDS_BETWEEN_EVENTS = 0.25
_MICRO_BATCH_EFFECT = (
    "The gradients add up to those of the whole batch, but batch norm uses statistics of fewer images."
)


class TrainingWork(Work):
    """Work of the training proxy: it trains a network with one of the plan's budgets and scores it."""

    def score(self, job: ScoreJob, emit: Emit) -> tuple[Result, ...]:
        """Returns the scores of a network after `job.until` training images.

        Raises:
            OutOfMemoryError: The network does not fit in memory, even with one image at a time.
            HiloNasError: The training diverged.
            StorageError: The image cache is missing.
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
        seen = training.images_seen
        emit(TrainingStarted(subject=job.subject, seed=job.seed, images_seen=seen, images_total=job.until))
        for _ in training.steps(job.until):
            pass
        if job.checkpoint is not None:
            set_aside(job.checkpoint, name, training.state(), emit)
        found = [self._score(training, plan.int8_runtime, is_baseline=not is_litv2)]
        found += [
            self._build_result(training.evaluate(precision), training, is_baseline=not is_litv2)
            for precision in job.score_under
        ]
        return tuple(found)

    def _score(self, training: Training, int8_runtime: str | None, *, is_baseline: bool) -> Result:
        """Returns the result under the plan: in float, or quantized to INT8 and compared with float."""
        in_float = training.evaluate()
        result = self._build_result(in_float, training, is_baseline=is_baseline)
        if int8_runtime is None:
            return result
        in_int8 = training.evaluate(int8_runtime=int8_runtime)
        return dataclasses.replace(
            self._build_result(in_int8, training, is_baseline=is_baseline),
            float_value=result.value,
            drop_error=drop_error(training.plan.metric, in_float, in_int8),
            float_layers=in_int8.float_layers,
        )

    def _build_result(self, result: HeldOutResult, training: Training, *, is_baseline: bool) -> Result:
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
    """A running training. `steps` advances it, and `evaluate` can be called between two steps.

    Args:
        model: The network with fresh weights. It is moved to the device.
        plan: Settings of the training. The number of images in its budget is ignored.
        data: The prepared images.
        seed: Seed of the order and augmentation of the images.
        device: Training device.
        emit: Receives `TrainingProgressed` and `Notice` events.
        watch: Function that returns a context for each part of a step (`batch`, `gradient`, `update`), for profiling.
        find_capture: Function that returns the capture of a pass over a batch for a network and device, or None to
            train without capture.

    Raises:
        StorageError: The image cache is missing.
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
        # A separate generator always chooses the same images, so a resumed training gives the same result.
        order = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
        self._sample_places = torch.from_numpy(places)[order[:BATCHNORM_IMAGES]]
        self._augmenter = Augmenter(
            *image_statistics(self._images, places), hflip=plan.hflip, generator=self._generator
        )
        # Convolutions in reduced precision are faster in channels-last format on CUDA.
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
        self._last_event_at = time.monotonic()

    def steps(self, until: int) -> Iterator[int]:
        """Trains until at least `until` images are seen, and yields the number of images seen after each update.

        Every batch is full, so the training does not depend on the points at which it is scored.

        Raises:
            OutOfMemoryError: Memory ran out with one image at a time.
            HiloNasError: The loss is not finite.
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
                self._latest_loss = self.micro_batch.run(work, what="a training step", effect=_MICRO_BATCH_EFFECT)
                self._is_finite &= self._latest_loss.isfinite()
            with self._watch("update"):
                self._update_weights()
            self._report_progress(until, is_due=self.images_seen >= until)
            yield self.images_seen

    def evaluate(self, precision: str | None = None, *, int8_runtime: str | None = None) -> HeldOutResult:
        """Returns the predictions of the averaged weights for the held-out images. The training is not changed.

        Networks other than LITv2 are scored with batch norm statistics from training images (see `proxy/recipe.py`).

        After an out-of-memory error, only this evaluation uses smaller micro-batches. The micro-batches of training
        steps, which affect batch norm, keep their size.

        Args:
            precision: A value of `ProxyPlan.precision`. Defaults to that of the plan.
            int8_runtime: Runtime that quantizes the network to INT8 and runs it on the CPU. Leaves `precision` unused.

        Raises:
            OutOfMemoryError: Memory ran out with one image at a time.
            ConversionError: The network cannot be quantized.
            HiloNasError: The loss is not finite.
        """
        cast = autocast(self.device, precision or self.plan.precision)

        def infer(images: Tensor) -> Tensor:
            with cast:
                logits: Tensor = self._average.module(self._augmenter.plain(images))
            self._report_progress(self.images_seen)
            return logits

        micro_batch = MicroBatch(self.micro_batch.size, self._emit)
        model = self._average.module
        batchnorms = [] if isinstance(model, LITv2) else batchnorms_of(model)
        with _restoring_buffers(model, always=True) if batchnorms else contextlib.nullcontext():
            if batchnorms:
                self._update_batchnorms(batchnorms, infer, micro_batch)
            run: Callable[[Tensor], Tensor] = infer
            float_layers: tuple[str, ...] = ()
            if int8_runtime is not None:
                (run, float_layers), micro_batch = self._quantize(int8_runtime), MicroBatch(INT8_BATCH_SIZE, self._emit)
            result = predict(model, run, self._val_images, self._val_places, micro_batch)
        self._check_finite(result.loss)
        return dataclasses.replace(result, float_layers=float_layers)

    def _quantize(self, runtime: str) -> tuple[Callable[[Tensor], Tensor], tuple[str, ...]]:
        """Returns a function from stored images to the logits of the averaged weights in INT8, and the float layers."""
        from hilo_nas.models.convert.quantization import CALIBRATION_IMAGES  # only studies in INT8 need it

        stored, _ = self._images.take(self._sample_places[:CALIBRATION_IMAGES])
        run, network = build_int8_inference(self._average.module, self._augmenter.plain(stored), runtime)
        if network.hidden_layers:
            names = ", ".join(network.hidden_layers)
            text = f"too sensitive for INT8, but quantized because {runtime} changed weights: {names}"
            self._emit(Notice(text=text))

        def infer(images: Tensor) -> Tensor:
            self._report_progress(self.images_seen)
            return run(self._augmenter.plain(images))

        return infer, network.float_layers

    def _update_batchnorms(
        self, batchnorms: Sequence[_BatchNorm], infer: Callable[[Tensor], Tensor], micro_batch: MicroBatch
    ) -> None:
        """Computes the batch norm statistics of the averaged weights from training images."""

        def infer_all(size: int) -> None:
            with collect_statistics(self._average.module, batchnorms):
                for chunk in torch.split(self._sample_places, size):
                    # A smaller last chunk is skipped because it would have the same weight as a full one.
                    if len(chunk) == size or len(self._sample_places) < size:
                        infer(self._images.take(chunk)[0])

        effect = "The statistics are averaged over smaller batches."
        micro_batch.run(infer_all, what="computing batch norm statistics", effect=effect)

    def state(self) -> dict[str, Any]:
        """Returns the complete state of the training, so that it can be resumed with the same result."""
        return {
            "images_seen": self.images_seen,
            "micro_batch_size": self.micro_batch.size,
            "model": self.model.state_dict(),
            "average": self._average.module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "sampler": self._sampler.left.clone(),  # saving a view would store the whole order
            "generator": self._generator.get_state(),
            **read_generators(self.device),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restores a state from `state`. An empty state has no effect."""
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
        """Stores the gradient of a batch in the parameters and returns the loss.

        All images have the same weight in micro-batches of any size, but batch norm uses the statistics of each
        micro-batch. After an out-of-memory error, the buffers (running statistics) have their previous values.
        """
        if micro_batch_size < len(labels):
            self._graph = None
        elif self._graph is None:
            self._graph = self._try_capture(inputs, labels)
        if self._graph is not None:
            return self._graph(inputs, labels)
        with _restoring_buffers(self.model):
            return self._backward(inputs, labels, micro_batch_size)

    def _try_capture(self, inputs: Tensor, labels: Tensor) -> Pass | None:
        """Returns the graph of a pass over a whole batch, or None if it cannot be captured or does not fit in memory.

        The capture waits until the optimizer has its state. A graph keeps the memory of a pass, so a later allocation
        of that state could run out of memory where a training without capture would not.
        """
        if self._capture is None or not self._optimizer.state:
            return None
        backward = functools.partial(self._backward, micro_batch_size=len(labels))
        try:
            with _restoring_buffers(self.model, always=True):
                return self._capture(backward, inputs, labels)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self._capture = None
        # The traceback holds the tensors of the failed capture, so they are free only after the handler.
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

    def _report_progress(self, until: int, is_due: bool = False) -> None:
        """Emits a progress event at most a few times per second, or if `is_due`.

        Only these calls synchronize with the device.
        """
        if not is_due and time.monotonic() - self._last_event_at < _SECONDS_BETWEEN_EVENTS:
            return
        loss = float(self._latest_loss)
        self._check_finite(loss)
        self._last_event_at = time.monotonic()
        self._emit(TrainingProgressed(images_seen=self.images_seen, images_total=until, loss=loss))

    def _check_finite(self, loss: float) -> None:
        if not (math.isfinite(loss) and self._is_finite):
            raise HiloNasError(f"the training diverged: its loss was not finite after {self.images_seen} images")


@contextlib.contextmanager
def _restoring_buffers(model: nn.Module, *, always: bool = False) -> Iterator[None]:
    """Restores a network's buffers at the end of the context.

    Does so after an out-of-memory error, or in every case if `always` is True.
    """
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    must_restore = always
    try:
        yield
    except Exception as error:
        must_restore |= is_out_of_memory(error)
        raise
    finally:
        if must_restore:
            with torch.no_grad():
                for buffer, value in before:
                    buffer.copy_(value)
