"""The front as a table on the screen."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from hilo_nas.cli.text import figure, with_spread
from hilo_nas.records import TrialRecord
from hilo_nas.report import describe_arch

__all__ = ["front_table"]


def front_table(front: Sequence[TrialRecord], *, title: str | None = None) -> Table:
    """Returns a row per trial of a front, the fastest first; anchors are marked with a star."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, pad_edge=False)
    for name in ("trial", "images/s", "proxy top-1 %", "latency p50 ms", "memory MiB", "params M", "GMACs"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("architecture")
    for record in front:
        measurement, score = record.measurement, record.score
        if measurement is None or score is None or record.subject.arch is None:
            continue
        star = "*" if record.origin.startswith("anchor:") else ""
        table.add_row(
            f"{record.number}{star}",
            with_spread(measurement.images_per_s, measurement.images_per_s_spread),
            with_spread(score.proxy_top1, score.proxy_top1_se, scale=100, decimals=1),
            figure(measurement.latency_ms_p50, 3),
            figure(measurement.memory_mib, 3),
            figure((record.parameters or 0) / 1e6, 3),
            figure((record.macs or 0) / 1e9, 3),
            describe_arch(record.subject.arch),
        )
    return table
