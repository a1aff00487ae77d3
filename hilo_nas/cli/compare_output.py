"""Output of `hilo-nas compare`: differences between trials or conditions of a study, or between two studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from hilo_nas.cli.console import build_console
from hilo_nas.cli.differences import print_differences
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.errors import UsageError
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.study.stored_study import StoredStudy, open_view, study_under
from hilo_nas.study.trial_differences import compare_trials
from hilo_nas.text.figures import figure
from hilo_nas.text.trial_names import parse_trial

if TYPE_CHECKING:
    from hilo_nas.report.study_comparison import StudyComparison

__all__ = ["print_comparison"]

_MOST_CHANGES = 10


def print_comparison(names: Sequence[str], output: Format) -> None:
    """Prints the comparison of trials, of the conditions of a study, or of two studies, given by their names.

    Raises:
        UsageError: The names are neither trials of one study nor one or two studies, or a single study has only one
            condition.
    """
    trials = [parse_trial(name) for name in names]
    console = build_console()
    if all(trial is None for trial in trials):
        if len(names) > 2:
            raise UsageError(f"compare two studies, but got {len(names)}. For several, use: hilo-nas report STUDY...")
        opened = [open_view(name) for name in names]
        if len(opened) == 1:
            _compare_conditions(opened[0], output, console)
        else:
            _compare_studies(opened[0], opened[1], output, console)
        return
    studies = {trial[0] for trial in trials if trial is not None}
    if len(trials) < 2 or None in trials or len(studies) > 1:
        raise UsageError(
            f"compare trials of one study, or two studies, but got {' '.join(names)}. Speeds and scores of trials are "
            "only comparable within a study."
        )
    study = open_view(studies.pop())
    base, *others = [trial[1] for trial in trials if trial is not None]
    rows = compare_trials(study.front(), study.manifest.space, base, others)
    if output is Format.json:
        echo_content([dataclasses.asdict(row) for row in rows], output)
        return
    print_differences(rows, base, metric_named(study.manifest.plan.score_metric), console)


def _compare_conditions(study: StoredStudy, output: Format, console: Console) -> None:
    """Prints the comparison of the objective with each further condition, and of choices in both directions."""
    from hilo_nas.report.study_comparison import compare_studies  # imports scipy

    objective, *further = study.manifest.conditions
    if not further:
        raise UsageError(
            f"compare needs a second study, or one with several conditions, but {study.title} has only "
            f"{objective.label()}. Name a second study, or two trials such as {study.title}:4 {study.title}:7."
        )
    rows = []
    for i, condition in enumerate(further):
        other = study_under(study, condition)
        found, back = compare_studies(study, other), compare_studies(other, study)
        labels = objective.label(), condition.label()
        rows.append({"conditions": labels, "there": dataclasses.asdict(found), "back": dataclasses.asdict(back)})
        if output is Format.json:
            continue
        if i:
            console.print()
        for own, label in zip((study, other), labels, strict=True):
            console.print(f"{label} on {own.manifest.device.model}", highlight=False)
        low, high = found.speed_ratio
        lines = [
            f"{found.networks} networks of {study.name} are complete. Kendall's tau of their speeds: "
            f"{found.speed_tau:.2f}. {labels[1]} has {low:.3g} to {high:.3g} times the speed of {labels[0]}.",
            _describe_fronts(found, labels),
            _describe_choice(found, labels[0], labels[1], other),
            _describe_choice(back, labels[1], labels[0], study),
        ]
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        _print_changes(found, labels, console)
    if output is Format.json:
        echo_content(rows, output)


def _describe_fronts(found: StudyComparison, labels: tuple[str, str]) -> str:
    """Returns the fronts of two conditions, and the members of only one of them.

    Args:
        found: Comparison of the conditions.
        labels: Labels of the conditions.
    """
    fronts = dict(zip(labels, (found.chosen, found.front), strict=True))
    lines = [f"Front at {label}: trial{'s' * (len(own) > 1)} {_numbers(own)}." for label, own in fronts.items()]
    both = {*found.chosen} & {*found.front}
    only = {label: [number for number in own if number not in both] for label, own in fronts.items()}
    lines += [f"Only at {label}: {_numbers(own)}." for label, own in only.items() if own]
    return " ".join(lines if any(only.values()) else [*lines, "Both are the same."])


def _describe_choice(found: StudyComparison, chosen: str, used: str, study: StoredStudy) -> str:
    """Returns what a choice under one condition costs under another.

    Args:
        found: Comparison of the conditions.
        chosen: Label of the condition under which networks are chosen.
        used: Label of the condition under which they are used.
        study: The study under the second condition.
    """
    text = f"Chosen at {chosen} and used at {used}, a front keeps {100 * (1 - found.hypervolume_loss):.1f} % of the "
    loss = f" and loses up to {_value_loss(found, study)}" if found.value_loss > 0 else ""
    return " ".join([f"{text}hypervolume{loss}.", *_describe_speeds(found)])


def _describe_speeds(found: StudyComparison) -> list[str]:
    """Returns a sentence about the largest speed that is lost. Empty if the chosen networks reach that of the front."""
    fastest, reached = found.fastest
    if reached >= fastest:
        return []
    return [f"They reach {figure(reached, 3)} images/s there, and the front {figure(fastest, 3)}."]


def _numbers(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _value_loss(found: StudyComparison, study: StoredStudy) -> str:
    """Returns the largest loss of the best value and the speed at which it occurs."""
    metric = metric_named(study.manifest.plan.score_metric)
    points = f"{100 * found.value_loss:.1f} points" if metric.is_share else figure(found.value_loss, 3)
    return f"{points} of {metric.gain}, at {figure(found.images_per_s, 3)} images/s"


def _compare_studies(first: StoredStudy, second: StoredStudy, output: Format, console: Console) -> None:
    from hilo_nas.report.study_comparison import compare_studies  # imports scipy

    found = compare_studies(first, second)
    if output is Format.json:
        echo_content(dataclasses.asdict(found), output)
        return
    for study in (first, second):
        console.print(
            f"{study.title}: {study.manifest.objective.label()} on {study.manifest.device.model}", highlight=False
        )
    low, high = found.speed_ratio
    lines = [
        f"{found.networks} networks are complete in both. Kendall's tau of their speeds: {found.speed_tau:.2f}. "
        f"{second.title} has {low:.3g} to {high:.3g} times the speed of {first.title}.",
    ]
    if found.value_tau is not None:
        lines.append(f"Kendall's tau of their scores: {found.value_tau:.2f}.")
    chosen = f"Networks chosen by the speeds of {first.title} (trials {_numbers(found.chosen)} of {second.title})"
    if found.chosen == found.front:
        lines.append(f"{chosen} are also the front in {second.title}.")
    else:
        lines.append(
            f"{chosen} lose {100 * found.hypervolume_loss:.1f} % of the hypervolume in {second.title}, and up to "
            f"{_value_loss(found, second)}. The front in {second.title}: trials {_numbers(found.front)}."
        )
        lines += _describe_speeds(found)
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    _print_changes(found, (first.title, second.title), console)


def _print_changes(found: StudyComparison, names: tuple[str, str], console: Console) -> None:
    """Prints the networks with the largest changes of rank between two studies or conditions."""
    rows = [own for own in found.changes if own.ranks[0] != own.ranks[1]][:_MOST_CHANGES]
    if not rows:
        return
    is_same_study = all(own.numbers[0] == own.numbers[1] for own in rows)
    trials = [f"{own.numbers[0]}" if is_same_study else f"{own.numbers[0]}, {own.numbers[1]}" for own in rows]
    console.print("\nLargest changes of rank by speed (1 is the fastest):")
    columns = [
        Column("rank", [f"{own.ranks[0]} -> {own.ranks[1]}" for own in rows]),
        Column(f"images/s\n{names[0]}", [figure(own.images_per_s[0]) for own in rows]),
        Column(f"images/s\n{names[1]}", [figure(own.images_per_s[1]) for own in rows]),
        Column("trials", trials, rank=1),
        Column("architecture", [own.network for own in rows], rank=2, justify="left"),
    ]
    print_fitting(columns, console, other_format="json")
