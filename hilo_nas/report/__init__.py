"""Reading a study: tables and fronts from its records. Nothing here times or trains, or imports torch."""

from hilo_nas.report.anchors import AnchorStanding, compare_anchors
from hilo_nas.report.tables import build_front_frame, build_trials_frame, describe_arch, write_tables

__all__ = [
    "AnchorStanding",
    "build_front_frame",
    "build_trials_frame",
    "compare_anchors",
    "describe_arch",
    "write_tables",
]
