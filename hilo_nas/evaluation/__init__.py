"""Evaluators, which do the work of searches and benchmarks: tasks, the protocol, and the evaluator of this machine."""

from hilo_nas.evaluation.cluster_options import ClusterOptions
from hilo_nas.evaluation.drive import Steps, drive, run_steps, run_task
from hilo_nas.evaluation.local_evaluator import BenchWorker, LocalEvaluator, evaluator_or_local, use_evaluator
from hilo_nas.evaluation.named import NamedTimings, measure_named
from hilo_nas.evaluation.protocol import (
    Blame,
    Evaluator,
    Failed,
    Finished,
    Message,
    Progress,
    blame_of,
)
from hilo_nas.evaluation.runtime_choice import CHOICE_SECONDS, Runtimes, choose_fastest, find_runtimes
from hilo_nas.evaluation.tasks import (
    Count,
    DeviceReport,
    Inspect,
    Preparation,
    Prepare,
    Score,
    Scoring,
    Task,
    Time,
    Timing,
    task_from_dict,
)

__all__ = [
    "CHOICE_SECONDS",
    "BenchWorker",
    "Blame",
    "ClusterOptions",
    "Count",
    "DeviceReport",
    "Evaluator",
    "Failed",
    "Finished",
    "Inspect",
    "LocalEvaluator",
    "Message",
    "NamedTimings",
    "Preparation",
    "Prepare",
    "Progress",
    "Runtimes",
    "Score",
    "Scoring",
    "Steps",
    "Task",
    "Time",
    "Timing",
    "blame_of",
    "choose_fastest",
    "drive",
    "evaluator_or_local",
    "find_runtimes",
    "measure_named",
    "run_steps",
    "run_task",
    "task_from_dict",
    "use_evaluator",
]
