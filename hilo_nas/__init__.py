"""hilo-nas: architecture search for LITv2 vision backbones, driven by measured throughput.

    study = hilo_nas.search("litv2_digits", study="first", trials=12)
    study.front()

Importing the package does not import torch, timm, optuna or pandas. Each name is imported at its first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilo_nas.lazy import lazy_names

if TYPE_CHECKING:
    from hilo_nas.api import (
        Exported,
        Measured,
        Repaired,
        Study,
        estimate_cost,
        export_files,
        list_studies,
        load_study,
        measure,
        plan_search,
        remeasure,
        repair_study,
        search,
        write_report,
    )
    from hilo_nas.arch.config import ArchConfig
    from hilo_nas.cli.display import show_progress
    from hilo_nas.evaluation import Evaluator
    from hilo_nas.export import Exporter
    from hilo_nas.models import create_model, load_model, prepare_for_inference
    from hilo_nas.proxy.kinds import Proxy
    from hilo_nas.searching import SearchConfig
    from hilo_nas.searching.sampling.hilo_sampler import HiloSampler
    from hilo_nas.space import SearchSpace, load_space
    from hilo_nas.study.front import Front
    from hilo_nas.study.records import TrialRecord

__version__ = "0.1.0"

__all__ = [
    "ArchConfig",
    "Evaluator",
    "Exported",
    "Exporter",
    "Front",
    "HiloSampler",
    "Measured",
    "Proxy",
    "Repaired",
    "SearchConfig",
    "SearchSpace",
    "Study",
    "TrialRecord",
    "create_model",
    "estimate_cost",
    "export_files",
    "list_studies",
    "load_model",
    "load_space",
    "load_study",
    "measure",
    "plan_search",
    "prepare_for_inference",
    "remeasure",
    "repair_study",
    "search",
    "show_progress",
    "write_report",
]

_HOMES = {
    **dict.fromkeys(("Exported", "Measured", "Repaired", "Study", "list_studies", "load_study"), "api"),
    **dict.fromkeys(
        (
            *("estimate_cost", "export_files", "measure", "plan_search", "remeasure", "repair_study"),
            *("search", "write_report"),
        ),
        "api",
    ),
    "ArchConfig": "arch.config",
    "Evaluator": "evaluation",
    "Exporter": "export",
    "Front": "study.front",
    "HiloSampler": "searching.sampling.hilo_sampler",
    "Proxy": "proxy.kinds",
    "SearchConfig": "searching",
    **dict.fromkeys(("SearchSpace", "load_space"), "space"),
    "TrialRecord": "study.records",
    **dict.fromkeys(("create_model", "load_model", "prepare_for_inference"), "models"),
    "show_progress": "cli.display",
}
"""Modules that define the public names, relative to this package."""


__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
