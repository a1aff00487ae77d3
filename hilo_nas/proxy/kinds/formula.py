"""Proxies that do not need a worker because the trial's record holds their value."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hilo_nas.errors import HiloNasError
from hilo_nas.proxy.kinds.declaration import Attempt, Metric, Proxy

__all__ = ["FORMULAS", "Formula", "NetworkFacts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """Facts about a network that are known before it is scored."""

    parameters: int | None
    macs: int | None
    images_per_s: float | None
    images_per_s_error: float
    """Standard error of the speed, in images/s."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Formula(Proxy):
    """A proxy with a value computed from one known fact."""

    fact: str
    """Name of the field of `NetworkFacts`."""
    unit: float = 1.0
    """Divisor of the fact that gives the value, for example 1e6 for millions."""

    def estimate_seconds(self, images: int, batch_size: int, attempt: Callable[[int], Attempt]) -> float:
        """Returns 0.0, because a formula takes no time."""
        return 0.0

    def evaluate(self, facts: NetworkFacts) -> tuple[float, float]:
        """Returns the value and its standard error.

        Raises:
            HiloNasError: The fact is None.
        """
        value = getattr(facts, self.fact)
        if value is None:
            raise HiloNasError(f"the proxy {self.name} needs {self.fact} in the network's record, but found none")
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
