"""Search for networks that are fast and accurate, with an in-memory Optuna study of two objectives.

Each result is written to its trial record before the sampler receives it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.lazy import lazy_names

if TYPE_CHECKING:
    from hilo_nas.searching.configuration.search_config import SAMPLERS, SearchConfig
    from hilo_nas.searching.finalists.remeasure import RemeasureRequest, run_remeasure
    from hilo_nas.searching.forecast.dry_run import Cost, estimate_cost
    from hilo_nas.searching.forecast.search_plan import SearchPlan, fit_search, plan_search
    from hilo_nas.searching.session import run_search

__all__ = [
    "SAMPLERS",
    "Cost",
    "RemeasureRequest",
    "SearchConfig",
    "SearchPlan",
    "estimate_cost",
    "fit_search",
    "plan_search",
    "run_remeasure",
    "run_search",
]

_HOMES = {
    "SAMPLERS": "configuration.search_config",
    "Cost": "forecast.dry_run",
    "RemeasureRequest": "finalists.remeasure",
    "SearchConfig": "configuration.search_config",
    "SearchPlan": "forecast.search_plan",
    "estimate_cost": "forecast.dry_run",
    "fit_search": "forecast.search_plan",
    "plan_search": "forecast.search_plan",
    "run_remeasure": "finalists.remeasure",
    "run_search": "session",
}
"""Module that defines each public name. It is imported on first use, so reading a configuration imports neither torch
nor optuna."""

__getattr__ = lazy_names(__name__, _HOMES)
