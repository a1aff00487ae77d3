"""A proxy of the user's own: `--proxy module:function` or `--proxy path/to/file.py:function`.

The function is called for each network, in the training process, as `score(arch, build_model, budget, seed, callback)`
and returns `(score, standard_error)`: two finite numbers, a higher score being better; 0 as standard error says that
the score is exact. Which images it looks at is its own affair: of `--data` it is told the number of classes alone.

* `arch` is the architecture, a dict with the fields of `hilo_nas.arch.config.ArchConfig`; None for a network of timm's;
* `build_model()` returns the network, a torch module with fresh weights, the same at each call, on the device that the
  search trains on; it has as many classes as `--data`, or `build_model(num_classes=...)`;
* `budget` is a number of training images, `--proxy-images`: what all networks are given alike;
* `seed` is the training's; torch's own generator has it already, and again after each `build_model()`;
* `callback(images_seen, score=None)` tells how far it is. Silent for `study.idle_timeout_s`, a function counts as hung.

For instance, in `mine.py`, a training like no other:

    import torch
    from sklearn.datasets import load_digits
    from torch.nn.functional import cross_entropy, interpolate

    def score(arch, build_model, budget, seed, callback):
        model = build_model(num_classes=10)
        device = next(model.parameters()).device
        images, labels = (torch.tensor(part).to(device) for part in load_digits(return_X_y=True))
        images = interpolate(images.float().view(-1, 1, 8, 8) / 16, scale_factor=4).expand(-1, 3, -1, -1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for step, batch in enumerate(torch.randint(1400, (budget // 64, 64)), start=1):
            optimizer.zero_grad()
            cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
            callback(64 * step)
        found = (model.eval()(images[1400:]).argmax(1) == labels[1400:]).float()
        return found.mean(), found.std() / len(found) ** 0.5

    hilo-nas search --proxy mine.py:score --proxy-images 2000

What the function raises fails the trial, with its class, its text and the line; what it prints is in `logs/` of the
study. Its file is imported once and belongs to the study: where it was edited, the study does not go on. What the file
imports or reads is not watched.
"""

from __future__ import annotations

import copy
import functools
import math
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from hilo_nas.data.prepared_images import CachedData
from hilo_nas.errors import ProxyError, StudyMismatchError, is_out_of_memory
from hilo_nas.events import Emit, TrainingProgressed
from hilo_nas.measurement import ProxyPlan
from hilo_nas.models import build_subject
from hilo_nas.plugins import describe_exception, hash_source, load_function
from hilo_nas.proxy.work import Prepared, Result, ScoreJob, Work

__all__ = ["FunctionWork"]

_SECONDS_BETWEEN_EVENTS = 0.25


class FunctionWork(Work):
    """Calls a function of the user's own."""

    def prepare(
        self, plan: ProxyPlan, data: CachedData | None, device: str, source: str | None, emit: Emit
    ) -> Prepared:
        """Imports the function, so that a search finds out before it begins. See `Work.prepare`.

        Raises:
            NotFoundError: There is no such file, module or function.
            UsageError: It is no function, or the import raised.
            StudyMismatchError: Its source is another one than the plan's.
        """
        assert source is not None, f"{plan.proxy} lies somewhere"
        _load(source, _source_hash(plan))
        return Prepared(local={"function": source})

    def score(self, job: ScoreJob, emit: Emit) -> tuple[Result, ...]:
        """See `Work.score`.

        Raises:
            ProxyError: The function raised, or what it returned is no score.
            StudyMismatchError: The function was edited since the plan was made.
            OutOfMemoryError: The network does not fit.
        """
        name, function = job.plan.proxy, job.prepared.local["function"]
        own = _load(function, _source_hash(job.plan))
        arguments = (
            copy.deepcopy(job.subject.get("arch")),
            _builder(job.subject, job.data.num_classes, job.seed, torch.device(job.device)),
            job.plan.images,
            job.seed,
            _callback(job.plan.images, emit),
        )
        torch.manual_seed(job.seed)
        try:
            value, standard_error = _checked(own(*arguments), name)
        except ProxyError:
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            told = describe_exception(error, function)
            traceback.clear_frames(error.__traceback__)  # else they hold the network
            raise ProxyError(f"{name} raised {told}") from error
        return (Result(value=value, standard_error=standard_error),)


def _source_hash(plan: ProxyPlan) -> str:
    assert plan.source_hash is not None, "the plan of a function has one"
    return plan.source_hash


@functools.cache
def _load(function: str, source_hash: str) -> Callable[..., Any]:
    """Imports a function once, so that what its module keeps between networks stays.

    Raises:
        StudyMismatchError: Its source is another one than the plan's.
    """
    if hash_source(function) != source_hash:
        raise StudyMismatchError(
            f"{function} was edited while it was in use, so its scores could not be compared. Undo the edit, or make "
            "a new study with --study NAME."
        )
    return load_function(function)


def _builder(subject: Mapping[str, Any], classes: int, seed: int, device: torch.device) -> Callable[..., nn.Module]:
    def build_model(num_classes: int | None = None) -> nn.Module:
        """Returns the network with fresh weights."""
        torch.manual_seed(seed)
        model = build_subject(subject, classes if num_classes is None else num_classes, 3).to(device)
        torch.manual_seed(seed)  # whatever the weights took, all networks get the same draws
        return model

    return build_model


def _callback(budget: int, emit: Emit) -> Callable[..., None]:
    told = -math.inf

    def callback(images_seen: int, score: float | None = None) -> None:
        """Tells how far the function is; passed on a few times a second."""
        nonlocal told
        if time.monotonic() - told < _SECONDS_BETWEEN_EVENTS:
            return
        told = time.monotonic()
        said = None if score is None else float(score)
        emit(TrainingProgressed(images_seen=int(images_seen), images_total=budget, score=said))

    return callback


def _checked(returned: Any, name: str) -> tuple[float, float]:
    """Returns what a function gave as two numbers.

    Raises:
        ProxyError: It is something else.
    """
    told = repr(returned)
    fault = f"{name} must return (score, standard_error), two finite numbers, but returned {told[:100]}"
    if not isinstance(returned, tuple | list) or len(returned) != 2 or any(isinstance(v, str) for v in returned):
        raise ProxyError(fault)
    try:
        value, standard_error = float(returned[0]), float(returned[1])
    except (TypeError, ValueError, RuntimeError) as error:  # the last is torch's, of a tensor with several elements
        raise ProxyError(fault) from error
    if not (math.isfinite(value) and math.isfinite(standard_error)):
        raise ProxyError(fault)
    if standard_error < 0:
        raise ProxyError(f"{name} must return a standard error of at least 0, but returned {told[:100]}")
    return value, standard_error
