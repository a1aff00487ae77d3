"""Disturbances of a search on a Ray cluster: kills of places and nodes."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from benchmarks.soak.process_tree import count_survivors, list_descendants, read_processes
from benchmarks.soak.ray_nodes import RayNodes
from benchmarks.soak.watched_search import ORPHAN_S

if TYPE_CHECKING:
    from benchmarks.soak.soak_run import Soak

__all__ = ["KillNode", "KillPlace"]


class _Kill:
    """Kill of a process or a node of a cluster.

    Args:
        nodes: The nodes of the cluster.
    """

    hits_workers = True

    def __init__(self, nodes: RayNodes) -> None:
        self._nodes = nodes


class KillPlace(_Kill):
    """`kill -9` of the process of a place, as Ray's own worker killer does."""

    name = "kill of a place"

    def strike(self, soak: Soak) -> bool:
        """Kills a place. Its workers must end with it. The search starts it again, or ends if it was lost too often."""
        before = read_processes()
        places = sorted(self._nodes.places(before))
        if not places:
            return False
        place = soak.random.choice(places)
        workers = list(list_descendants(place, before))
        with contextlib.suppress(ProcessLookupError):
            os.kill(place, signal.SIGKILL)
        if left := count_survivors([place, *workers], before, ORPHAN_S):
            soak.fault(f"{left} processes of a place were running 5 s after its kill")
        soak.count("killed places with a worker" if workers else "killed places without a worker")
        return True


class KillNode(_Kill):
    """Kill of a node that has a place. A new node follows."""

    name = "kill of a node"

    def strike(self, soak: Soak) -> bool:
        """Kills a node. Its places and their workers must end. The search ends if it has no other place."""
        before = read_processes()
        places = self._nodes.places(before)
        if not places:
            return False
        node = places[soak.random.choice(sorted(places))]
        own = [place for place, other in places.items() if other is node]
        workers = [pid for place in own for pid in list_descendants(place, before)]
        self._nodes.kill(node)
        if left := count_survivors([*own, *workers], before, ORPHAN_S):
            soak.fault(f"{left} processes of a node's places were running 5 s after its kill")
        self._nodes.add()
        soak.count("killed nodes with a worker" if workers else "killed nodes without a worker")
        return True
