"""Results of searches and benchmarks as data frames, files and plots.

This package does not time, train or import torch. It imports pandas and plotly only when they are needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.lazy import lazy_names

if TYPE_CHECKING:
    from hilo_nas.report.benches import (
        BenchReport,
        BenchTable,
        check_folder,
        render_csv,
        render_json,
        render_markdown,
        write_report,
    )
    from hilo_nas.report.cohorts import build_cohort_frame
    from hilo_nas.report.frames import build_front_frame, build_trials_frame
    from hilo_nas.report.pictures import Cloud, TauBar, can_draw, render_agreement

__all__ = [
    "BenchReport",
    "BenchTable",
    "Cloud",
    "TauBar",
    "build_cohort_frame",
    "build_front_frame",
    "build_trials_frame",
    "can_draw",
    "check_folder",
    "render_agreement",
    "render_csv",
    "render_json",
    "render_markdown",
    "write_report",
]

_HOMES = {
    **dict.fromkeys(("BenchReport", "BenchTable", "check_folder", "render_csv", "render_json"), "benches"),
    **dict.fromkeys(("render_markdown", "write_report"), "benches"),
    "build_cohort_frame": "cohorts",
    **dict.fromkeys(("build_front_frame", "build_trials_frame"), "frames"),
    **dict.fromkeys(("Cloud", "TauBar", "can_draw", "render_agreement"), "pictures"),
}

__getattr__ = lazy_names(__name__, _HOMES)
