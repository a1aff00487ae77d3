"""Declaration of custom proxies, which are user functions. `hilo_nas.proxy.custom` defines their interface."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hilo_nas.plugins import name_of
from hilo_nas.proxy.kinds.declaration import Attempt, Metric, Proxy

__all__ = ["declare_function"]

_PROBE_BATCHES = (6, 60)
"""Two small budgets, in batches, used to extrapolate the seconds of the full budget."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Function(Proxy):
    def estimate_seconds(self, images: int, batch_size: int, attempt: Callable[[int], Attempt]) -> float:
        """Returns seconds extrapolated linearly from two smaller budgets."""
        small, large = (min(batches * batch_size, images) for batches in _PROBE_BATCHES)
        first, second = (attempt(tried).seconds for tried in (small, large))
        if large == images:
            return second
        return second + max(second - first, 0.0) / (large - small) * (images - large)


def declare_function(text: str) -> Proxy:
    """Returns the declaration of a function given as `module:function` or `path/to/file.py:function`.

    The declaration does not include the folder.
    """
    name = name_of(text)
    return _Function(
        name=name,
        version="own-1",
        options=frozenset({"proxy.images", "proxy.confirm"}),
        metrics=(Metric(name=name),),
        description="a custom function with a budget of {images:,} images",
        work="hilo_nas.proxy.custom:FunctionWork",
        prepares=True,
        has_source=True,
    )
