"""Next steps after a search: commands that work as they are printed."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence

from hilo_nas.space import limit_text, measured_values
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.text.commands import command, setting_words
from hilo_nas.text.plurals import agree, count_of

__all__ = ["Hint", "confirm_command", "hints_after_search", "remeasure_command", "resume_hint"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hint:
    """A command and what it is for."""

    command: str
    """Quoted for a shell."""
    purpose: str

    def line(self) -> str:
        """Returns both in a line that can be pasted whole."""
        return f"{self.command}      # {self.purpose}"


def resume_hint(study: str, *, trials: int | None = None) -> Hint:
    """Returns how to resume a search, with further trials where a number is given.

    Args:
        study: The study's name or folder, as a command typed here finds it.
        trials: Further ones.
    """
    more = () if trials is None else ("--trials", str(trials))
    purpose = "resume" if trials is None else "search on"
    return Hint(command=command("search", "--study", study, *more), purpose=purpose)


def confirm_command(study: str) -> str:
    """Returns the command that trains the front with two further seeds."""
    return command("search", "--study", study, *setting_words({"proxy.confirm": 2}))


def remeasure_command(study: str) -> str:
    """Returns the command that times the front again; a study that was timed by another refuses it."""
    return command("remeasure", study)


def hints_after_search(
    study: str,
    manifest: Manifest,
    front: Front,
    *,
    is_exhausted: bool = False,
) -> tuple[list[str], list[Hint]]:
    """Returns what to know and what to type after a search: an export only where the front holds a network.

    The export goes to a folder that is not there yet, because it would not replace files.

    Args:
        study: The study's name or folder, as a command typed here finds it.
        manifest: The study's.
        front: The study's.
        is_exhausted: Whether every network of the space was tried.
    """
    further = [] if is_exhausted else [resume_hint(study, trials=20)]
    if front.members:
        options = ("--knee", "--format", "timm", "-o", _free_folder())
        text = command("export", study, *options)
        return [], [*further, Hint(command=text, purpose="train the network at the knee")]
    why = Hint(command=command("status", study), purpose="why no network is on the front")
    way = "Loosen the limit in a new study." if is_exhausted else "Search on, or loosen the limit in a new study."
    return [f"{line} {way}" for line in nearest_to_limits(manifest.limits_in_force, front.records)], [*further, why]


def _free_folder() -> str:
    """`out/`, or the first of `out-2/`, `out-3/` and so on that is not there."""
    names = itertools.chain(["out"], (f"out-{i}" for i in itertools.count(2)))
    return next(f"{name}/" for name in names if not os.path.lexists(name))


def nearest_to_limits(limits: Mapping[str, float], records: Sequence[TrialRecord]) -> list[str]:
    """Returns a line for each limit that some network broke: the limit, and the value that came nearest to it.

    Args:
        limits: Those in force.
        records: The study's; only infeasible ones are read.
    """
    lines = []
    infeasible = [record for record in records if record.state == TrialState.INFEASIBLE and not record.is_peer]
    for name, bound in limits.items():
        broken = [record for record in infeasible if record.violations.get(name, 0.0) > 0]
        if not broken:
            continue
        nearest = min(broken, key=lambda record: record.violations[name])
        values = {
            "params_m": (nearest.parameters or 0) / 1e6,
            "gmacs": (nearest.macs or 0) / 1e9,
            **(measured_values(nearest.measurements) if nearest.measurements else {}),
        }
        lines.append(
            f"{count_of(len(broken), 'network')} {agree(len(broken), 'breaks', 'break')} {limit_text(name, bound)}; "
            f"the nearest has {values[name]:.4g} (trial {nearest.number})."
        )
    return lines
