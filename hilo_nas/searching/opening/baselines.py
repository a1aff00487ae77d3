"""Baselines, networks of others that a search compares its own with: timed and trained as the space's are."""

from __future__ import annotations

from collections.abc import Sequence

from hilo_nas.errors import UsageError
from hilo_nas.evaluation import Evaluator, Prepare, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.text.commands import command, setting_words

__all__ = ["check_baselines", "due_baselines", "join_baselines", "tell_cost"]


def check_baselines(
    baselines: Sequence[str], speeds: str | None, study: StoredStudy, evaluator: Evaluator, emit: Emit
) -> None:
    """Checks before anything is spent that the baselines asked for can be compared with in a study.

    Args:
        baselines: Names of networks, as `timm:NAME`.
        speeds: Study whose timings are asked for; None for those of the study itself.
        study: The study, which need not exist yet.
        evaluator: Looks the names up.
        emit: Receives its events.

    Raises:
        UsageError: timm does not know one of them, or the machine that timed the others did not time it.
    """
    if not baselines:
        return
    run_task(evaluator, Prepare(timm_names=tuple(name.removeprefix("timm:") for name in baselines)), emit)
    records: list[TrialRecord] = []
    if speeds is not None:
        records += open_study(speeds).records
    if study.exists:
        records += study.records
    timer = speeds or (study.manifest.speeds if study.exists else None)
    if timer is None:
        return
    timed = {record.key for record in records if record.measurements}
    if missing := [name for name in baselines if name not in timed]:
        way = command("search", *setting_words({"study.name": timer, "search.baselines": missing}))
        raise UsageError(
            f"baselines must have been timed where the other networks were, but study {timer} did not time "
            f"{', '.join(missing)}. Time them there: {way}"
        )


def tell_cost(baselines: Sequence[str], plan: ProxyPlan, tried: Sequence[tuple[float, float]], emit: Emit) -> None:
    """Emits, before baselines are timed and trained, on how many images each is and about how long all will take.

    Args:
        baselines: Those still to be tried.
        plan: The study's.
        tried: Estimated seconds of timing and of training, of those that could be tried for a moment.
        emit: Receives the estimate.
    """
    if not baselines:
        return
    seconds = sum(map(sum, tried)) * len(baselines) / max(len(tried), 1)
    duration = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    of_images = f" and trained on {plan.budgets[-1]:,} images" if plan.declaration.has_rungs else ""
    count = f"{len(baselines)} baselines will each be" if len(baselines) > 1 else "1 baseline will be"
    emit(Notice(text=f"{count} timed{of_images}, in about {duration}" if tried else f"{count} timed{of_images}"))


def join_baselines(stored: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """Returns a study's baselines with those that are asked for, each once."""
    return tuple(dict.fromkeys((*stored, *asked)))


def due_baselines(asked: Sequence[str], study: StoredStudy) -> tuple[str, ...]:
    """Returns the baselines that a search would try, those asked for included; the study need not exist yet."""
    stored = study.manifest.peers if study.exists else ()
    records = study.records if study.exists else []
    known = {record.key for record in records if not record.is_open}
    return tuple(name for name in join_baselines(stored, asked) if name not in known)
