"""Next steps after a search, as commands that can be copied."""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any

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
    """A command and its purpose."""

    command: str
    """Quoted for a shell."""
    purpose: str

    def line(self) -> str:
        """Returns the command with its purpose as a shell comment, so that the whole line can be pasted."""
        return f"{self.command}      # {self.purpose}"


def resume_hint(study: str, *, trials: int | None = None, settings: Mapping[str, Any] | None = None) -> Hint:
    """Returns the command that resumes a search.

    Args:
        study: Name or folder of the study, valid in the current directory.
        trials: Number of additional trials; None to complete the trials that were requested before.
        settings: Settings that the study does not store, by name.
    """
    more = [] if trials is None else ["--trials", str(trials)]
    purpose = "resume" if trials is None else "continue the search"
    return Hint(command=command("search", "--study", study, *more, *setting_words(settings or {})), purpose=purpose)


def confirm_command(study: str) -> str:
    """Returns the command that trains the front with two further seeds."""
    return command("search", "--study", study, *setting_words({"proxy.confirm": 2}))


def remeasure_command(study: str) -> str:
    """Returns the command that times the front again. It fails for a study whose timings come from another study."""
    return command("remeasure", study)


def hints_after_search(
    study: str,
    manifest: Manifest,
    front: Front,
    *,
    is_exhausted: bool = False,
    settings: Mapping[str, Any] | None = None,
) -> tuple[list[str], list[Hint]]:
    """Returns notes and hints to print after a search.

    The hints include an export if the front has a network. The export goes to a new folder, because an export does not
    replace files.

    Args:
        study: Name or folder of the study, valid in the current directory.
        manifest: Manifest of the study.
        front: Front of the study.
        is_exhausted: True if every network of the space was tried.
        settings: Settings that the study does not store, by name.
    """
    further = [] if is_exhausted else [resume_hint(study, trials=20, settings=settings)]
    if front.members:
        options = ("--knee", "--format", "timm", "-o", _free_folder())
        text = command("export", study, *options)
        return [], [*further, Hint(command=text, purpose="train the network at the knee")]
    why = Hint(command=command("status", study), purpose="why no network is on the front")
    advice = "Loosen the limit in a new study."
    if not is_exhausted:
        advice = "Continue the search, or loosen the limit in a new study."
    return [f"{line} {advice}" for line in nearest_to_limits(manifest.limits_in_force, front.records)], [*further, why]


def _free_folder() -> str:
    """Returns the first of `out/`, `out-2/`, `out-3/` and so on that does not exist."""
    names = itertools.chain(["out"], (f"out-{i}" for i in itertools.count(2)))
    return next(f"{name}/" for name in names if not os.path.lexists(name))


def nearest_to_limits(limits: Mapping[str, float], records: Sequence[TrialRecord]) -> list[str]:
    """Returns a line for each limit that networks broke, with the value closest to the limit.

    Args:
        limits: Bounds by name of the limit.
        records: Trials of the study. Only infeasible ones are used.
    """
    lines = []
    infeasible = [record for record in records if record.state == TrialState.INFEASIBLE and not record.is_baseline]
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
            f"the closest has {values[name]:.4g} (trial {nearest.number})."
        )
    return lines
