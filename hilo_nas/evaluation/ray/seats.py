"""Seats: the driver's view of the places of a cluster, with their devices and what they hold."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hilo_nas.data.set_transfer import describe_set, read_pieces
from hilo_nas.errors import DeviceError, HiloNasError, error_of
from hilo_nas.evaluation.cluster_options import ClusterOptions
from hilo_nas.evaluation.ray.cluster import Cluster, Node, PlaceLostError
from hilo_nas.evaluation.tasks import DeviceReport
from hilo_nas.versions import versions

__all__ = ["Prepared", "Seat", "Seats"]

_COMPARED = ("hilo-nas", "torch")
"""Software whose versions must be equal on all machines."""
_SHARE = 0.001
"""Claimed amount of a resource that only marks nodes."""
_PATHS = ("path", "val_path")
"""Fields of prepared images with folders of image sets."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """Prepared object, which the driver gives to each place that needs it."""

    value: dict[str, Any]
    home: str | None
    """Its reference at the evaluator of the driver's machine. None if a node prepared it."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Seat:
    """A place and its device."""

    name: str
    """Name of the device for tasks and people, such as `cpu@node-1` or `cuda@node-1/0`."""
    kind: str
    """Kind of the device, which is also its name on the node."""
    node: Node
    times: bool
    trains: bool
    place: Any = None
    starting: Any = None
    """Handle of the first call. None if the place runs."""
    since: float = 0.0
    """Time of the start in monotonic seconds."""
    poll: Any = None
    """Handle of the wait for messages. None if there is none."""
    job: Any = None
    """The task that runs here. None if the seat is free."""
    sent: Any = None
    """Handle of the call that hands over the task. It ends when the place has the task."""
    report: DeviceReport | None = None
    machine: str = ""
    """ID of the running machine of the node; empty if it has none."""
    adopted: dict[str, str] = dataclasses.field(default_factory=dict)
    """References at the place, by those of the driver."""
    losses: int = 0

    @property
    def is_free(self) -> bool:
        """True if the place runs and has no task."""
        return self.is_running and self.job is None

    @property
    def is_running(self) -> bool:
        """True if the place has started."""
        return self.place is not None and self.starting is None


