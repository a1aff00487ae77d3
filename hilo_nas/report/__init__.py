"""Reading a study: tables and fronts from its records. Nothing here times or trains, or imports torch."""

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
from hilo_nas.report.pictures import Cloud, TauBar, can_draw, render_agreement
from hilo_nas.report.standings import Standing, compare_references
from hilo_nas.report.tables import build_front_frame, build_trials_frame, write_speed_table, write_tables

__all__ = [
    "BenchReport",
    "BenchTable",
    "Cloud",
    "Standing",
    "TauBar",
    "build_cohort_frame",
    "build_front_frame",
    "build_trials_frame",
    "can_draw",
    "check_folder",
    "compare_references",
    "render_agreement",
    "render_csv",
    "render_json",
    "render_markdown",
    "write_report",
    "write_speed_table",
    "write_tables",
]
