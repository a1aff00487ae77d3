"""Start of the evaluator of a Ray cluster for one search."""

from __future__ import annotations

from pathlib import Path

from hilo_nas.errors import UsageError
from hilo_nas.evaluation.checkpoint_files import CheckpointFiles
from hilo_nas.evaluation.cluster_options import ClusterOptions
from hilo_nas.evaluation.local_evaluator import LocalEvaluator
from hilo_nas.evaluation.ray.ray_cluster import RayCluster
from hilo_nas.evaluation.ray.ray_evaluator import RayEvaluator

__all__ = ["start_ray_evaluator"]

_LOCAL_HOST = "hilo_nas.evaluation.ray.place:local_host"


def start_ray_evaluator(
    wishes: ClusterOptions,
    logs: Path,
    *,
    purpose: str,
    checkpoints: Path | None = None,
    checkpoint_mib: float = 0.0,
    idle_timeout_s: float = 600.0,
) -> RayEvaluator:
    """Connects to a cluster and returns its evaluator. The nodes start working at the first task for them.

    Args:
        wishes: The cluster, and the nodes that time and train.
        logs: Folder for the output of the worker that reads images on this machine.
        purpose: Purpose of the work, shown to other processes that wait for a device.
        checkpoints: Folder of the checkpoints, or None if trainings are never resumed.
        checkpoint_mib: Disk space in MiB for checkpoints that are not in use.
        idle_timeout_s: Seconds without an event after which a worker counts as hung.

    Raises:
        UsageError: Ray is not installed, or the cluster does not exist or refuses the token.
    """
    if wishes.address == "local":  # Ctrl-C would also reach the processes of a Ray that the search starts itself
        raise UsageError(
            "evaluator.address must be HOST:PORT or auto, but got 'local'. Start Ray with `RAY_AUTH_MODE=token ray "
            "start --head --node-ip-address 127.0.0.1`, and leave out evaluator.address."
        )
    cluster = RayCluster(wishes.address)
    return RayEvaluator(
        cluster,
        LocalEvaluator(logs, purpose=purpose, idle_timeout_s=idle_timeout_s),
        wishes=wishes,
        host=(_LOCAL_HOST, {"purpose": purpose, "idle_timeout_s": idle_timeout_s}),
        checkpoints=None if checkpoints is None else CheckpointFiles(checkpoints, budget_mib=checkpoint_mib),
        notices=cluster.warnings,
    )
