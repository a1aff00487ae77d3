"""`python -m benchmarks.searches`: real searches of one space compared at equal time."""

from __future__ import annotations

import dataclasses
import datetime
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from benchmarks.command import run_benchmark
from hilo_nas.cli.console import build_console
from hilo_nas.cli.tables import Column, print_columns
from hilo_nas.errors import UsageError
from hilo_nas.study.front import speed_hypervolume
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.pareto import is_non_dominated
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy, open_study

__all__ = ["SearchResult", "compare_searches", "main"]

HELP = """Compare real searches of one space at equal time.

A share is the hypervolume of the networks that a search has trained so far, relative to that of the networks of all
searches. Speeds are ratios to the reference network of the same rounds. The reference point is the slowest trained
network, and the score of guessing, or else the lowest score. Baselines and copied results do not count. Times count
from the creation of a study. Use only searches that were not interrupted.

With --judge, the fronts of the searches are compared once more, with the speeds of that study, in which all their
networks were timed, and with the scores of other training seeds (proxy.confirm). Networks that lack one are counted."""
EXAMPLES = "Example:\npython -m benchmarks.searches gp-1 hilo-1 --minutes 5 --minutes 10"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
    """A network that a search trained in full."""

    record: TrialRecord
    minutes: float
    """Minutes from the creation of the study to the end of the trial."""
    ratio: float
    """Images/s relative to the reference network."""
    value: float

    @property
    def point(self) -> tuple[float, float]:
        """Relative speed and value."""
        return self.ratio, self.value


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What one search found."""

    name: str
    sampler: str
    shares: tuple[float, ...]
    """Share of the hypervolume after each of the given times, and at the end."""
    trained: int
    stopped: int
    median_ratio: float
    """Median relative speed of the trained networks."""
    timing_minutes: float
    training_minutes: float
    expected_gain: float | None
    """Gain of 40 more networks that the study predicted at its end; None if it has no posteriors."""
    judged: float | None = None
    """Share of the hypervolume of all judged fronts; None without a judge."""
    front: int = 0
    """Number of networks on the front by the search's own speeds and scores."""
    unjudged: int = 0
    """Number of them without a speed of the judge or without a score of another seed."""


def compare_searches(
    studies: Sequence[StoredStudy], minutes: Sequence[float], judge: StoredStudy | None = None
) -> list[SearchResult]:
    """Returns the results of searches, in their order.

    Args:
        studies: Studies with the same objective condition, proxy and data.
        minutes: Times at which shares are given, besides the end.
        judge: Study with timings of all networks of the fronts.

    Raises:
        UsageError: The studies cannot be compared, or one has no trained network.
    """
    first = studies[0].manifest
    for study in studies:
        own, wanted = _shared(study.manifest), _shared(first)
        for what in own:
            if own[what] != wanted[what]:
                raise UsageError(
                    f"searches must have the same {what}, but {study.name} and {first.name} differ. Compare others."
                )
    if judge is not None and judge.manifest.objective != first.objective:
        raise UsageError(f"the judge must have the condition of the searches, but {judge.name} has another one")
    found = [_list_trained(study) for study in studies]
    for study, trained in zip(studies, found, strict=True):
        if not trained:
            raise UsageError(f"a search must have a fully trained network, but {study.name} has none")
    everything = [own.point for trained in found for own in trained]
    guessing = first.guessing_score
    ref_point = min(ratio for ratio, _ in everything), min(v for _, v in everything) if guessing is None else guessing
    whole = speed_hypervolume(everything, ref_point)
    if not whole > 0:
        raise UsageError("the networks of the searches must differ in speed and be above guessing. Give more searches.")
    fronts = [_front_of(trained) for trained in found]
    judged = [_judge(front, study, judge) for front, study in zip(fronts, studies, strict=True)]
    judged_whole = speed_hypervolume([point for points in judged for point in points], ref_point)
    return [
        SearchResult(
            name=study.name,
            sampler=study.manifest.sampler,
            shares=tuple(
                speed_hypervolume([own.point for own in trained if own.minutes <= until], ref_point) / whole
                for until in (*minutes, math.inf)
            ),
            trained=len(trained),
            stopped=sum(record.state == TrialState.STOPPED for record in _own_records(study)),
            median_ratio=statistics.median(own.ratio for own in trained),
            timing_minutes=_minutes(own.seconds for record in _own_records(study) for own in record.measurements),
            training_minutes=_minutes(
                own.seconds
                for record in _own_records(study)
                for own in record.scores
                if own.seed == study.manifest.seed
            ),
            expected_gain=_expected_gain(study),
            judged=speed_hypervolume(points, ref_point) / judged_whole if judge is not None and judged_whole else None,
            front=len(front),
            unjudged=len(front) - len(points) if judge is not None else 0,
        )
        for study, trained, front, points in zip(studies, found, fronts, judged, strict=True)
    ]


