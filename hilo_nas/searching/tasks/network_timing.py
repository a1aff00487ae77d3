"""Full timings of single networks in a search, under all conditions of its study."""

from __future__ import annotations

import dataclasses

from hilo_nas.evaluation import Steps
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Measurement
from hilo_nas.searching.tasks.study_tasks import StudyTasks
from hilo_nas.space import KEPT_HARDLY, broken_limits, limit_text, measured_chances, measured_violations
from hilo_nas.study.calibration import read_timings
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
        timed = {
            m.condition.label() for m in record.measurements if self._manifest.is_comparable(m) and not m.is_preliminary
        }
        return timed >= {condition.label() for condition in self._manifest.conditions}

    def time(self, record: TrialRecord) -> Steps[TrialRecord]:
        """Returns the record with one measurement per condition. A network that may meet a limit is timed twice."""
        record = dataclasses.replace(record, measurements=(yield from self._time(record)))
        return (yield from self._retime_if_uncertain(record))

    def _time(self, record: TrialRecord) -> Steps[tuple[Measurement, ...]]:
        """Returns one measurement per condition of the study, the objective first.

        Under the objective, the network is timed together with members of the front.
        """
        found: list[Measurement] = []
        for condition in self._manifest.conditions:
            rivals = () if found else self._study.front().members
            timing = yield self._tasks.time([record.subject], condition, rivals=rivals)
            found.append(timing.measurements[record.key])
        return tuple(found)

    def _retime_if_uncertain(self, record: TrialRecord) -> Steps[TrialRecord]:
        """Times a network again if it violates a limit, but meets it with a probability of at least 5 %.

        `read_timings` decides which of the two timings is used.
        """
        limits = {} if record.is_baseline else self._limits
        chances = measured_chances(limits, record.measurements)
        over = broken_limits(measured_violations(limits, record.measurements))
        if not over or min(chances[name] for name in over) < KEPT_HARDLY:
            return record
        uncertain = " and ".join(
            f"{limit_text(name, limits[name])} with {probability_text(chances[name])}" for name in over
        )
        self._emit(Notice(text=f"trial {record.number} is timed again, because it may meet {uncertain}"))
        again = yield from self._time(record)
        joined = dataclasses.replace(record, measurements=(*again, *record.measurements))
        return read_timings([joined], self._manifest)[0]
