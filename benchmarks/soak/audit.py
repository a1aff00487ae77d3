"""Audit of a search: each decision must follow from the records that were known when it was made.

Records and event log are read again and again while the search runs, each time from where the last reading ended.
Damage to a file therefore does not affect decisions that were made before it.

* **Proposals.** The sampler is rebuilt from the records with smaller numbers, and must propose the same network. This
  holds for samplers that use nothing but finished trials, with one trial at a time, as `random`.
* **Rungs.** `RungReached` lists the decisions in their order. Each is computed again from the scores of the networks
  that had reached the rung before, and its number of compared networks must be theirs.
* **Order.** Trials that a search left open run before new ones.
* **Trainings.** `TrainingStarted` has the images that a checkpoint has seen. A training must not start below the last
  stored score of its network. It must not start again without a cause, and must not lead to a stored score once more.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks.soak.facts import FINISHED
from hilo_nas.events import (
    Event,
    RungReached,
    SearchStarted,
    TrainingStarted,
    TrialFinished,
    TrialStarted,
    event_from_dict,
    ignore_event,
)
from hilo_nas.searching.halving.rung_training import RungTraining
from hilo_nas.searching.sampling.candidates import measure_excess
from hilo_nas.searching.sampling.optuna_study import OptunaStudy
from hilo_nas.searching.sampling.samplers import FeasibleSampler, build_sampler
from hilo_nas.searching.tasks.study_tasks import Resources
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import SAMPLED, Subject, TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["Audit", "replay_proposal"]

_FINISHED = frozenset(str(state) for state in FINISHED)


@dataclasses.dataclass
class _Training:
    """Course of the training of one network."""

    images_seen: int = 0
    """Training images at the last known score."""
    leg: tuple[int, int] | None = None
    """Images at the start and the end of the part that has no score yet."""
    run: int = 0
    """Number of the search that trained it last."""
    hits: int = 0
    """Number of hits on workers that are known to precede its last start."""


class Audit:
    """Audit of one study. `faults` lists the decisions that the records do not explain.

    `counts` has the number of checked decisions, of trainings and of their images.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self._read_bytes, self._run = 0, 0
        self._explained: set[int] = set()
        """Numbers of the trials whose proposal was replayed."""
        self._keys: dict[int, str] = {}
        self._at_rung: dict[int, set[int]] = collections.defaultdict(set)
        """Numbers of the trials with a score, by images of the rung."""
        self._decided: dict[tuple[int, int], bool] = {}
        """Latest decision by number of the trial and images of the rung: True if the training continued."""
        self._trainings: dict[str, _Training] = collections.defaultdict(_Training)
        self._due: set[int] = set()
        """Numbers of the trials that the next search must run first."""
        self._finished: set[str] = set()
        self._excused: set[str] = set()
        """Keys of networks that lost results or checkpoints to damage, and have not been trained since."""
        self._hits = self._hits_before = 0
        """Number of hits on workers, now and at the end of the last reading."""

    def read(self, study: StoredStudy, *, is_stopped: bool) -> None:
        """Checks everything that has happened since the last call.

        Args:
            study: The study, opened again from its files.
            is_stopped: True if no search is running in it.

        Raises:
            RecordError: A record cannot be read.
        """
        events = list(self._read_events(study.logs_path / "events.jsonl"))  # each follows the record that it reports
        records = {record.number: record for record in study.records}
        self._check_proposals(study.manifest, list(records.values()))
        rungs = RungTraining(study.manifest, Resources(), ignore_event)
        for event in events:
            match event:
                case SearchStarted():
                    self._run += 1
                case TrialStarted():
                    self._check_start(event)
                case TrialFinished():
                    self._check_end(event)
                case TrainingStarted():
                    self._check_training(event)
                case RungReached():
                    self._check_rung(event, records, rungs)
        if is_stopped:
            self._check_outcomes(list(records.values()), study.manifest)
            self._due = {n for n, record in records.items() if record.is_open or record.state == TrialState.RUNNING}
        self._hits_before = self._hits

    def excuse(self, keys: Sequence[str]) -> None:
        """Lets networks train again from the beginning once, because their checkpoint could not be written.

        Call it after a reading of the log: a network's next training or score ends its excuse.
        """
        self._excused |= set(keys)

    def hit(self) -> None:
        """Accepts that trainings start again once, because workers are disturbed now."""
        self._hits += 1

    def forget(self, study: StoredStudy, number: int) -> None:
        """Accepts that a repair kept only a part of a trial. Its lost scores may be computed again.

        Args:
            study: The repaired study.
            number: Number of the trial.
        """
        record = next((record for record in study.records if record.number == number), None)
        if record is None:
            self._fault(f"the record of trial {number} is gone after its repair")
            return
        self.excuse([record.key])
        if record.state not in FINISHED:
            self._finished.discard(record.key)
        for images, numbers in self._at_rung.items():
            if record.score_at(images) is None:
                numbers.discard(number)
                self._decided.pop((number, images), None)
        self._trainings[record.key] = _Training(max((score.images_seen for score in record.scores), default=0))

    def skip_log(self, log: Path) -> None:
        """Continues at the current end of the event log, after damage and a repair."""
        self._read_bytes = log.stat().st_size

    def _fault(self, text: str) -> None:
        self.faults.append(text)

    def _read_events(self, log: Path) -> Iterator[Event]:
        try:
            with open(log, "rb") as file:
                file.seek(self._read_bytes)
                lines = file.read().splitlines(keepends=True)
        except FileNotFoundError:
            return
        for line in lines:
            if not line.endswith(b"\n"):
                return  # it is being written, or a kill tore it; then the next search ends it
            self._read_bytes += len(line)
            try:
                fields = json.loads(line)
                del fields["at"]
                yield event_from_dict(fields)
            except (ValueError, TypeError, KeyError):
                self.counts["torn lines of the event log"] += 1

    def _check_proposals(self, manifest: Manifest, records: Sequence[TrialRecord]) -> None:
        for record in sorted(records, key=operator.attrgetter("number")):
            if record.number in self._explained or record.origin != SAMPLED:
                continue
            self._explained.add(record.number)
            self.counts["proposals replayed"] += 1
            expected = replay_proposal(manifest, [other for other in records if other.number < record.number])
            if expected != record.params:
                self._fault(
                    f"trial {record.number} has {record.params}, but its earlier records give the proposal {expected}"
                )

    def _check_start(self, event: TrialStarted) -> None:
        if event.number not in self._keys and self._due:
            self._fault(f"trial {event.number} began while trials {sorted(self._due)} were due")
        self._keys[event.number] = event.key
        self._due.discard(event.number)

    def _check_end(self, event: TrialFinished) -> None:
        if event.state not in _FINISHED:
            return
        if event.key in self._finished:
            self._fault(f"trial {event.number} finished twice ({event.key})")
        self._finished.add(event.key)

    def _check_training(self, event: TrainingStarted) -> None:
        key = Subject.from_dict(event.subject).key
        training = self._trainings[key]
        is_same_run = training.run == self._run
        is_interrupted = training.leg is not None or (training.run and not is_same_run)
        if training.leg is not None and is_same_run and training.hits == self._hits:
            self._fault(
                f"the training of {key} from {training.leg[0]} images started again although nothing disturbed it"
            )
        self._close_leg(training, is_scored=False)
        if key in self._excused:
            self._excused.remove(key)
            training.images_seen = min(training.images_seen, event.images_seen)
        elif event.images_seen < training.images_seen:
            self._fault(
                f"the training of {key} started at {event.images_seen} images, but its last score is after "
                f"{training.images_seen}: it did not find its checkpoint"
            )
        if event.images_total <= training.images_seen:
            self._fault(f"{key} was trained again to {event.images_total} images, whose score is stored")
        if is_interrupted:
            where = "from a checkpoint" if event.images_seen else "before their first score"
            self.counts[f"trainings resumed {where}"] += 1
        training.leg = event.images_seen, event.images_total
        training.run, training.hits = self._run, self._hits_before

    def _close_leg(self, training: _Training, *, is_scored: bool) -> None:
        if training.leg is None:
            return
        start, end = training.leg
        training.leg = None
        self.counts["images trained for scores" if is_scored else "images of interrupted trainings, at most"] += (
            end - start
        )
        self.counts["parts of trainings that ended with a score" if is_scored else "interrupted trainings"] += 1

    def _check_rung(self, event: RungReached, records: Mapping[int, TrialRecord], rungs: RungTraining) -> None:
        record, images = records.get(event.number), event.images_seen
        if record is None:
            self._fault(f"trial {event.number} reached {images} images, but has no record")
            return
        training = self._trainings[record.key]
        if training.leg is not None and training.leg[1] == images:  # a resumed search decides again at the last rung
            self._close_leg(training, is_scored=True)
        if images > training.images_seen:
            training.images_seen = images
            self._excused.discard(record.key)
        if images == event.images_total or record.is_baseline:
            return  # nothing is decided
        score = record.score_at(images)
        if score is None or score.value != event.value:
            self._fault(f"trial {event.number} was decided on with {event.value} after {images} images, not {score}")
            return
        numbers = self._at_rung[images]
        numbers.add(event.number)
        others = [records[number] for number in sorted(numbers) if number in records]
        self.counts["rung decisions replayed"] += 1
        if event.compared != len(others):
            self._fault(
                f"trial {event.number} was compared with {event.compared} networks after {images} images, but "
                f"{len(others)} were known"
            )
        elif rungs.is_promoted(record, images, others) != event.goes_on:
            self._fault(
                f"trial {event.number} {'continued' if event.goes_on else 'stopped'} after {images} images, which the "
                f"scores of trials {sorted(numbers)} do not explain"
            )
        self._decided[event.number, images] = event.goes_on

    def _check_outcomes(self, records: Sequence[TrialRecord], manifest: Manifest) -> None:
        """Checks that a logged decision explains each training that stopped or continued at a rung."""
        for record in records:
            if record.is_baseline or record.key in self._excused:
                continue
            reached = sorted({score.images_seen for score in record.scores})
            expected = dict.fromkeys(reached[:-1], True)
            if record.state == TrialState.STOPPED:
                expected[reached[-1]] = False
            for images, goes_on in expected.items():
                if self._decided.get((record.number, images)) is not goes_on:
                    self._fault(
                        f"trial {record.number} {'continued' if goes_on else 'stopped'} after {images} images, but "
                        "the event log has no such decision"
                    )

    def report(self) -> dict[str, int]:
        """Returns the counts, with those of trainings that have no score yet."""
        counts = collections.Counter(self.counts)
        for training in self._trainings.values():
            if training.leg is not None:
                counts["images of interrupted trainings, at most"] += training.leg[1] - training.leg[0]
                counts["interrupted trainings"] += 1
        return dict(sorted(counts.items()))


def replay_proposal(manifest: Manifest, earlier: Sequence[TrialRecord]) -> dict[str, int]:
    """Returns the parameters that the study's sampler proposes after some records.

    Args:
        manifest: Manifest of the study. Its sampler is one of Optuna's (`random`, `tpe`, `gp` or `nsga2`).
        earlier: Records with smaller numbers than the proposed trial, all of them finished.
    """
    space, known = manifest.space, {record.key for record in earlier}
    sampler = FeasibleSampler(
        functools.partial(build_sampler, manifest.sampler),
        space,
        excess=measure_excess(manifest),
        is_known=lambda params: space.decode(params).key() in known,
        seed=manifest.seed,
        count_proposals=lambda: len({record.key for record in earlier if record.is_proposal}),
    )
    return OptunaStudy(space, sampler, limits=manifest.limits_in_force).propose(earlier).params
