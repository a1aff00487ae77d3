"""The search: one Optuna study with two objectives, driven by ask and tell; records are written first."""

from hilo_nas.search.dry_run import Cost, estimate_cost
from hilo_nas.search.request import SAMPLERS, SearchRequest
from hilo_nas.search.session import run_search

__all__ = ["SAMPLERS", "Cost", "SearchRequest", "estimate_cost", "run_search"]
