"""The work of a proxy in a worker process: its interface and its plain data."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hilo_nas.data.prepare import CachedData
from hilo_nas.events import Emit
from hilo_nas.measurement import ProxyPlan

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

    subject: Mapping[str, Any]
    """See `hilo_nas.models.build_subject`."""
    plan: ProxyPlan
    data: CachedData
    prepared: Prepared
    seed: int
    device: str
    """`cpu`, `cuda`, `cuda:N` or `mps`."""
    until: int
    """Training images seen at which to score: one of the plan's budgets."""
    checkpoint: Path | None
    """File to continue from, where it exists, and to write at the end; of a proxy with rungs."""
    score_under: tuple[str, ...]
    """Precisions under which the same trained network is scored, too; of a proxy that reads `proxy_precision`."""


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
