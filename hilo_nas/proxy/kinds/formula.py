"""Proxies that need no work, because a trial's record has their value already."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hilo_nas.errors import HiloNasError
from hilo_nas.proxy.kinds.declaration import Attempt, Metric, Proxy

__all__ = ["FORMULAS", "Formula", "NetworkFacts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """Facts about a network that precede its score."""

    parameters: int | None
    macs: int | None
    images_per_s: float | None
    images_per_s_error: float
    """Standard error of the speed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula(Proxy):
    """A proxy whose value follows from facts that are known already."""

    fact: str
    """The field of `NetworkFacts`."""
    unit: float = 1.0
    """Size of the value's unit in units of the fact."""

    def estimate_seconds(self, images: int, batch_size: int, attempt: Callable[[int], Attempt]) -> float:
        """See `Proxy.estimate_seconds`."""
        return 0.0

    def evaluate(self, facts: NetworkFacts) -> tuple[float, float]:
        """Returns the value and its standard error.

        Raises:
            HiloNasError: The fact is not known.
        """
        value = getattr(facts, self.fact)
        if value is None:
            raise HiloNasError(f"{self.name} cannot score a network whose record does not have {self.fact}")
        return value / self.unit, getattr(facts, f"{self.fact}_error", 0.0) / self.unit


def _declare(name: str, fact: str, unit: float, title: str) -> Formula:
    return Formula(
        name=name,
        version="formula-1",
        options=frozenset(),
        metrics=(Metric(name=name, title=title),),
        description="of the network, without training",
        needs_data=False,
        fact=fact,
        unit=unit,
    )


FORMULAS = (
    _declare("params", "parameters", 1e6, "score (params M)"),
    _declare("macs", "macs", 1e9, "score (GMACs)"),
    _declare("images_per_s", "images_per_s", 1.0, "score (images/s)"),
)