class Seats:
    """The seats of one search. Each physical device of a node belongs to one of them.

    A seat for a GPU claims one `GPU` of Ray. A seat for a CPU claims all `CPU` of its node.

    Args:
        cluster: The cluster.
        wishes: Nodes that time and train.
        host: Name of the function that creates the evaluator of a place, and its arguments, as in `Place`.
        start_s: Seconds after which a place that has not started is given up.
    """

    def __init__(
        self, cluster: Cluster, wishes: ClusterOptions, host: tuple[str, Mapping[str, Any]], *, start_s: float
    ) -> None:
        self._cluster, self._wishes, self._host, self._start_s = cluster, wishes, host, start_s
        self._opened: set[str | None] = set()
        self.all: list[Seat] = []
        """Seats whose places run or start, in the order of the nodes."""
        self.notices: list[str] = []
        """Warnings that were not reported yet."""

    def open(self, kind: str | None) -> None:
        """Starts the places for timings on a kind of device, and for trainings. Does nothing if they run.

        Args:
            kind: `cpu`, `cuda` or `mps`. None for `cuda` if the nodes that time have it, else `cpu`.

        Raises:
            DeviceError: No node has such a device, or none of them could start a place.
        """
        if kind in self._opened or (kind is None and self._opened):
            return
        nodes = sorted(self._cluster.nodes(), key=lambda node: (node.host, node.id))
        timing = _with(nodes, self._wishes.time_on)
        chosen = kind or _fastest(timing)
        seats = self._plan(timing, chosen, names=_names_of(nodes))
        if not any(seat.times for seat in seats):
            kind = "GPU" if chosen == "cuda" else "CPU"
            raise DeviceError(_describe_lack(self._wishes.time_on, kind, nodes))
        if self._wishes.train_on is not None and not any(seat.trains for seat in self.all):
            training = _with(nodes, self._wishes.train_on)
            if not training:
                raise DeviceError(_describe_lack(self._wishes.train_on, None, nodes))
            others = self._plan(training, _fastest(training), names=_names_of(nodes))
            seats = _joined(seats, others)
        for seat in seats:
            own = next((own for own in self.all if (own.name, own.node.id) == (seat.name, seat.node.id)), None)
            if own is not None:
                own.times, own.trains = own.times or seat.times, own.trains or seat.trains
            else:
                self.all.append(seat)  # first, so that an interrupt leaves no place that `remove` does not know
                self.start(seat)
        self._wait_for(self.all)
        self._opened |= {kind, chosen}
        for role in ("times", "trains"):
            if not any(getattr(seat, role) for seat in self.all):
                raise DeviceError(f"no node of the cluster {role}: {'; '.join(self.notices)}")

    def start(self, seat: Seat) -> None:
        """Starts the place of a seat. `check_start` must be called when the handle `Seat.starting` is ready."""
        claims = {"GPU": 1.0} if seat.kind == "cuda" else {"CPU": seat.node.resources.get("CPU", 1.0)}
        marks = {self._wishes.time_on: seat.times, self._wishes.train_on: seat.trains}
        claims |= {name: _SHARE for name, is_used in marks.items() if name is not None and is_used}
        function, arguments = self._host
        options = json.dumps({"host": function, "arguments": {**arguments, "place": seat.name}})
        seat.place = self._cluster.start(seat.node, claims, options)
        seat.starting, seat.since = self._cluster.call(seat.place, "describe"), time.monotonic()
        seat.poll, seat.job, seat.sent, seat.adopted = None, None, None, {}

    def check_start(self, seat: Seat, *, is_ready: bool) -> bool:
        """Returns True if the place of a seat runs or may still start. Otherwise the seat is removed, with a notice.

        Args:
            seat: A seat that is starting.
            is_ready: True if its first call has ended.
        """
        fault = None
        if is_ready:
            seat_versions, starting = versions(), seat.starting
            seat.starting = None
            try:
                answer = _value_of(self._cluster.result(starting))
                found, seat.machine = answer["versions"], str(answer.get("machine", ""))
                pairs = [(name, found.get(name), seat_versions[name]) for name in _COMPARED]
                if differing := [pair for pair in pairs if _public(pair[1]) != _public(pair[2])]:
                    fault = "all machines must have the same versions, but it has " + ", ".join(
                        f"{name} {there} and this one {here}" for name, there, here in differing
                    )
            except PlaceLostError as error:
                fault = str(error)
            except HiloNasError as error:
                fault = str(error)
        elif time.monotonic() - seat.since > self._start_s:
            fault = f"it did not start within {self._start_s:.0f} s. Other work may use its resources"
        if fault is not None:
            self.notices.append(f"{seat.name} is not used: {fault}")
            self.remove(seat)
        return fault is None

    def remove(self, seat: Seat) -> None:
        """Ends the place of a seat and forgets it."""
        if seat.place is not None:
            self._cluster.kill(seat.place)
        seat.place, seat.starting, seat.poll, seat.sent = None, None, None, None
        self.all = [other for other in self.all if other is not seat]

    def drop_copies(self, seats: Sequence[Seat]) -> tuple[list[Seat], list[Seat]]:
        """Returns the seats with different devices, and those that are removed because their device has a seat.

        Such seats are on two nodes of one host. The first seat of a device that times, or else the first one, stays and
        takes the roles of the others. Hosts with the same name are told apart by the ID of their machine.

        Args:
            seats: Seats whose devices were inspected.
        """
        known: dict[tuple[str, str, str], Seat] = {}
        copies = []
        for seat in sorted(seats, key=lambda seat: not seat.times):
            assert seat.report is not None, "the device must have been inspected"
            first = known.setdefault((seat.kind, seat.report.identity.serial, seat.machine), seat)
            first.trains = first.trains or seat.trains
            if first is not seat and seat in self.all:
                self.notices.append(f"{seat.name} is not used: it is the same device as {first.name}")
                self.remove(seat)
                copies.append(seat)
        return [seat for seat in seats if seat in known.values()], copies

    def ask(self, seat: Seat, method: str, *arguments: Any) -> Any:
        """Returns the result of a method of a place.

        Raises:
            PlaceLostError: The place has ended.
            HiloNasError: The method raised an error.
        """
        return _value_of(self._cluster.result(self._cluster.call(seat.place, method, *arguments)))

    def give(self, seat: Seat, reference: str, prepared: Prepared) -> str:
        """Returns the reference of a prepared object at a place, which gets the object first if it lacks it.

        Raises:
            PlaceLostError: The place has ended.
            StorageError: The image set cannot be read here, or not be written there.
        """
        if reference not in seat.adopted:
            paths = {name: self._send(seat, prepared.value[name]) for name in _PATHS if prepared.value.get(name)}
            text = json.dumps({**prepared.value, **paths})
            seat.adopted[reference] = self.ask(seat, "adopt", text)
        return seat.adopted[reference]

    def _send(self, seat: Seat, path: str) -> str:
        """Returns the folder of an image set on a node. Sends the set if the node has no copy."""
        text = json.dumps(describe_set(Path(path)))
        found: str | None = self.ask(seat, "find_set", text, path)
        if found is None:
            for file, piece in read_pieces(Path(path)):
                self.ask(seat, "write_set", text, file, piece)
            found = str(self.ask(seat, "write_set", text, None))
        return found

    def _plan(self, nodes: Sequence[Node], kind: str, *, names: Mapping[str, str]) -> list[Seat]:
        """Returns a seat per device of a kind, whose places do not run yet."""
        seats = []
        for node in nodes:
            count = int(node.resources.get("GPU", 0)) if kind == "cuda" else min(1, int(node.resources.get("CPU", 0)))
            for number in range(count):
                name = f"{kind}@{names[node.id]}" + (f"/{number}" if kind == "cuda" else "")
                trains = self._wishes.train_on is None
                seats.append(Seat(name=name, kind=kind, node=node, times=True, trains=trains))
        return seats

    def _wait_for(self, seats: Sequence[Seat]) -> None:
        """Waits until each seat has started or is removed."""
        while waiting := [seat for seat in seats if seat.starting is not None]:
            ready = self._cluster.first_ready([seat.starting for seat in waiting], 1.0)
            for seat in waiting:
                self.check_start(seat, is_ready=seat.starting in ready)


