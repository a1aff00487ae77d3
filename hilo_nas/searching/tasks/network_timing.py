"""Full timings of single networks in a search, under all conditions of its study."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from hilo_nas.evaluation import Steps
from hilo_nas.events import Emit, Notice
from hilo_nas.searching.tasks.study_tasks import StudyTasks
from hilo_nas.space import KEPT_HARDLY, broken_limits, limit_text, measured_chances, measured_violations
from hilo_nas.study.calibration import comparable_timings, read_timings, timings_under
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.figures import probability_text

__all__ = ["NetworkTiming"]


class NetworkTiming:
    """Times networks of one study, one at a time.

    Args:
        study: The study. Members of its front are timed with a network.
        manifest: Manifest of the study.
        tasks: Tasks of the study.
        emit: Receives a notice before a network is timed again.
    """

    def __init__(self, study: StoredStudy, manifest: Manifest, tasks: StudyTasks, emit: Emit) -> None:
        self._study, self._manifest, self._tasks, self._emit = study, manifest, tasks, emit
        self._limits = manifest.limits_in_force

    def is_timed(self, record: TrialRecord) -> bool:
        """Returns True if a record has a comparable timing under each condition."""
        return all(timings_under(record, condition, self._manifest) for condition in self._manifest.conditions)

    def time(self, record: TrialRecord, keep: Callable[[TrialRecord], None]) -> Steps[TrialRecord]:
        """Returns the record with comparable timings under each condition, the objective first.

        A resumed trial times only what is missing. A network that may meet a limit is timed twice.

        Args:
            record: Record of the network.
            keep: Called with the record after each timing, to write it.
        """
        if not self.is_timed(record):
            record = dataclasses.replace(record, measurements=comparable_timings(record, self._manifest))
            record = yield from self._time(record, 1, keep)
        if uncertain := self._uncertain_limits(record):
            self._emit(Notice(text=f"trial {record.number} is timed again, because it may meet {uncertain}"))
            record = yield from self._time(record, 2, keep)
        return record

    def _time(self, record: TrialRecord, count: int, keep: Callable[[TrialRecord], None]) -> Steps[TrialRecord]:
        """Returns the record with at least `count` timings under each condition. `read_timings` orders them.

        Under the objective, the network is timed together with members of the front.
        """
        for condition in self._manifest.conditions:
            if timings_under(record, condition, self._manifest) >= count:
                continue
            rivals = self._study.front().members if condition == self._manifest.objective else ()
            timing = yield self._tasks.time([record.subject], condition, rivals=rivals)
            timings = (timing.measurements[record.key], *record.measurements)
            (record,) = read_timings([dataclasses.replace(record, measurements=timings)], self._manifest)
            keep(record)
        return record

    def _uncertain_limits(self, record: TrialRecord) -> str:
        """Returns the broken limits if the network meets them with a probability of at least 5 %, otherwise "".

        There are none if the network was timed twice.
        """
        if all(timings_under(record, condition, self._manifest) > 1 for condition in self._manifest.conditions):
            return ""
        limits = {} if record.is_baseline else self._limits
        chances = measured_chances(limits, record.measurements)
        over = broken_limits(measured_violations(limits, record.measurements))
        if not over or min(chances[name] for name in over) < KEPT_HARDLY:
            return ""
        return " and ".join(f"{limit_text(name, limits[name])} with {probability_text(chances[name])}" for name in over)
