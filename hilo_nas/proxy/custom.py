"""Custom proxies: a user function given as `--proxy module:function` or `--proxy path/to/file.py:function`.

The training process calls the function for each network as `score(arch, build_model, budget, seed, callback)`. The
function returns `(score, standard_error)`, two finite numbers. A higher score is better, and a standard error of 0
means that the score is exact. The function loads its own images. It gets only the number of classes of `--data`.

* `arch` is the architecture, a dict with the fields of `hilo_nas.arch.config.ArchConfig`. It is None for timm networks.
* `build_model()` returns the network, a torch module on the training device of the search. Its weights are fresh and
  the same on each call. It has as many classes as `--data`, unless `build_model(num_classes=...)` is used.
* `budget` is the number of training images, `--proxy-images`. It is the same for all networks.
* `seed` is the training seed. torch's default generator is seeded with it before the call and after each
  `build_model()`.
* `callback(images_seen, score=None)` reports progress. A function that does not call it for `study.idle_timeout_s`
  seconds counts as hung.

Example of a custom training in `mine.py`:

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

An exception in the function fails the trial, and the trial's reason includes its class, text and line. Printed output
is stored in the study's `logs/` folder. The file is imported once. After an edit of the file, the study cannot be
resumed. Changes in other files that it imports or reads are not detected.
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
    """Work of a custom proxy: it calls a user function."""

    def prepare(
        self, plan: ProxyPlan, data: CachedData | None, device: str, source: str | None, emit: Emit
    ) -> Prepared:
        """Imports the function once before the search starts, so that errors show up early.

        Raises:
            NotFoundError: The file, module or function does not exist.
            UsageError: The object is not a function, or the import failed.
            StudyMismatchError: The source differs from that of the plan.
        """
        assert source is not None, f"{plan.proxy} needs a source"
        _load(source, _source_hash(plan))
        return Prepared(local={"function": source})

    def score(self, job: ScoreJob, emit: Emit) -> tuple[Result, ...]:
        """Returns the score of the user function for a network.

        Raises:
            ProxyError: The function raised an exception or returned an invalid score.
            StudyMismatchError: The function was edited after the plan was created.
            OutOfMemoryError: The network does not fit in memory.
        """
        name, source = job.plan.proxy, job.prepared.local["function"]
        function = _load(source, _source_hash(job.plan))
        arguments = (
            copy.deepcopy(job.subject.get("arch")),
            _builder(job.subject, job.data.num_classes, job.seed, torch.device(job.device)),
            job.plan.images,
            job.seed,
            _callback(job.plan.images, emit),
        )
        torch.manual_seed(job.seed)
        try:
            value, standard_error = _check_result(function(*arguments), name)
        except ProxyError:
            raise
        except (Exception, SystemExit) as error:
            if is_out_of_memory(error):
                raise
            description = describe_exception(error, source)
            traceback.clear_frames(error.__traceback__)  # the frames hold the network
            raise ProxyError(f"{name} raised {description}") from error
        return (Result(value=value, standard_error=standard_error),)


def _source_hash(plan: ProxyPlan) -> str:
    assert plan.source_hash is not None, "the plan of a custom proxy has a source_hash"
    return plan.source_hash


@functools.cache
def _load(function: str, source_hash: str) -> Callable[..., Any]:
    """Returns a user function. It is imported once, so its module keeps its state between networks.

    Raises:
        StudyMismatchError: The source differs from that of the plan.
    """
    if hash_source(function) != source_hash:
        raise StudyMismatchError(
            f"{function} was edited while it was in use, so its scores are not comparable. Undo the edit, or create a "
            "new study with --study NAME."
        )
    return load_function(function)


def _builder(subject: Mapping[str, Any], classes: int, seed: int, device: torch.device) -> Callable[..., nn.Module]:
    def build_model(num_classes: int | None = None) -> nn.Module:
        """Returns the network with fresh weights."""
        torch.manual_seed(seed)
        model = build_subject(subject, classes if num_classes is None else num_classes, 3).to(device)
        torch.manual_seed(seed)  # all networks get the same random numbers, regardless of the number of weights
        return model

    return build_model


def _callback(budget: int, emit: Emit) -> Callable[..., None]:
    last_event_at = -math.inf

    def callback(images_seen: int, score: float | None = None) -> None:
        """Reports the progress of the function. Events are emitted at most a few times per second."""
        nonlocal last_event_at
        if time.monotonic() - last_event_at < _SECONDS_BETWEEN_EVENTS:
            return
        last_event_at = time.monotonic()
        shown_score = None if score is None else float(score)
        emit(TrainingProgressed(images_seen=int(images_seen), images_total=budget, score=shown_score))

    return callback


def _check_result(returned: Any, name: str) -> tuple[float, float]:
    """Returns the score and standard error from the return value of a user function.

    Raises:
        ProxyError: The return value is invalid.
    """
    shown = repr(returned)[:100]
    fault = f"{name} must return (score, standard_error), two finite numbers, but returned {shown}"
    if not isinstance(returned, tuple | list) or len(returned) != 2 or any(isinstance(v, str) for v in returned):
        raise ProxyError(fault)
    try:
        value, standard_error = float(returned[0]), float(returned[1])
    except (TypeError, ValueError, RuntimeError) as error:  # torch raises RuntimeError for several elements
        raise ProxyError(fault) from error
    if not (math.isfinite(value) and math.isfinite(standard_error)):
        raise ProxyError(fault)
    if standard_error < 0:
        raise ProxyError(f"{name} must return a standard error of at least 0, but returned {shown}")
    return value, standard_error
