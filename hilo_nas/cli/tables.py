"""The front as a table on the screen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from hilo_nas.cli.text import figure, score_label, with_spread
from hilo_nas.measurement import METRICS, Measurement
from hilo_nas.records import TrialRecord

__all__ = ["print_front_table"]

_WIDE = 130
"""Columns from which a table has room for architectures; below, they follow it line by line."""


def print_front_table(
    front: Sequence[TrialRecord],
    anchors: Collection[str],
    console: Console,
    *,
    ties: Mapping[int, Sequence[int]] | None = None,
    errors: Mapping[int, float],
    probabilities: Mapping[int, float],
) -> None:
    """Prints a row per trial of a front and around it: anchors are marked with a star, peers with a plus, ties with ~.

    Args:
        front: The trials, in the order of the rows.
        anchors: Keys of the anchors.
        console: Where to print.
        ties: By number, the members of the front that a trial is tied with.
        errors: By number, the standard error of its top-1.
        probabilities: By number, how probable it is that the trial belongs on the front.
    """
    ties = ties or {}
    from hilo_nas.report import describe_arch  # pandas takes its time

    def describe(record: TrialRecord) -> str:
        return record.key if record.subject.arch is None else describe_arch(record.subject.arch)

    wide = console.width >= _WIDE
    table = Table(box=box.SIMPLE, pad_edge=False)
    metric = next((record.score.metric for record in front if record.score), "top1")
    is_share = metric in METRICS
    score_name = f"{METRICS[metric]} %" if is_share else score_label(metric)
    for name in ("trial", "images/s", score_name, "n", "P(front)", "p50 ms", "MiB", "params M", "GMACs"):
        table.add_column(name, justify="right", no_wrap=True)
    further = list(dict.fromkeys(label for record in front for label in list(record.measurements_by_condition())[1:]))
    for label in further:
        table.add_column(f"images/s, p95 ms\n{label}", justify="right")
    if wide:
        table.add_column("architecture")
    for record in front:
        measurement, score = record.measurement, record.score
        if measurement is None or score is None:
            continue
        mark = "+" if record.is_peer else "*" if record.key in anchors else ""
        rivals = ties.get(record.number)
        tie = f"~{','.join(map(str, rivals))} " if rivals else ""
        table.add_row(
            f"{tie}{record.number}{mark}",
            with_spread(measurement.images_per_s, measurement.half_width),
            with_spread(
                score.proxy_top1,
                errors[record.number],
                scale=100 if is_share else 1,
                decimals=1 if is_share else 0,
            ),
            str(score.seeds),
            f"{probabilities[record.number]:.0%}" if record.number in probabilities else "",
            figure(measurement.latency_ms_p50, 3),
            figure(measurement.memory_mib, 3),
            figure((record.parameters or 0) / 1e6, 3),
            figure((record.macs or 0) / 1e9, 3),
            *(_further(record.measurements_by_condition().get(label)) for label in further),
            *([describe(record)] if wide else []),
        )
    console.print(table)
    for record in () if wide else front:
        console.print(f"{record.number:>5}  {describe(record)}", soft_wrap=True)


def _further(measurement: Measurement | None) -> str:
    """What a network does under a condition beside the objective."""
    if measurement is None:
        return "-"
    return f"{figure(measurement.images_per_s)}, {figure(measurement.latency_ms_p95, 3)}"
