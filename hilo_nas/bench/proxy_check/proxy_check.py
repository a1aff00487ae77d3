"""How well a space's cheap proxies rank its networks as long trainings do: makes what is compared, and compares it.

A list of networks is timed, trained as a search would train them (seed 0), and trained for much longer with other seeds
(1, and 2 for some of them): a proxy that shared its seed with the truth would share its luck.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.bench.proxy_check.agreement import LIKELIHOOD, Agreement, CheckedNetwork, agree
from hilo_nas.errors import NotFoundError, StudyMismatchError, UsageError
from hilo_nas.evaluation import Evaluator
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Measurement, ProxyPlan
from hilo_nas.proxy.kinds import quick_names
from hilo_nas.searching.configuration.resolve import plan_of
from hilo_nas.searching.configuration.rung_budgets import DEFAULT_RATIO
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.sweeps.listing import list_swept
from hilo_nas.searching.sweeps.sweep import Sweep, SweepTraining, run_sweep
from hilo_nas.space import SearchSpace
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["Checked", "ProxyCheck", "run_proxy_check"]

_PROXY, _LONG, _SECOND = 0, 1, 2
"""Seeds: of the proxy's training, which is that of a search and of a table; of the first and the second long one."""
_LONGER = 10
"""How many times the proxy's budget a long training has unless told otherwise."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyCheck:
    """What is to be compared."""

    networks: int = 40
    """How many of the space's networks."""
    long_images: int | None = None
    """Training images of a long training; ten times the proxy's if left out."""
    second_seed: int = 15
    """How many of the networks are trained long twice."""
    training_free: tuple[str, ...] = dataclasses.field(default_factory=quick_names)
    """Proxies without a training that are compared, too."""
    target: StoredStudy | None = None
    """A check of the same networks at another image size, whose long trainings the proxies are held to as well."""

    def __post_init__(self) -> None:
        faults = []
        if self.networks < 2:
            faults.append(f"networks must be at least 2, but got {self.networks}")
        if self.long_images is not None and self.long_images < 1:
            faults.append(f"long_images must be at least 1, but got {self.long_images}")
        if self.second_seed < 0:
            faults.append(f"second_seed must be at least 0, but got {self.second_seed}")
        if unknown := [name for name in self.training_free if name not in quick_names()]:
            faults.append(f"training_free must be of {', '.join(quick_names())}, but got {', '.join(unknown)}")
        if faults:
            raise UsageError("\n".join(faults))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of it."""

    agreement: Agreement
    measurements: tuple[Measurement, ...]
    """The networks' speeds."""
    failures: Mapping[str, str]
    """By key, why a network could not be timed or trained."""
    settings: Mapping[str, Any]
    """What was asked for, defaults included."""


