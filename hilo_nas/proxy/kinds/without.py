"""Declaration of the proxy `none`: networks are timed but not scored."""

from __future__ import annotations

from hilo_nas.proxy.kinds.declaration import Metric, Proxy

__all__ = ["NO_PROXY"]

NO_PROXY = Proxy(
    name="none",
    version="none-1",
    options=frozenset(),
    metrics=(Metric(name="none", title="no score"),),
    description="networks are timed but not scored",
    gives_scores=False,
    needs_data=False,
)
