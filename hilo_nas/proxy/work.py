"""The work of a proxy in a worker process: its interface and its plain data."""

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
from hilo_nas.measurement.fields import read_value
from hilo_nas.measurement.proxy_score import PROXY_PRECISIONS

__all__ = ["Prepared", "Result", "ScoreJob", "Work"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """Result of a proxy's work before the first trial, as plain data."""

    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What values depend on, the same on every machine; a study stores its hash. Empty where nothing is to be said."""
    local: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What `Work.score` needs on this machine, such as paths; stored nowhere."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScoreJob:
    """One network to score."""

    subject: dict[str, Any]
    """The network, as `hilo_nas.models.build_subject` takes it."""
    plan: ProxyPlan
    data: CachedData
    prepared: Prepared
    """Result of `Work.prepare`; `Prepared()` for a proxy that prepares nothing."""
    seed: int
    """Seed of the weights, the order of the images and all else that is drawn."""
    device: str
    """`cpu`, `cuda`, `cuda:N` or `mps`."""
    until: int
    """Training images seen at which to score, in whole batches; by default the plan's full budget."""
    checkpoint: Path | None = None
    """File to continue from, where it exists and is of this very training, and to write at the end. None for a proxy
    without rungs."""
    score_under: tuple[str, ...] = ()
    """Further precisions to score the same trained network under, for a proxy that reads `proxy.precision`."""

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ScoreJob:
        """Returns the job that plain data describes: values of other classes by their `to_dict`, paths as text.

        `until`, `checkpoint` and `score_under` may be left out or None. A checkpoint of a proxy without rungs is
        ignored.

        Raises:
            RecordError: A field is unknown, is missing or has a value of another type; names all.
            UsageError: The plan asks for a version or an image size, or `score_under` for a precision, that is not
                there.
        """
        given = {name: value for name, value in fields.items() if value is not None}
        checkpoint = given.pop("checkpoint", None)
        job = read_value(cls, {"until": 0, **given}, given={"checkpoint": checkpoint and Path(checkpoint)})
        plan, proxy = job.plan, job.plan.declaration
        if plan.recipe != proxy.version:
            raise UsageError(
                f"this version scores by {proxy.name} {proxy.version!r}, but the plan asks for {plan.recipe!r}. Use "
                "the version of hilo-nas that made the study, or make a new study."
            )
        if proxy.sees_images and plan.img_size != job.data.img_size:
            raise UsageError(f"the images were prepared at {job.data.img_size} pixels, the plan says {plan.img_size}")
        if job.score_under and "proxy.precision" not in proxy.options:
            raise UsageError(
                f"the proxy {proxy.name} cannot score under another precision, but got {job.score_under[0]!r}"
            )
        if unknown := [precision for precision in job.score_under if precision not in PROXY_PRECISIONS]:
            raise UsageError(f"score_under must be of {', '.join(PROXY_PRECISIONS)}, but got {unknown[0]!r}")
        return dataclasses.replace(
            job, until=job.until or plan.budgets[-1], checkpoint=job.checkpoint if proxy.has_rungs else None
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """A value and what belongs to it; see the fields of `ProxyScore`."""

    value: float
    standard_error: float
    loss: float | None = None
    n_val: int = 0
    chance: float | None = None
    images_seen: int | None = None
    """Of a proxy with rungs; others count as having used their plan's whole budget."""
    micro_batch_size: int = 1
    is_baseline: bool = False
    """Whether it was computed by the rule for other networks than LITv2s; see `Proxy.baseline_version`."""


class Work(abc.ABC):
    """The work of one kind of proxy. An instance serves any number of calls, of any proxy of its kind."""

    def prepare(
        self, plan: ProxyPlan, data: CachedData | None, device: str, source: str | None, emit: Emit
    ) -> Prepared:
        """Returns what all networks of a study need; called once before its first trial.

        Args:
            plan: The study's.
            data: The prepared images; None for a proxy that is not given them.
            device: Where networks are scored.
            source: Where a function of the user lies; None for other proxies.
            emit: Takes `TrainingProgressed` and `Notice`.

        Raises:
            HiloNasError: The proxy cannot serve.
        """
        return Prepared()

    @abc.abstractmethod
    def score(self, job: ScoreJob, emit: Emit) -> tuple[Result, ...]:
        """Returns the network's result, followed by one for each precision of `job.score_under`.

        The same job gives the same values on one device and version of torch, as far as its kernels are deterministic.

        Args:
            job: The network and all that its value depends on.
            emit: Takes `TrainingProgressed` and `Notice`.

        Raises:
            OutOfMemoryError: The network does not fit.
            HiloNasError: It cannot be scored.
        """
