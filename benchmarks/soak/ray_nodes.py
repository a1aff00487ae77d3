"""Nodes of a Ray cluster on this machine, which tests kill and start again."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.soak.process_tree import Processes, list_descendants
from benchmarks.soak.watched_search import name_folders

__all__ = ["RayNodes"]

_PLACE = "ray::RayPlace"
"""Start of the title that Ray gives to the process of a place."""
_ADDRESS = "127.0.0.1"


class RayNodes:
    """Cluster of a head without CPUs, to which the searches connect, and nodes with one CPU each.

    It listens on 127.0.0.1 with a token, and has no dashboard. As a context manager, it starts at the entry and ends at
    the exit. The start sets Ray's variables of this process, which the searches inherit.

    All nodes have the CPU of this machine. So a search uses one of them, and leaves out the others as copies.

    Args:
        folder: Folder of the test, as for `Soak`. The nodes use its locks, cache and state. It need not exist yet.
        count: Number of nodes besides the head.
    """

    endings: ClassVar[dict[str, str]] = {"no node of the cluster": "searches that the loss of all places ended"}
    """Part of the message with which a search may end when it loses places, and the name of this end for the report."""

    def __init__(self, folder: Path, count: int = 2) -> None:
        self._folders = {name: str(place) for name, place in name_folders(folder).items()}
        self._count = count
        self._cluster: Any = None
        self._files = ""
        """Folder of Ray's sockets, whose paths must be short."""

    def __enter__(self) -> RayNodes:
        """Starts the head and the nodes.

        Raises:
            ImportError: Ray is not installed.
        """
        self._files = tempfile.mkdtemp(prefix="soak-")
        os.environ.pop("RAY_ADDRESS", None)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16), "RAY_TMPDIR": self._files}
        os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": _ADDRESS}
        previous = signal.getsignal(signal.SIGTERM)
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(self._count):
            self.add()
        signal.signal(signal.SIGTERM, previous)  # Ray's handler waits for up to 30 s
        return self

    def __exit__(self, *raised: object) -> None:
        """Ends all processes of the cluster and removes its files."""
        self._cluster.shutdown()
        shutil.rmtree(self._files, ignore_errors=True)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Arguments of a search that uses the cluster."""
        return ("--set", "evaluator.kind=ray", "--set", f"evaluator.address={self._cluster.address}")

    def add(self) -> None:
        """Starts a node, and waits until it runs."""
        self._cluster.add_node(num_cpus=1, node_ip_address=_ADDRESS, env_vars=self._folders)

    def places(self, processes: Processes) -> dict[int, Any]:
        """Returns the node of each place, by the process ID of the place.

        Args:
            processes: All processes of this moment.
        """
        return {
            pid: node
            for node in self._cluster.worker_nodes
            for pid in list_descendants(node.all_processes["raylet"][0].process.pid, processes)
            if _title_of(pid).startswith(_PLACE)
        }

    def list_processes(self, processes: Processes) -> list[int]:
        """Returns the process IDs of the places and of their workers.

        Args:
            processes: All processes of this moment.
        """
        return [pid for place in self.places(processes) for pid in (place, *list_descendants(place, processes))]

    def kill(self, node: Any) -> None:
        """Kills the processes of a node with signal 9. Those of its places are left to Ray."""
        self._cluster.remove_node(node, allow_graceful=False)


def _title_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""
