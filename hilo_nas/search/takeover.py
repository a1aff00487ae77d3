"""Taking over what another study has paid for: its scores, where its training was the same."""

from __future__ import annotations

import dataclasses
from typing import Any

from hilo_nas.errors import StudyMismatchError, UsageError
from hilo_nas.manifest import DataIdentity, Manifest
from hilo_nas.measurement import ProxyPlan, ProxyScore
from hilo_nas.records import Subject
from hilo_nas.space import SearchSpace
from hilo_nas.study import Study

__all__ = ["Scored", "check_plan", "check_same", "load_scored"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
    """A network of another study with its scores."""

    subject: Subject
    params: dict[str, int] | None
    """In the space of the study that takes it over; None where that cannot spell it, and of a peer."""
    origin: str
    """`reuse:STUDY/NUMBER`."""
    scores: tuple[ProxyScore, ...]

    @property
    def is_peer(self) -> bool:
        """Whether it was compared with there: its scores serve where it is a peer again, and nowhere else."""
        return self.subject.arch is None


def check_plan(source: Study, plan: ProxyPlan) -> None:
    """Checks that a study's trainings were those of a plan, as far as that is known before the images are looked at.

    Whether they are the same images, and may be mirrored, is left to `load_scored`.

    Raises:
        StudyMismatchError: They were others; names what differs.
    """
    manifest = source.manifest
    check_same(manifest, dataclasses.replace(plan, hflip=manifest.plan.hflip), manifest.data)


def load_scored(source: Study, space: SearchSpace, plan: ProxyPlan, data: DataIdentity) -> list[Scored]:
    """Returns a study's trained networks for another study, those on its front first.

    Scores beyond the other study's budget stay behind: nothing there would be comparable with them.

    Raises:
        StudyMismatchError: Its trainings were others, so its scores could not be compared; names what differs.
    """
    check_same(source.manifest, plan, data)
    records = source.records
    front = {record.number for record in source.front().members}
    scores = {
        record.number: tuple(score for score in record.scores if score.images_seen <= plan.budgets[-1])
        for record in records
        if record.state.is_scored
    }
    trained = [record for record in records if scores.get(record.number)]
    trained.sort(key=lambda record: (record.number not in front, record.number))
    return [
        Scored(
            subject=record.subject,
            params=_encode(space, record.subject),
            origin=f"reuse:{source.name}/{record.number}",
            scores=scores[record.number],
        )
        for record in trained
    ]


def check_same(manifest: Manifest, plan: ProxyPlan, data: DataIdentity) -> None:
    """Checks that a study's trainings were those of a plan on the same data; its budgets may be others.

    Args:
        manifest: The study's.
        plan: How the networks are trained that would take its scores over.
        data: What they are trained on.

    Raises:
        StudyMismatchError: They were others; names what differs.
    """
    if differing := _differences(manifest.plan, manifest.data, plan, data):
        lines = [f"  {name}: {theirs!r} there, {ours!r} here" for name, (theirs, ours) in differing.items()]
        raise StudyMismatchError(
            f"the scores of study {manifest.name} come from another training, so they could not be compared:\n"
            + "\n".join([*lines, "Give the options and the data of that study, or leave out --reuse."])
        )


def _differences(
    their_plan: ProxyPlan, their_data: DataIdentity, plan: ProxyPlan, data: DataIdentity
) -> dict[str, tuple[Any, Any]]:
    found: dict[str, tuple[Any, Any]] = {}
    if their_data.hash != data.hash:
        found["data"] = (f"{their_data.name} ({their_data.hash[:12]})", f"{data.name} ({data.hash[:12]})")
    # A training without a horizon is the same up to any budget.
    of_budget = ("images", "rungs") if plan.declaration.has_rungs else ("rungs",)
    for name, ours in plan.to_dict().items():
        if name in of_budget:
            continue
        theirs = getattr(their_plan, name)
        if theirs != ours:
            found[f"proxy {name}"] = (theirs, ours)
    return found


def _encode(space: SearchSpace, subject: Subject) -> dict[str, int] | None:
    if subject.arch is None:
        return None
    try:
        return space.encode(subject.arch)
    except UsageError:
        return None