def run_proxy_check(
    config: SearchConfig,
    space: SearchSpace,
    folder: StoredStudy,
    check: ProxyCheck,
    emit: Emit,
    *,
    evaluator: Evaluator | None = None,
) -> Checked:
    """Makes what is not made yet and compares; goes on where it stopped, and where a table of the space stands.

    Args:
        config: Device, conditions, data, and the proxy's budget and rungs.
        space: What the networks are of.
        folder: The study that keeps the records.
        check: What is compared.
        emit: Told of all of it.
        evaluator: Who times and trains; this machine if left out.

    Raises:
        UsageError: The long training is no longer than the proxy's, or the study has gone past it.
        StudyMismatchError: The study, or the target's, is of other networks, conditions or data.
        MeasurementError: Fewer than two networks could be trained.
        HiloNasError: See `run_sweep`.
    """
    stored = StoredStudy(folder.path).manifest if folder.exists else None
    if stored is not None and config.proxy.batch_size is None:
        config = config.replace({"proxy.batch_size": stored.plan.batch_size})
    proxy = plan_of(config, space)
    ratio = config.proxy.rung_ratio or DEFAULT_RATIO
    plan = _lengthened(proxy, check.long_images or _LONGER * proxy.images, ratio)
    budget, long = proxy.budgets[-1], plan.budgets[-1]
    if stored is not None:
        _check_long(StoredStudy(folder.path), long)
    networks = list_swept(space, config, folder, check.networks, emit)
    if len(networks) < 2:
        raise UsageError(
            f"at least two networks of {space.name} must be within its limits to be compared. Use wider ones."
        )
    targets = {}
    if check.target is not None:
        targets = _load_target(check.target, stored, plan, [network.subject.key for network in networks])
    courses = [
        SweepTraining(seed=_PROXY, images=budget, networks=len(networks)),
        SweepTraining(seed=_LONG, images=long, networks=len(networks)),
        SweepTraining(seed=_SECOND, images=long, networks=min(check.second_seed, len(networks))),
    ]
    sweep = Sweep(space=space, networks=networks, plan=plan, trainings=courses, proxies=check.training_free)
    records = run_sweep(config, sweep, folder, emit, evaluator=evaluator)
    manifest = StoredStudy(folder.path).manifest
    if check.target is not None:
        _check_data(check.target, manifest)
    budgets = [images for images in manifest.plan.budgets if images <= budget and _is_scored(records, images)]
    if unscored := [f"{images:,}" for images in proxy.budgets if images not in budgets]:
        text = f"no network was scored after {', '.join(unscored)} images: the study's trainings had gone past them"
        emit(Notice(level="warning", text=text))
    found = [_gathered(record, manifest, budgets, long, targets.get(record.key)) for record in records]
    return Checked(
        agreement=agree(found, budgets=_list_scores(manifest, budgets, found)),
        measurements=tuple(record.measurement for record in records if record.measurement),
        failures={
            record.key: record.reason or f"it was not trained to {long:,} images; the study's log says why"
            for record, network in zip(records, found, strict=True)
            if not network.long
        },
        settings={
            "space": space.name,
            **({"limits": dict(space.limits)} if space.limits else {}),
            "networks": len(networks),
            "budgets": budgets,
            "long_images": long,
            "second_seed": courses[2].networks,
            "training_free": check.training_free,
            "data": manifest.data.name,
            "proxy_img_size": manifest.plan.img_size,
            "proxy_batch_size": manifest.plan.batch_size,
            "recipe": manifest.plan.recipe,
            "held_out_images": next((score.n_val for record in records for score in record.scores), None),
            **({"target": check.target.name} if check.target else {}),
        },
    )


