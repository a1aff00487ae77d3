"""Cluster whose nodes do the work of a search, as plain values."""

from __future__ import annotations

import dataclasses

__all__ = ["ClusterOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Ray cluster, and the kinds of its nodes that time and train."""

    address: str = "auto"
    """`HOST:PORT` of the cluster, `auto` for the one that runs on this machine, or `local` to start one here."""
    time_on: str | None = None
    """Name of a Ray resource of the nodes that time. None for all nodes. They also train if `train_on` is None."""
    train_on: str | None = None
    """Name of a Ray resource of the nodes that train. None for the nodes that time."""
