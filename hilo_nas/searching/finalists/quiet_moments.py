"""Repeated timing of networks that lacked CPU cores, in quieter moments of a search.

Timings are repeated between trials when no other process uses the cores, and once more before the front is reported.
They take at most a tenth of the search time. Timings that stay contended keep a wider interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Evaluator, Inspect, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Condition, Contention
from hilo_nas.searching.finalists.remeasure import time_again
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import command

__all__ = ["QuietRemeasurement"]

_SHARE = 0.1
"""Maximum share of the search time for checks, waits and repeated timings."""
_WAIT_S = 60.0
"""Maximum seconds of waiting for a quiet moment before the front is reported."""
_PAUSE_S = 1.0

_Due = tuple[Condition, list[tuple[TrialRecord, float]]]
"""Condition, and the networks to time again under it, each with the seconds of its first timing."""


class QuietRemeasurement:
    """Repeats contended timings when the machine is quiet.

    Args:
        study: The study; this process holds its lock.
        manifest: Manifest of the study.
        evaluator: Checks the load and times networks.
        resources: Target device and references that the tasks use.
        emit: Receives all events.
        began: Start of the search by `clock`.
        clock: Returns the monotonic time in seconds.
        sleep: Waits for a number of seconds.
    """

    def __init__(
        self,
        study: StoredStudy,
        manifest: Manifest,
        evaluator: Evaluator,
        resources: Resources,
        emit: Emit,
        *,
        began: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._study, self._manifest, self._emit = study, manifest, emit
        self._evaluator, self._resources = evaluator, resources
        self._began, self._clock, self._sleep = began, clock, sleep
        self._spent_s = 0.0

    def remeasure_if_quiet(self, records: Sequence[TrialRecord]) -> bool:
        """Repeats timings within the time budget if the machine is quiet; returns True if there are new measurements.

        Args:
            records: Records of the study. No trial may be running.
        """
        start = self._clock()
        for condition, due in self._due(records):
            chosen = self._affordable(due, self._left_s())
            if not chosen:
                continue
            is_quiet = self._read_contention(condition) is None
            is_timed = is_quiet and self._time(chosen, condition)
            self._spent_s += self._clock() - start
            return is_timed
        return False

    def wait_and_remeasure(self) -> None:
        """Waits for a quiet moment if timings are due, then repeats at least one timing per condition."""
        for condition, due in self._due(self._study.records):
            start, one_s = self._clock(), due[0][1]
            left_s = max(self._left_s(), one_s)
            if self._wait_until_quiet(condition, len(due), min(left_s, _WAIT_S)):
                left_s = max(left_s - (self._clock() - start), one_s)
                self._time(self._affordable(due, left_s), condition)
            self._spent_s += self._clock() - start
        self._warn_of_contended()

    def _wait_until_quiet(self, condition: Condition, count: int, at_most_s: float) -> bool:
        until, is_reported = self._clock() + at_most_s, False
        while (contention := self._read_contention(condition)) is not None:
            if self._clock() >= until:
                return False
            if not is_reported:
                timings = "1 timing was" if count == 1 else f"{count} timings were"
                text = (
                    f"{timings} contended at {condition.label()}, to be repeated when the machine is quieter; waiting "
                    f"up to {at_most_s:.0f} s: {contention.text}"
                )
                self._emit(Notice(text=text))
                is_reported = True
            self._sleep(_PAUSE_S)
        return True

    def _read_contention(self, condition: Condition) -> Contention | None:
        """Returns the contention that a timing would have now: other processes use cores that it needs.

        Returns None without contention.
        """
        task = Inspect(target=self._resources.target_of(condition), watch=condition)
        return run_task(self._evaluator, task, self._emit).contention

    def _due(self, records: Sequence[TrialRecord]) -> list[_Due]:
        """Returns the contended timings that may improve, by condition, members of the front first."""
        front = {record.number for record in Front.from_records(records).members}
        ordered = sorted(records, key=lambda record: (record.number not in front, record.number))
        found: list[_Due] = []
        for condition in self._manifest.conditions:
            timed = [(record, record.measurements_by_condition().get(condition.label())) for record in ordered]
            due = [
                (record, own.seconds)
                for record, own in timed
                if own is not None and not own.is_preliminary and own.contention is not None and own.contention.can_pass
            ]
            if due:
                found.append((condition, due))
        return found

    def _affordable(self, due: Sequence[tuple[TrialRecord, float]], left_s: float) -> list[TrialRecord]:
        chosen = []
        for record, seconds in due:
            left_s -= seconds
            if left_s < 0:
                break
            chosen.append(record)
        return chosen

    def _left_s(self) -> float:
        return _SHARE * (self._clock() - self._began) - self._spent_s

    def _time(self, records: Sequence[TrialRecord], condition: Condition) -> bool:
        """Times networks in shared rounds; returns False on failure, because the earlier timings remain valid."""
        self._emit(Notice(text=f"the machine is quieter: repeating the contended timing of {_trials(records)}"))
        try:
            time_again(self._study, self._manifest, records, condition, self._evaluator, self._resources, self._emit)
        except HiloNasError as error:
            self._emit(Notice(level="warning", text=f"contended timings could not be repeated: {error}"))
            return False
        return True

    def _warn_of_contended(self) -> None:
        """Emits a warning that names the trials whose timing is still contended."""
        records = self._study.records
        labels = [condition.label() for condition in self._manifest.conditions]
        timed = [(record, record.measurements_by_condition()) for record in records if not record.is_timed_briefly]
        found = [
            (record, contention)
            for record, by_label in timed
            for label in labels
            if (own := by_label.get(label)) is not None and (contention := own.contention) is not None
        ]
        if not found:
            return
        worst = max((contention for _, contention in found), key=lambda contention: contention.relative_error)
        contended = list({record.number: record for record, _ in found}.values())
        text = (
            f"the timing of {_trials(contended)} stays contended, with a wider interval: {worst.text}. {worst.way_out}"
        )
        if worst.can_pass:
            text += f" Use: {command('remeasure', self._study.address, '--all')}"
        self._emit(Notice(level="warning", text=text))


def _trials(records: Sequence[TrialRecord]) -> str:
    numbers = [str(record.number) for record in records]
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
