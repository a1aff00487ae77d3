"""Results of a study that must not get lost, as comparable values."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from typing import Any

from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState

__all__ = ["FINISHED", "Fact", "collect_facts", "compare_networks", "count_duplicates"]

FINISHED = (TrialState.COMPLETE, TrialState.STOPPED, TrialState.INFEASIBLE)

Fact = tuple[Any, ...]
"""Stored result: key of the network, kind (`timing`, `score` or `finished`), and values."""


def collect_facts(records: Iterable[TrialRecord]) -> set[Fact]:
    """Returns the results that must not get lost.

    A timing is identified by its rounds, because a later calibration may change its images/s.
    """
    facts: set[Fact] = set()
    for record in records:
        for timing in record.measurements:
            facts.add((record.key, "timing", timing.measured_at, timing.call_seconds, timing.reference_seconds))
        for score in record.scores:
            facts.add((record.key, "score", score.seed, score.images_seen, score.value, score.scored_at))
        if record.state in FINISHED:
            facts.add((record.key, "finished", record.state))
    return facts


def count_duplicates(
    facts: Iterable[Fact], records: Sequence[TrialRecord], *, has_limits: bool = False
) -> dict[str, int]:
    """Returns the number of networks that finished twice, and of timings and scores that were made twice.

    Timings are identified by network and condition, and scores by network, seed and budget.

    Args:
        facts: Results of the records.
        records: Records of a study that times no rivals again (`timing.remeasure=false`).
        has_limits: True if the study has limits. A network that may meet one is timed twice.
    """
    finished = collections.Counter(record.key for record in records if record.state in FINISHED)
    scored = collections.Counter((key, *found[:2]) for key, kind, *found in facts if kind == "score")
    timed = collections.Counter(
        (record.key, timing.condition.label())
        for record in records
        for timing in record.measurements
        if not timing.is_preliminary
    )
    return {
        "networks finished twice": sum(count > 1 for count in finished.values()),
        "scores taken twice": sum(count > 1 for count in scored.values()),
        "timings taken twice": sum(count > 1 + has_limits for count in timed.values()),
    }


def compare_networks(disturbed: Sequence[TrialRecord], undisturbed: Sequence[TrialRecord]) -> list[str]:
    """Returns the differences between a disturbed study and one of the same seed that nothing disturbed.

    Trials of equal numbers must have equal networks. Their scores after equal numbers of training images must be equal,
    because a resumed training gives the same result. Speeds may differ. A trial that only one study has is a
    difference, too.
    """
    left, right = ({record.number: record for record in records} for records in (disturbed, undisturbed))
    faults = [f"trial {number} is missing in one of the two studies" for number in sorted(left.keys() ^ right.keys())]
    for number in sorted(left.keys() & right.keys()):
        ours, theirs = left[number], right[number]
        if ours.key != theirs.key:
            faults.append(f"trial {number} has network {ours.key}, but undisturbed {theirs.key}")
            continue
        for budget in sorted({score.images_seen for score in ours.scores}):
            score, other = ours.score_at(budget), theirs.score_at(budget)
            if score is not None and other is not None and score.value != other.value:
                faults.append(f"trial {number} scored {score.value} after {budget} images, undisturbed {other.value}")
    return faults