def _value_of(answer: Mapping[str, Any]) -> Any:
    """Returns the value of an answer of `Place`.

    Raises:
        HiloNasError: The answer is an error.
    """
    if "error" in answer:
        raise error_of(answer["error"]["kind"], answer["error"]["message"])
    return answer["value"]


def _with(nodes: Sequence[Node], resource: str | None) -> list[Node]:
    return [node for node in nodes if resource is None or node.resources.get(resource, 0) > 0]


def _fastest(nodes: Sequence[Node]) -> str:
    return "cuda" if any(node.resources.get("GPU", 0) >= 1 for node in nodes) else "cpu"


def _joined(timing: Sequence[Seat], training: Sequence[Seat]) -> list[Seat]:
    """Returns seats for both roles. A device with both roles has one seat."""
    own = {seat.name: seat for seat in timing}
    for seat in training:
        if seat.name in own:
            own[seat.name].trains = True
        else:
            own[seat.name] = dataclasses.replace(seat, times=False, trains=True)
    return list(own.values())


def _names_of(nodes: Sequence[Node]) -> dict[str, str]:
    """Returns a name per node: its host, with a number from the second node of a host on."""
    names, seen = {}, Counter[str]()
    for node in nodes:
        host = node.host.replace(",", "-").replace("@", "-")
        seen[host] += 1
        names[node.id] = host if seen[host] == 1 else f"{host}-{seen[host]}"
    return names


def _describe_lack(resource: str | None, kind: str | None, nodes: Sequence[Node]) -> str:
    """Returns which resources no node has, and how to start a node that has them."""
    known = sorted(
        {name for node in nodes for name in node.resources if not name.startswith(("node:", "memory", "obj"))}
    )
    option = "" if resource is None else f" --resources '{json.dumps({resource: 1})}'"
    return (
        f"a node of the cluster must have the resource {' and '.join(filter(None, (resource, kind)))}, but the "
        f"{len(nodes)} running nodes have {', '.join(known) or 'none'}. Run `RAY_AUTH_MODE=token ray start --address "
        f"HOST:6379{option}` on a machine{' with a GPU' if kind == 'GPU' else ''}."
    )


def _public(version: str | None) -> str | None:
    """Returns a version without the build, as torch has one per kind of device: 2.9.0 for 2.9.0+cpu."""
    return None if version is None else version.partition("+")[0]
