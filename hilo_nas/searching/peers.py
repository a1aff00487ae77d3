"""Networks of others that a search compares its own with: marked points, timed and trained as the space's are."""

from __future__ import annotations

from collections.abc import Sequence

from hilo_nas.commands import command, setting_words
from hilo_nas.errors import UsageError
from hilo_nas.evaluation import Evaluator, Prepare, run_task
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.records import TrialRecord
from hilo_nas.searching.config import SearchConfig
from hilo_nas.study import StoredStudy, open_study

__all__ = ["check_peers", "due_peers", "join_peers", "tell_cost"]


def check_peers(config: SearchConfig, study: StoredStudy, evaluator: Evaluator, emit: Emit) -> None:
    """Checks before anything is spent that the peers asked for can be compared with in a study, there or still to be.

    Raises:
        UsageError: timm does not know one of them, or the machine that timed the others did not time it.
    """
    if not config.search.baselines:
        return
    run_task(evaluator, Prepare(timm_names=tuple(peer.removeprefix("timm:") for peer in config.search.baselines)), emit)
    records: list[TrialRecord] = []
    if config.study.speeds is not None:
        records += open_study(config.study.speeds).records
    if study.exists:
        records += study.records
    timer = config.study.speeds or (study.manifest.speeds if study.exists else None)
    if timer is None:
        return
    timed = {record.key for record in records if record.measurements}
    if missing := [peer for peer in config.search.baselines if peer not in timed]:
        way = command("search", *setting_words({"study.name": timer, "search.baselines": missing}))
        raise UsageError(
            f"peers must have been timed where the other networks were, but study {timer} did not time "
            f"{', '.join(missing)}. Time them there: {way}"
        )


def tell_cost(peers: Sequence[str], plan: ProxyPlan, tried: Sequence[tuple[float, float]], emit: Emit) -> None:
    """Tells, before baselines are timed and trained, on how many images each is and about how long all will take.

    Args:
        peers: Those still to be tried.
        plan: The study's.
        tried: Estimated seconds of timing and of training, of those that could be tried for a moment.
        emit: Takes the estimate.
    """
    if not peers:
        return
    seconds = sum(map(sum, tried)) * len(peers) / max(len(tried), 1)
    duration = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
    of_images = f" and trained on {plan.budgets[-1]:,} images" if plan.declaration.has_rungs else ""
    count = f"{len(peers)} baselines will each be" if len(peers) > 1 else "1 baseline will be"
    emit(Notice(text=f"{count} timed{of_images}, in about {duration}" if tried else f"{count} timed{of_images}"))


def join_peers(stored: tuple[str, ...], config: SearchConfig) -> tuple[str, ...]:
    """Returns a study's peers with those that a configuration adds, each once."""
    return tuple(dict.fromkeys((*stored, *config.search.baselines)))


def due_peers(config: SearchConfig, study: StoredStudy) -> tuple[str, ...]:
    """Returns the peers that a search would try, in a study that is there or still to be made."""
    stored = study.manifest.peers if study.exists else ()
    records = study.records if study.exists else []
    known = {record.key for record in records if not record.is_open}
    return tuple(peer for peer in join_peers(stored, config) if peer not in known)
