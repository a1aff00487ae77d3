"""Choosing a trial of a study: by number, by the speed it must reach, or by the front's knee."""

from __future__ import annotations

from hilo_nas.commands import command
from hilo_nas.errors import NotFoundError, TrialStateError, UsageError
from hilo_nas.front import front_of
from hilo_nas.pareto import knee
from hilo_nas.records import TrialRecord
from hilo_nas.study import StudyFolder

__all__ = ["choose_trial"]


def choose_trial(
    folder: StudyFolder, *, number: int | None = None, min_images_per_s: float | None = None, at_knee: bool = False
) -> TrialRecord:
    """Returns the trial of a number, the most accurate of at least a speed, or the one at the front's knee.

    Raises:
        UsageError: Not exactly one way of choosing is given.
        NotFoundError: There is no such trial.
        TrialStateError: The trial of that number failed, is infeasible or is still running, or is of a peer.
    """
    if [number is not None, min_images_per_s is not None, at_knee].count(True) != 1:
        raise UsageError("give exactly one of --trial N, --min-images-per-s X and --knee")
    if number is not None:
        record = folder.load_record(number)
        if record.is_peer:
            name = record.subject.timm
            raise TrialStateError(
                f"a trial must be of a network of the search, but trial {number} of study {folder.name} is of the peer "
                f"{record.key}. Train that by its name: timm's train.py --model {name}."
            )
        return record
    front = front_of(folder.load_records())
    if not front:
        raise NotFoundError(f"study {folder.name} has no complete trial yet: see `{command('status', folder.address)}`")
    points = [(_speed(record), _top1(record)) for record in front]
    if at_knee:
        return front[knee(points)]
    assert min_images_per_s is not None
    fast_enough = [record for record in front if _speed(record) >= min_images_per_s]
    if not fast_enough:
        fastest = front[0]
        raise NotFoundError(
            f"no trial of study {folder.name} reaches {min_images_per_s:g} images/s; the fastest, trial "
            f"{fastest.number}, has {_speed(fastest):.4g}. Ask for less, or search on with --trials."
        )
    return max(fast_enough, key=_top1)


def _speed(record: TrialRecord) -> float:
    assert record.measurement is not None
    return record.measurement.images_per_s


def _top1(record: TrialRecord) -> float:
    assert record.score is not None
    return record.score.proxy_top1
