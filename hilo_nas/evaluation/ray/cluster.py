"""Interface of a cluster: its nodes, and calls of the places on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["Cluster", "Node", "PlaceLostError"]


class PlaceLostError(Exception):
    """The process of a place, or its node, has ended."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """A running node of a cluster."""

    id: str
    host: str
    """Name of the host. Several nodes may have the same."""
    resources: Mapping[str, float]
    """Amount of each resource of the node, such as `CPU`, `GPU` and those that the user named."""


class Cluster(Protocol):
    """Nodes on which places run. A call returns a handle at once; handles can be compared and hashed."""

    def nodes(self) -> list[Node]:
        """Returns the running nodes."""

    def start(self, node: Node, claims: Mapping[str, float], options: str) -> Any:
        """Starts a place on a node when its claims are free there, and returns it.

        Args:
            node: The node.
            claims: Resources that only this place uses while it runs, by name.
            options: Argument of `Place`.
        """

    def call(self, place: Any, method: str, *arguments: Any) -> Any:
        """Calls a method of a place and returns a handle of its result."""

    def first_ready(self, handles: Sequence[Any], timeout_s: float) -> list[Any]:
        """Returns the handles whose calls have ended. Waits until there is one, or until the timeout."""

    def result(self, handle: Any) -> Any:
        """Returns the result of a call. Waits until it has ended.

        Raises:
            PlaceLostError: The place ended before or during the call.
        """

    def kill(self, place: Any) -> None:
        """Ends a place and frees its claims."""

    def close(self) -> None:
        """Leaves the cluster."""