def _shared(manifest: Manifest) -> dict[str, Any]:
    """Returns what comparable searches have in common."""
    return {
        "space": manifest.space.hash(),
        "device": manifest.device.model,
        "condition": manifest.objective,
        "proxy": manifest.plan,
        "data": manifest.data.hash,
    }


def _own_records(study: StoredStudy) -> list[TrialRecord]:
    """Returns the records of networks of the space that the search itself timed."""
    start = study.manifest.created_at
    return [
        record
        for record in study.records
        if not record.is_baseline and all(own.measured_at >= start for own in record.measurements)
    ]


def _list_trained(study: StoredStudy) -> list[Trained]:
    manifest = study.manifest
    start = datetime.datetime.fromisoformat(manifest.created_at)
    found = []
    for record in _own_records(study):
        own = [score for score in record.scores if score.seed == manifest.seed]
        full = [score for score in own if score.images_seen == manifest.plan.budgets[-1]]
        if record.state != TrialState.COMPLETE or record.measurement is None or not full or record.finished_at is None:
            continue
        ended = datetime.datetime.fromisoformat(record.finished_at)
        minutes = (ended - start).total_seconds() / 60
        found.append(Trained(record=record, minutes=minutes, ratio=record.measurement.ratio, value=full[0].value))
    return found


def _front_of(trained: Sequence[Trained]) -> list[Trained]:
    keep = is_non_dominated([own.point for own in trained])
    return [own for own, is_kept in zip(trained, keep, strict=True) if is_kept]


def _judge(front: Sequence[Trained], study: StoredStudy, judge: StoredStudy | None) -> list[tuple[float, float]]:
    """Returns the judge's speeds and the mean scores of other seeds, of the networks that have both."""
    if judge is None:
        return []
    ratios = {own.key: own.measurement.ratio for own in judge.records if own.full_measurements and own.measurement}
    seed, images = study.manifest.seed, study.manifest.plan.budgets[-1]
    points = []
    for own in front:
        others = [x.value for x in own.record.scores if x.seed != seed and x.images_seen == images]
        if others and own.record.key in ratios:
            points.append((ratios[own.record.key], statistics.fmean(others)))
    return points


def _minutes(seconds: Iterable[float]) -> float:
    return math.fsum(seconds) / 60


def _expected_gain(study: StoredStudy) -> float | None:
    outlook = study.posteriors.outlook if study.posteriors is not None else ()
    return outlook[-1].hypervolume_gain if outlook else None


def _columns(results: Sequence[SearchResult], minutes: Sequence[float]) -> list[Column]:
    columns = [
        Column("search", [own.name for own in results], justify="left"),
        Column("sampler", [own.sampler for own in results], justify="left"),
    ]
    for i, name in enumerate([*(f"{until:g} min" for until in minutes), "end"]):
        columns.append(Column(name, [f"{own.shares[i]:.3f}" for own in results]))
    columns += [
        Column("trained", [str(own.trained) for own in results]),
        Column("stopped", [str(own.stopped) for own in results]),
        Column("median ratio", [f"{own.median_ratio:.2f}" for own in results]),
        Column("timing min", [f"{own.timing_minutes:.1f}" for own in results]),
        Column("training min", [f"{own.training_minutes:.1f}" for own in results]),
        Column("gain of 40 more", [_percent(own.expected_gain) for own in results]),
    ]
    if any(own.judged is not None for own in results):
        columns.append(Column("judged", ["-" if own.judged is None else f"{own.judged:.3f}" for own in results]))
        columns.append(Column("not judged", [f"{own.unjudged} of {own.front}" for own in results]))
    return columns


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def run(
    studies: Annotated[list[str], typer.Argument(metavar="STUDY...", help="Studies of searches in one space.")],
    minutes: Annotated[
        list[float] | None, typer.Option(help="Time of a share. Repeatable. Default: 5, 10, 20.")
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Study with timings of the networks of all fronts.")
    ] = None,
) -> None:
    """Prints a row per search."""
    times = sorted(minutes or [5.0, 10.0, 20.0])
    found = compare_searches(
        [open_study(name) for name in studies], times, None if judge is None else open_study(judge)
    )
    print_columns(_columns(found, times), build_console())


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return run_benchmark("searches", run, HELP, EXAMPLES, arguments)


if __name__ == "__main__":
    sys.exit(main())
