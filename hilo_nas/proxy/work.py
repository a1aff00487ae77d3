"""Interface of a proxy's work in a worker process, with its jobs and results."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilo_nas.data.prepared_images import CachedData
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit
from hilo_nas.measurement import ProxyPlan
from hilo_nas.measurement.condition import INT8_VERSION
from hilo_nas.measurement.fields import read_value
from hilo_nas.measurement.proxy_score import PROXY_PRECISIONS

__all__ = ["Prepared", "Result", "ScoreJob", "Work"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """Result of a proxy's work before the first trial, as plain data."""

    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Facts that affect the values and are the same on every machine. A study stores their hash unless empty."""
    local: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Data that `Work.score` needs on this machine, such as paths. A study does not store it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """A network to score, with all settings."""

    subject: dict[str, Any]
    """The network, in the format of `hilo_nas.models.build_subject`."""
    plan: ProxyPlan
    data: CachedData
    prepared: Prepared
    """Result of `Work.prepare`, or `Prepared()` for a proxy that prepares nothing."""
    seed: int
    """Seed of the weights, the order of the images and all other random numbers."""
    device: str
    """`cpu`, `cuda`, `cuda:N` or `mps`."""
    until: int
    """Number of training images after which to score, in whole batches. Defaults to the plan's full budget."""
    checkpoint: Path | None = None
    """Checkpoint file. The training resumes from it if it exists and belongs to the same training, and writes it at the
    end. None for a proxy without rungs."""
    score_under: tuple[str, ...] = ()
    """Additional precisions for scoring the same trained network. Requires a proxy that reads `proxy.precision`."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ScoreJob:
        """Returns the job from plain data.

        Values of other classes have the format of their `to_dict`, and paths are text. `until`, `checkpoint` and
        `score_under` may be missing or None. The checkpoint is ignored for a proxy without rungs.

        Raises:
            RecordError: A field is unknown, missing or of the wrong type. The message lists all such fields.
            UsageError: The version or image size of the plan, or a precision in `score_under`, is not available.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        checkpoint = given.pop("checkpoint", None)
        job = read_value(cls, {"until": 0, **given}, given={"checkpoint": checkpoint and Path(checkpoint)})
        plan, proxy = job.plan, job.plan.declaration
        if plan.recipe != proxy.version:
            raise UsageError(
                f"the plan must use version {proxy.version!r} of the proxy {proxy.name}, but has {plan.recipe!r}. Use "
                "the version of hilo-nas that created the study, or create a new study."
            )
        if plan.int8_runtime is not None and plan.int8_version != INT8_VERSION:
            raise UsageError(
                f"the plan must use version {INT8_VERSION!r} of the quantization to INT8, but has "
                f"{plan.int8_version or '1'!r}. Use the version of hilo-nas that created the study, or create a new "
                "study."
            )
        if proxy.sees_images and plan.img_size != job.data.img_size:
            raise UsageError(
                f"img_size of the plan must be {job.data.img_size}, the size of the prepared images, but is "
                f"{plan.img_size}"
            )
        if job.score_under and "proxy.precision" not in proxy.options:
            raise UsageError(
                f"the proxy {proxy.name} cannot score under another precision, but got {job.score_under[0]!r}"
            )
        if unknown := [precision for precision in job.score_under if precision not in PROXY_PRECISIONS]:
            raise UsageError(
                f"each value of score_under must be one of {', '.join(PROXY_PRECISIONS)}, but got {unknown[0]!r}"
            )
        return dataclasses.replace(
            job, until=job.until or plan.budgets[-1], checkpoint=job.checkpoint if proxy.has_rungs else None
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """Value of a network with the fields that `ProxyScore` stores."""

    value: float
    standard_error: float
    loss: float | None = None
    n_val: int = 0
    chance: float | None = None
    images_seen: int | None = None
    """Number of training images seen. If None, the score counts as taken at the plan's full budget."""
    micro_batch_size: int = 1
    float_value: float | None = None
    """Value of the same network before it was quantized. None if it was scored in float."""
    drop_error: float | None = None
    """Standard error of `float_value - value`. None like `float_value`."""
    float_layers: tuple[str, ...] = ()
    """Layers that stayed in float in the quantized network."""
    is_baseline: bool = False
    """True if the value was computed by the rule for networks other than LITv2 (`Proxy.baseline_version`)."""


class Work(abc.ABC):
    """Work of one kind of proxy. An instance handles any number of calls and all proxies of its kind."""

    def prepare(
        self, plan: ProxyPlan, data: CachedData | None, device: str, source: str | None, emit: Emit
    ) -> Prepared:
        """Returns data that is shared by all networks of a study. Called once before the first trial.

        Args:
            plan: Plan of the study.
            data: The prepared images, or None for a proxy that does not use images.
            device: Device on which networks are scored.
            source: Location of the user function, or None for other proxies.
            emit: Receives `TrainingProgressed` and `Notice` events.

        Raises:
            HiloNasError: The proxy cannot be used.
        """
        return Prepared()

    @abc.abstractmethod
    def score(self, job: ScoreJob, emit: Emit) -> tuple[Result, ...]:
        """Returns the result of the network, followed by one result per precision of `job.score_under`.

        The same job gives the same values on the same device and torch version if all kernels are deterministic.

        Args:
            job: The network and all settings that affect its value.
            emit: Receives `TrainingStarted`, `TrainingProgressed` and `Notice` events.

        Raises:
            OutOfMemoryError: The network does not fit in memory.
            HiloNasError: The network cannot be scored.
        """
