"""Results of searches and benchmarks as data frames, files and plots.

This package does not time, train or import torch.
"""

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
