"""The search: one Optuna study with two objectives, driven by ask and tell; records are written first."""

from hilo_nas.search.dry_run import Cost, estimate_cost
from hilo_nas.search.remeasure import RemeasureRequest, run_remeasure
from hilo_nas.search.request import SAMPLERS, SearchRequest
from hilo_nas.search.session import run_search

__all__ = [
    "SAMPLERS",
    "Cost",
    "RemeasureRequest",
    "SearchRequest",
    "estimate_cost",
    "run_remeasure",
    "run_search",
]
