"""Output of `hilo-nas compare`: differences between trials of a study, or between two studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from rich.console import Console

from hilo_nas.cli.console import build_console
from hilo_nas.cli.differences import print_differences
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.errors import UsageError
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.study.trial_differences import compare_trials
from hilo_nas.text.figures import figure
from hilo_nas.text.trial_names import parse_trial

__all__ = ["print_comparison"]

_MOST_CHANGES = 10


def print_comparison(names: Sequence[str], output: Format) -> None:
    """Prints the comparison of trials or of two studies, given by their names.

    Raises:
        UsageError: The names are neither trials of one study nor two studies.
    """
    trials = [parse_trial(name) for name in names]
    console = build_console()
    if all(trial is None for trial in trials):
        if len(names) > 2:
            raise UsageError(f"compare two studies, but got {len(names)}. For several, use: hilo-nas report STUDY...")
        _compare_studies(open_study(names[0]), open_study(names[1]), output, console)
        return
    studies = {trial[0] for trial in trials if trial is not None}
    if None in trials or len(studies) > 1:
        raise UsageError(
            f"compare trials of one study, or two studies, but got {' '.join(names)}. Speeds and scores of trials are "
            "only comparable within a study."
        )
    study = open_study(studies.pop())
    base, *others = [trial[1] for trial in trials if trial is not None]
    rows = compare_trials(study.front(), study.manifest.space, base, others)
    if output is Format.json:
        echo_content([dataclasses.asdict(row) for row in rows], output)
        return
    print_differences(rows, base, metric_named(study.manifest.plan.score_metric), console)


def _compare_studies(first: StoredStudy, second: StoredStudy, output: Format, console: Console) -> None:
    from hilo_nas.report.study_comparison import compare_studies  # imports scipy

    found = compare_studies(first, second)
    if output is Format.json:
        echo_content(dataclasses.asdict(found), output)
        return
    metric = metric_named(second.manifest.plan.score_metric)
    for study in (first, second):
        console.print(
            f"{study.name}: {study.manifest.objective.label()} on {study.manifest.device.model}", highlight=False
        )
    low, high = found.speed_ratio
    lines = [
        f"{found.networks} networks are complete in both. Kendall's tau of their speeds: {found.speed_tau:.2f}. "
        f"{second.name} has {low:.3g} to {high:.3g} times the speed of {first.name}.",
    ]
    if found.value_tau is not None:
        lines.append(f"Kendall's tau of their scores: {found.value_tau:.2f}.")
    chosen = (
        f"Networks chosen by the speeds of {first.name} (trials {', '.join(map(str, found.chosen))} of {second.name})"
    )
    if found.chosen == found.front:
        lines.append(f"{chosen} are also the front in {second.name}.")
    else:
        points = f"{100 * found.value_loss:.1f} points" if metric.is_share else figure(found.value_loss, 3)
        lines.append(
            f"{chosen} lose {100 * found.hypervolume_loss:.1f} % of the hypervolume in {second.name}, and up to "
            f"{points} of {metric.gain}, at {figure(found.images_per_s, 3)} images/s. The front in {second.name}: "
            f"trials {', '.join(map(str, found.front))}."
        )
        fastest, reached = found.fastest
        if reached < fastest:
            lines.append(f"They reach {figure(reached, 3)} images/s there, and the front {figure(fastest, 3)}.")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    rows = [own for own in found.changes if own.ranks[0] != own.ranks[1]][:_MOST_CHANGES]
    if not rows:
        return
    console.print("\nLargest changes of rank by speed (1 is the fastest):")
    columns = [
        Column("rank", [f"{own.ranks[0]} -> {own.ranks[1]}" for own in rows]),
        Column(f"images/s\n{first.name}", [figure(own.images_per_s[0]) for own in rows]),
        Column(f"images/s\n{second.name}", [figure(own.images_per_s[1]) for own in rows]),
        Column("trials", [f"{own.numbers[0]}, {own.numbers[1]}" for own in rows], rank=1),
        Column("architecture", [own.network for own in rows], rank=2, justify="left"),
    ]
    print_fitting(columns, console, other_format="json")
