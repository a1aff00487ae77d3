"""Fake cluster whose places run in threads of this process, and whose nodes can be lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from hilo_nas.evaluation.ray.cluster import Node, PlaceLostError
from hilo_nas.evaluation.ray.place import Place

__all__ = ["FakeCluster", "FakePlace"]

_CALLS_AT_ONCE = 8
_POLL_S = 0.002


class FakePlace:
    """A place and the threads of its calls.

    Args:
        node: Node of the place.
        claims: Its claims.
        place: The place. None if its claims are not free, so that it does not start.
    """

    def __init__(self, node: Node, claims: Mapping[str, float], place: Any) -> None:
        self.node, self.claims, self.place = node, dict(claims), place
        self.is_lost = False
        self.threads = ThreadPoolExecutor(_CALLS_AT_ONCE)


class _Handle:
    def __init__(self, place: FakePlace, future: Future[Any]) -> None:
        self.place, self.future = place, future

    @property
    def is_ready(self) -> bool:
        return self.place.is_lost or self.future.done()


class FakeCluster:
    """Fake of `hilo_nas.evaluation.ray.cluster.Cluster`.

    Args:
        nodes: Resources of each node, by its name.
        build: Function that creates a place from its options. Defaults to `Place`.
    """

    def __init__(self, nodes: Mapping[str, Mapping[str, float]], build: Callable[[str], Any] = Place) -> None:
        self._nodes = {name: Node(id=name, host=name, resources=resources) for name, resources in nodes.items()}
        self._build = build
        self.places: list[FakePlace] = []
        """All places that were started, also lost ones."""
        self.is_closed = False
        self._lock = threading.Lock()

    def nodes(self) -> list[Node]:
        """Returns the nodes that are not lost."""
        return list(self._nodes.values())

    def start(self, node: Node, claims: Mapping[str, float], options: str) -> FakePlace:
        """Starts a place, unless other places have its claims."""
        used = [place.claims for place in self.places if place.node.id == node.id and not place.is_lost]
        total = {name: sum(own.get(name, 0.0) for own in used) + amount for name, amount in claims.items()}
        is_free = all(amount <= node.resources.get(name, 0.0) for name, amount in total.items())
        place = FakePlace(node, claims if is_free else {}, self._build(options) if is_free else None)
        place.is_lost = node.id not in self._nodes
        self.places.append(place)
        return place

    def call(self, place: FakePlace, method: str, *arguments: Any) -> _Handle:
        """Calls a method in a thread."""
        if place.is_lost or place.place is None:
            return _Handle(place, Future())
        return _Handle(place, place.threads.submit(getattr(place.place, method), *arguments))

    def first_ready(self, handles: Sequence[_Handle], timeout_s: float) -> list[_Handle]:
        """Returns the handles whose calls have ended."""
        until = time.monotonic() + timeout_s
        while not (found := [handle for handle in handles if handle.is_ready]) and time.monotonic() < until:
            time.sleep(_POLL_S)
        return found

    def result(self, handle: _Handle) -> Any:
        """Returns the result of a call."""
        while not handle.is_ready:
            time.sleep(_POLL_S)
        if not handle.future.done() or handle.future.cancelled():
            raise PlaceLostError("its process or node ended")
        return handle.future.result()

    def kill(self, place: FakePlace) -> None:
        """Ends a place, without a word."""
        with self._lock:
            if not place.is_lost:
                place.is_lost = True
                if place.place is not None:
                    place.place.close()
                place.threads.shutdown(wait=False)

    def lose(self, name: str) -> None:
        """Ends a node with all its places."""
        self._nodes.pop(name, None)
        for place in self.places:
            if place.node.id == name:
                self.kill(place)

    def close(self) -> None:
        """Ends all places."""
        for place in self.places:
            self.kill(place)
        self.is_closed = True
