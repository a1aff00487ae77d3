"""Every network of a small space, timed and trained at each rung: what searches are replayed on (`bench samplers`)."""

from __future__ import annotations

from hilo_nas.events import Emit
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.search.request import SearchRequest, plan_of
from hilo_nas.search.sweep import Course, Swept, run_sweep
from hilo_nas.space import SearchSpace, list_networks
from hilo_nas.study import StudyFolder

__all__ = ["list_swept", "make_table"]


def make_table(
    request: SearchRequest, space: SearchSpace, folder: StudyFolder, emit: Emit, *, jobs: int | None = None
) -> list[TrialRecord]:
    """Times and trains all networks of a space, and returns their records; goes on where it stopped.

    Args:
        request: Device, conditions, data, budget and rungs.
        space: A space of up to 20,000 settings.
        folder: The study that keeps the records.
        emit: Told of all of it.
        jobs: Trainings at once; see `run_sweep`.

    Raises:
        UsageError: The space is too large.
        HiloNasError: See `run_sweep`.
    """
    networks = list_swept(space, request, count=None)
    plan = plan_of(request, space)
    courses = [Course(seed=0, images=plan.budgets[-1], networks=len(networks))]
    return run_sweep(request, space, folder, networks, plan, courses, emit, jobs=jobs)


def list_swept(space: SearchSpace, request: SearchRequest, count: int | None) -> list[Swept]:
    """Returns the networks of a table or a check, in the order that both share, so that one goes on with the other.

    Raises:
        UsageError: All networks of a large space are asked for.
    """
    defaults = space.defaults
    listed = list_networks(
        space,
        img_size=request.img_size or defaults.get("img_size", 224),
        num_classes=defaults.get("num_classes", 1000),
        count=count,
    )
    return [Swept(subject=Subject(arch=arch), params=params, origin="list") for arch, params in listed]
