"""Baselines: other networks that are timed and trained like those of the space, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

from hilo_nas.errors import UsageError
from hilo_nas.evaluation import Evaluator, Prepare, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.text.commands import command, setting_words

__all__ = ["check_baselines", "due_baselines", "join_baselines", "report_baseline_cost"]


def check_baselines(
    baselines: Sequence[str], speeds: str | None, study: StoredStudy, evaluator: Evaluator, emit: Emit
) -> None:
    """Checks that a study can use the requested baselines, before any costly work.

    Args:
        baselines: Names of networks, as `timm:NAME`.
        speeds: Study to copy timings from; None if the study does its own timing.
        study: The study, which need not exist yet.
        evaluator: Looks up the names in timm.
        emit: Receives the events of the look-up.

    Raises:
        UsageError: timm does not know a baseline, or the study with the timings did not time it.
    """
    if not baselines:
        return
    run_task(evaluator, Prepare(timm_names=tuple(name.removeprefix("timm:") for name in baselines)), emit)
    records: list[TrialRecord] = []
    if speeds is not None:
        records += open_study(speeds).records
    if study.exists:
        records += study.records
    timing_study = speeds or (study.manifest.speeds if study.exists else None)
    if timing_study is None:
        return
    timed = {record.key for record in records if record.full_measurements}
    if missing := [name for name in baselines if name not in timed]:
        remedy = command("search", *setting_words({"study.name": timing_study, "search.baselines": missing}))
        raise UsageError(
            f"baselines must have timings in study {timing_study}, like the other networks, but it did not time "
            f"{', '.join(missing)}. Time them there: {remedy}"
        )


def report_baseline_cost(baselines: Sequence[str], plan: ProxyPlan, tried_s: Sequence[float], emit: Emit) -> None:
    """Emits the number of baselines, their training images and the estimated time, before they are tried.

    Args:
        baselines: Baselines still to be tried.
        plan: Plan of the study.
        tried_s: Estimated seconds of timing and training, for baselines that could be tried briefly.
        emit: Receives the notice.
    """
    if not baselines:
        return
    seconds = sum(tried_s) * len(baselines) / max(len(tried_s), 1)
    duration = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    of_images = f" and trained on {plan.budgets[-1]:,} images" if plan.declaration.has_rungs else ""
    count = f"{len(baselines)} baselines will each be" if len(baselines) > 1 else "1 baseline will be"
    emit(Notice(text=f"{count} timed{of_images}, in about {duration}" if tried_s else f"{count} timed{of_images}"))


def join_baselines(stored: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """Returns the stored and the requested baselines without duplicates."""
    return tuple(dict.fromkeys((*stored, *asked)))


def due_baselines(asked: Sequence[str], study: StoredStudy) -> tuple[str, ...]:
    """Returns the baselines that a search would try, including the requested ones. The study need not exist yet."""
    stored = study.manifest.baselines if study.exists else ()
    records = study.records if study.exists else []
    known = {record.key for record in records if not record.is_open}
    return tuple(name for name in join_baselines(stored, asked) if name not in known)
