"""Timing again, in quieter moments of a search, the networks whose timings lacked the cores that they needed.

Between trials as soon as nobody else uses these cores, and once more before the front is reported: for at most a tenth
of the search's time in all. What stays contended keeps an interval that is as wide as it may be wrong.
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

__all__ = ["QuieterMoments"]

_SHARE = 0.1
"""Share of the search's time that looks, waits and repeated timings may take."""
_WAIT_S = 60.0
"""Longest wait for a quieter moment before the front is reported."""
_PAUSE_S = 1.0

_Due = tuple[Condition, list[tuple[TrialRecord, float]]]
"""A condition, and the networks to be timed again under it, each with the seconds that its timing took."""


class QuieterMoments:
    """Times contended networks again when the machine is quieter; the study's lock is held.

    Args:
        study: The study.
        manifest: Its manifest.
        evaluator: Who looks and times.
        resources: What the study's tasks refer to.
        emit: Told of both.
        began: When the search began, by the clock.
        clock: Returns seconds, monotonic.
        sleep: Waits.
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

    def use(self, records: Sequence[TrialRecord]) -> bool:
        """Times what can be afforded, if this moment is quiet; returns whether there are new samples on disk.

        Args:
            records: The study's, none of them running.
        """
        start = self._clock()
        for condition, due in self._due(records):
            chosen = self._affordable(due, self._left_s())
            if not chosen:
                continue
            is_quiet = self._look(condition) is None
            is_timed = is_quiet and self._time(chosen, condition)
            self._spent_s += self._clock() - start
            return is_timed
        return False

    def wait(self) -> None:
        """Waits for a quieter moment, if something is to be timed again, and uses it; at least one network is timed."""
        for condition, due in self._due(self._study.records):
            start, one_s = self._clock(), due[0][1]
            left_s = max(self._left_s(), one_s)
            if self._becomes_quiet(condition, len(due), min(left_s, _WAIT_S)):
                left_s = max(left_s - (self._clock() - start), one_s)
                self._time(self._affordable(due, left_s), condition)
            self._spent_s += self._clock() - start
        self._tell_what_stays()

    def _becomes_quiet(self, condition: Condition, count: int, at_most_s: float) -> bool:
        until, is_told = self._clock() + at_most_s, False
        while (contention := self._look(condition)) is not None:
            if self._clock() >= until:
                return False
            if not is_told:
                timings = "1 timing was" if count == 1 else f"{count} timings were"
                text = (
                    f"{timings} contended at {condition.label()}, to be repeated when the machine is quieter; waiting "
                    f"up to {at_most_s:.0f} s: {contention.text}"
                )
                self._emit(Notice(text=text))
                is_told = True
            self._sleep(_PAUSE_S)
        return True

    def _look(self, condition: Condition) -> Contention | None:
        """Returns what others would take now of the cores that a timing needs."""
        task = Inspect(target=self._resources.target, watch=condition)
        return run_task(self._evaluator, task, self._emit).contention

    def _due(self, records: Sequence[TrialRecord]) -> list[_Due]:
        """Contended timings that may come out better, by condition; members of the front first."""
        front = {record.number for record in Front.from_records(records).members}
        ordered = sorted(records, key=lambda record: (record.number not in front, record.number))
        found: list[_Due] = []
        for condition in self._manifest.conditions:
            timed = [(record, record.measurements_by_condition().get(condition.label())) for record in ordered]
            due = [
                (record, own.seconds)
                for record, own in timed
                if own is not None and own.contention is not None and own.contention.can_pass
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
        """Times networks side by side and returns whether that worked; a failure ends nothing: each has its timing."""
        self._emit(Notice(text=f"the machine is quieter: timing {_trials(records)} again, contended before"))
        try:
            time_again(self._study, self._manifest, records, condition, self._evaluator, self._resources, self._emit)
        except HiloNasError as error:
            self._emit(Notice(level="warning", text=f"contended timings could not be repeated: {error}"))
            return False
        return True

    def _tell_what_stays(self) -> None:
        """Names the trials whose timing is still contended under some condition of the study."""
        records = self._study.records
        labels = [condition.label() for condition in self._manifest.conditions]
        timed = [(record, record.measurements_by_condition()) for record in records]
        found = [
            (record, contention)
            for record, by_label in timed
            for label in labels
            if (own := by_label.get(label)) is not None and (contention := own.contention) is not None
        ]
        if not found:
            return
        worst = max((contention for _, contention in found), key=lambda contention: contention.relative_error)
        stays = list({record.number: record for record, _ in found}.values())
        text = f"the timing of {_trials(stays)} stays contended, with a wider interval: {worst.text}. {worst.way_out}"
        if worst.can_pass:
            text += f" Use: {command('remeasure', self._study.address, '--all')}"
        self._emit(Notice(level="warning", text=text))


def _trials(records: Sequence[TrialRecord]) -> str:
    numbers = [str(record.number) for record in records]
    return f"trial{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
