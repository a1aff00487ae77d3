"""Evaluator for the nodes of a Ray cluster. Importing this package does not import ray.

The driver (`RayEvaluator`) decides which place runs a task. A place (`Place`) is a Ray actor on a node. It has one
device of the node and runs tasks with a `LocalEvaluator`, so timings and trainings have the same worker processes and
device locks as on a single machine. Driver and places exchange JSON and bytes.
"""

from hilo_nas.evaluation.ray.ray_evaluator import RayEvaluator
from hilo_nas.evaluation.ray.start import start_ray_evaluator

__all__ = ["RayEvaluator", "start_ray_evaluator"]