def _lengthened(proxy: ProxyPlan, images: int, ratio: float) -> ProxyPlan:
    """The proxy's plan with a long training's budget, and others between, so that a kill loses a part of it only.

    Raises:
        UsageError: It is no longer than the proxy's.
    """
    if -(-images // proxy.batch_size) * proxy.batch_size <= proxy.budgets[-1]:
        raise UsageError(
            f"long_images must be more than the proxy's {proxy.images:,} images, but got {images:,}. Use more, or "
            "fewer --proxy-images."
        )
    between: list[int] = []
    while (above := round((between[-1] if between else proxy.images) * ratio)) * ratio <= images:
        between.append(above)
    return proxy.with_budgets((*between, images))


def _check_long(study: StoredStudy, long: int) -> None:
    """Raises UsageError where the study's long trainings have gone past a budget without being scored there."""
    found = [[score.images_seen for score in record.scores if score.seed == _LONG] for record in study.records]
    if any(max(seen, default=0) > long and long not in seen for seen in found):
        scored = sorted({images for seen in found for images in seen})
        raise UsageError(
            f"the long trainings of study {study.name} must have been scored after {long:,} images, but have gone "
            f"past them: they were scored after {', '.join(f'{images:,}' for images in scored)}. Give one of these as "
            "--long-images, or another --study."
        )


def _load_target(
    target: StoredStudy, stored: Manifest | None, plan: ProxyPlan, keys: Sequence[str]
) -> dict[str, float]:
    """Returns the long training's top-1 of each network in a check at another image size, by key.

    Raises:
        NotFoundError: The study has no long training.
        StudyMismatchError: It is of other networks, or of the same image size.
    """
    manifest, records = target.manifest, target.records
    if manifest.plan.img_size == (stored.plan if stored else plan).img_size:
        raise StudyMismatchError(
            f"the target's study {target.name} must train at another image size, but trains at "
            f"{manifest.plan.img_size} pixels, too. Make it with another proxy.img_size."
        )
    if stored is not None:
        _check_data(target, stored)
    count = min(len(keys), len(records))
    if [record.key for record in records[:count]] != list(keys[:count]):
        raise StudyMismatchError(
            f"the target's study {target.name} must be of the networks that are checked, but is of others. Make it by "
            "`hilo-nas proxy check` of the same space, with the same limits and timed at the same size."
        )
    found = {record.key: [score for score in record.scores if score.seed == _LONG] for record in records[:count]}
    longest = max((score.images_seen for scores in found.values() for score in scores), default=None)
    if longest is None:
        raise NotFoundError(
            f"the target's study {target.name} must hold long trainings, but has none. Make it by `hilo-nas proxy "
            "check` of the same space."
        )
    return {key: score.value for key, scores in found.items() for score in scores if score.images_seen == longest}


def _check_data(target: StoredStudy, manifest: Manifest) -> None:
    """Raises StudyMismatchError where the target's study is of other data."""
    other = target.manifest.data
    if other.hash != manifest.data.hash:
        raise StudyMismatchError(
            f"the target's study {target.name} must be of the same data, {manifest.data.name}, but is of {other.name}"
        )


def _is_scored(records: Sequence[TrialRecord], images: int) -> bool:
    return any(score.seed == _PROXY and score.images_seen == images for record in records for score in record.scores)


def _gathered(
    record: TrialRecord, manifest: Manifest, budgets: Sequence[int], long: int, target: float | None
) -> CheckedNetwork:
    """Returns all that a record says of its network."""
    found = {(score.seed, score.images_seen): score for score in record.scores}
    top1 = {at: score.value for at, score in found.items()}
    proxies: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for images in budgets:
        if score := found.get((_PROXY, images)):
            values = {_name(manifest, images): score.value}
            if score.loss is not None:
                values[f"{LIKELIHOOD}@{images}"] = math.exp(-score.loss)
            proxies |= values
            seconds |= dict.fromkeys(values, _paid(record, _PROXY, images))
    for name, count in (("params", record.parameters), ("macs", record.macs)):
        if count is not None:
            proxies[name], seconds[name] = float(count), 0.0
    for score in record.other_scores:
        proxies[score.metric], seconds[score.metric] = score.value, score.seconds
    if record.measurement is not None:
        seconds["images_per_s"] = record.measurement.seconds
    trained = [top1.get((seed, long)) for seed in (_LONG, _SECOND)]
    # The truth is the first one: without it, the second would take its place.
    kept = [value for value in trained if value is not None] if trained[0] is not None else []
    return CheckedNetwork(
        key=record.key,
        images_per_s=record.measurement.images_per_s if record.measurement else math.nan,
        long=tuple(kept),
        long_seconds=_paid(record, _LONG, long),
        proxies=proxies,
        seconds=seconds,
        target=target,
    )


def _paid(record: TrialRecord, seed: int, images: int) -> float:
    """Returns the seconds of a training up to a budget, all its legs."""
    return sum(score.seconds for score in record.scores if score.seed == seed and score.images_seen <= images)


def _list_scores(manifest: Manifest, budgets: Sequence[int], networks: Sequence[CheckedNetwork]) -> list[str]:
    """Returns the names of what was scored at each budget; older studies recorded no likelihood beside top-1."""
    names = [name for images in budgets for name in (_name(manifest, images), f"{LIKELIHOOD}@{images}")]
    scored = {name for network in networks for name in network.proxies}
    return [name for name in dict.fromkeys(names) if name in scored]


def _name(manifest: Manifest, images: int) -> str:
    return f"{manifest.plan.metric}@{images}"
