"""Check of cheap proxies against long trainings of networks of a space.

It makes the timings and scores that a study lacks, and compares how proxies and long trainings rank the networks.

The check times a list of networks, trains them as a search does (seed 0), and trains them for much longer with other
seeds (1, and 2 for some networks). The seeds differ because a proxy with the seed of the long training would share its
random noise.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hilo_nas.bench.proxy_check.agreement import LIKELIHOOD, Agreement, CheckedNetwork, agree
from hilo_nas.bench.proxy_check.left_out import MODEL, LeftOut, leave_out_scores, leave_out_speeds
from hilo_nas.errors import NotFoundError, StudyMismatchError, UsageError
from hilo_nas.evaluation import Evaluator
from hilo_nas.events import Emit, Notice
from hilo_nas.measurement import Measurement, ProxyPlan
from hilo_nas.proxy.kinds import metric_named, quick_names
from hilo_nas.searching.configuration.resolve import plan_of
from hilo_nas.searching.configuration.rung_budgets import DEFAULT_RATIO
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.sweeps.listing import list_swept
from hilo_nas.searching.sweeps.sweep import Sweep, SweepTraining, run_sweep
from hilo_nas.space import SearchSpace
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy

__all__ = [
    "LONG_FACTOR",
    "LONG_SEED",
    "PROXY_SEED",
    "ProxyCheck",
    "ProxyCheckFindings",
    "run_proxy_check",
    "to_checked_network",
]

PROXY_SEED, LONG_SEED, _SECOND_LONG_SEED = 0, 1, 2
"""Seeds: of the proxy's training, as in a search and in a benchmark table, and of the first and second long
training."""
LONG_FACTOR = 10
"""Default budget of a long training, in multiples of the proxy's budget."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyCheck:
    """Settings of a proxy check.

    Raises:
        UsageError: One or more values are invalid. The message lists all of them.
    """

    networks: int = 40
    """Number of networks to draw from the space."""
    long_images: int | None = None
    """Number of training images of a long training. None selects ten times the proxy's budget."""
    second_seed: int = 15
    """Number of networks that get a second long training, with another seed."""
    training_free: tuple[str, ...] = dataclasses.field(default_factory=quick_names)
    """Names of training-free proxies to compare as well."""
    target: StoredStudy | None = None
    """Study of a proxy check of the same networks at another image size. The proxies are also compared with the long
    trainings in that study."""

    def __post_init__(self) -> None:
        faults = []
        if self.networks < 2:
            faults.append(f"networks must be at least 2, but got {self.networks}")
        if self.long_images is not None and self.long_images < 1:
            faults.append(f"long_images must be at least 1, but got {self.long_images}")
        if self.second_seed < 0:
            faults.append(f"second_seed must be at least 0, but got {self.second_seed}")
        if unknown := [name for name in self.training_free if name not in quick_names()]:
            faults.append(f"training_free must be one of {', '.join(quick_names())}, but got {', '.join(unknown)}")
        if faults:
            raise UsageError("\n".join(faults))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProxyCheckFindings:
    """Findings of a proxy check."""

    agreement: Agreement
    models: tuple[str, ...]
    """Sentences about the error and the calibration of the models of a search on these networks."""
    measurements: tuple[Measurement, ...]
    """Timings of the networks."""
    failures: Mapping[str, str]
    """Reasons why networks could not be timed or trained, by key."""
    settings: Mapping[str, Any]
    """Settings of the check, including defaults."""


def run_proxy_check(
    config: SearchConfig,
    space: SearchSpace,
    folder: StoredStudy,
    check: ProxyCheck,
    emit: Emit,
    *,
    evaluator: Evaluator | None = None,
) -> ProxyCheckFindings:
    """Returns the agreement of proxies with long trainings. Makes the timings and scores that the study lacks.

    The check resumes an interrupted check. It also reuses the records of a benchmark table of the same space if
    `folder` is that table's study.

    Args:
        config: Device, conditions, data, and the proxy's budget and rungs.
        space: Search space of the networks.
        folder: Study that stores the records.
        check: Settings of the check.
        emit: Receives an event for each step.
        evaluator: Evaluator that times and trains. Defaults to local workers.

    Raises:
        UsageError: The long training is not longer than the proxy's, the study has trained past the long budget
            without a score there, or the space has fewer than two networks within its limits.
        StudyMismatchError: The study or the target's study has other networks, conditions or data.
        MeasurementError: Fewer than two networks could be trained.
        HiloNasError: Any error of `run_sweep`.
    """
    stored = StoredStudy(folder.path).manifest if folder.exists else None
    if stored is not None and config.proxy.batch_size is None:
        config = config.replace({"proxy.batch_size": stored.plan.batch_size})
    proxy = plan_of(config, space)
    ratio = config.proxy.rung_ratio or DEFAULT_RATIO
    plan = _with_long_budget(proxy, check.long_images or LONG_FACTOR * proxy.images, ratio)
    budget, long = proxy.budgets[-1], plan.budgets[-1]
    if stored is not None:
        _check_long_is_scored(StoredStudy(folder.path), long)
    networks = list_swept(space, config, folder, check.networks, emit)
    if len(networks) < 2:
        raise UsageError(
            f"at least two networks of {space.name} must be within its limits, but got {len(networks)}. Use wider "
            "limits."
        )
    targets = {}
    if check.target is not None:
        targets = _load_target(check.target, stored, plan, [network.subject.key for network in networks])
    trainings = [
        SweepTraining(seed=PROXY_SEED, images=budget, networks=len(networks)),
        SweepTraining(seed=LONG_SEED, images=long, networks=len(networks)),
        SweepTraining(seed=_SECOND_LONG_SEED, images=long, networks=min(check.second_seed, len(networks))),
    ]
    sweep = Sweep(space=space, networks=networks, plan=plan, trainings=trainings, proxies=check.training_free)
    records = run_sweep(config, sweep, folder, emit, evaluator=evaluator)
    manifest = StoredStudy(folder.path).manifest
    if check.target is not None:
        _check_data(check.target, manifest)
    budgets = [images for images in manifest.plan.budgets if images <= budget and _is_scored(records, images)]
    if unscored := [f"{images:,}" for images in proxy.budgets if images not in budgets]:
        text = f"no network was scored after {', '.join(unscored)} images: the study's trainings were past them already"
        emit(Notice(level="warning", text=text))
    found = [to_checked_network(record, manifest, budgets, long, targets.get(record.key)) for record in records]
    left_out = {images: leave_out_scores(records, manifest, images=images, seed=PROXY_SEED) for images in budgets}
    found = [dataclasses.replace(own, proxies={**own.proxies, **_list_predicted(own.key, left_out)}) for own in found]
    return ProxyCheckFindings(
        agreement=agree(found, budgets=_list_score_names(manifest, budgets, found)),
        models=tuple(_describe_models(left_out, leave_out_speeds(records, manifest), manifest)),
        measurements=tuple(record.measurement for record in records if record.measurement),
        failures={
            record.key: record.reason or f"not trained to {long:,} images; the study's log has the reason"
            for record, network in zip(records, found, strict=True)
            if not network.long
        },
        settings={
            "space": space.name,
            **({"limits": dict(space.limits)} if space.limits else {}),
            "networks": len(networks),
            "budgets": budgets,
            "long_images": long,
            "second_seed": trainings[2].networks,
            "training_free": check.training_free,
            "data": manifest.data.name,
            "proxy_img_size": manifest.plan.img_size,
            "proxy_batch_size": manifest.plan.batch_size,
            "recipe": manifest.plan.recipe,
            "held_out_images": next((score.n_val for record in records for score in record.scores), None),
            **({"target": check.target.name} if check.target else {}),
        },
    )


def _list_predicted(key: str, left_out: Mapping[int, LeftOut | None]) -> dict[str, float]:
    """Returns the predictions of a network from the scores of the others, by the name of the proxy."""
    return {
        f"{MODEL}@{images}": own.predicted[key]
        for images, own in left_out.items()
        if own is not None and key in own.predicted
    }


def _describe_models(
    left_out: Mapping[int, LeftOut | None], speeds: LeftOut | None, manifest: Manifest
) -> Iterator[str]:
    metric = metric_named(manifest.plan.score_metric)
    for images, own in left_out.items():
        if own is not None:
            yield own.sentence(_name(manifest, images), metric.spread_text(own.error))
    if speeds is not None:
        yield speeds.sentence("images/s", f"{100 * speeds.error:.1f} %")


def _with_long_budget(proxy: ProxyPlan, images: int, ratio: float) -> ProxyPlan:
    """Returns the proxy's plan with a long training's budget and budgets in between.

    A killed training loses only the part since the last budget.

    Raises:
        UsageError: The long training is not longer than the proxy's.
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


def _check_long_is_scored(study: StoredStudy, long: int) -> None:
    """Raises UsageError if a long training of the study went past the budget `long` without a score there."""
    found = [[score.images_seen for score in record.scores if score.seed == LONG_SEED] for record in study.records]
    if any(max(seen, default=0) > long and long not in seen for seen in found):
        scored = sorted({images for seen in found for images in seen})
        raise UsageError(
            f"the long trainings of study {study.name} must have a score after {long:,} images, but have scores only "
            f"after {', '.join(f'{images:,}' for images in scored)}. Use one of these as --long-images, or another "
            "--study."
        )


def _load_target(
    target: StoredStudy, stored: Manifest | None, plan: ProxyPlan, keys: Sequence[str]
) -> dict[str, float]:
    """Returns the top-1 of each network's long training in a check at another image size, by key.

    Raises:
        NotFoundError: The target's study has no long training.
        StudyMismatchError: The target's study has other networks or data, or the same image size.
    """
    manifest, records = target.manifest, target.records
    if manifest.plan.img_size == (stored.plan if stored else plan).img_size:
        raise StudyMismatchError(
            f"the target's study {target.name} must train at another image size, but also trains at "
            f"{manifest.plan.img_size} pixels. Create it with another proxy.img_size."
        )
    if stored is not None:
        _check_data(target, stored)
    count = min(len(keys), len(records))
    if [record.key for record in records[:count]] != list(keys[:count]):
        raise StudyMismatchError(
            f"the target's study {target.name} must have the networks of this check, but has others. Create it with "
            "`hilo-nas proxy check` on the same space, with the same limits and the same image size for timing."
        )
    found = {record.key: [score for score in record.scores if score.seed == LONG_SEED] for record in records[:count]}
    longest = max((score.images_seen for scores in found.values() for score in scores), default=None)
    if longest is None:
        raise NotFoundError(
            f"the target's study {target.name} must have long trainings, but has none. Create it with `hilo-nas proxy "
            "check` on the same space."
        )
    return {key: score.value for key, scores in found.items() for score in scores if score.images_seen == longest}


def _check_data(target: StoredStudy, manifest: Manifest) -> None:
    """Raises StudyMismatchError if the target's study uses other data."""
    other = target.manifest.data
    if other.hash != manifest.data.hash:
        raise StudyMismatchError(
            f"the target's study {target.name} must use the same data, {manifest.data.name}, but uses {other.name}"
        )


def _is_scored(records: Sequence[TrialRecord], images: int) -> bool:
    return any(
        score.seed == PROXY_SEED and score.images_seen == images for record in records for score in record.scores
    )


def to_checked_network(
    record: TrialRecord, manifest: Manifest, budgets: Sequence[int], long: int, target: float | None
) -> CheckedNetwork:
    """Returns the proxies, costs and long trainings that a record holds for its network."""
    found = {(score.seed, score.images_seen): score for score in record.scores}
    top1 = {at: score.value for at, score in found.items()}
    proxies: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for images in budgets:
        if score := found.get((PROXY_SEED, images)):
            values = {_name(manifest, images): score.value}
            if score.loss is not None:
                values[f"{LIKELIHOOD}@{images}"] = math.exp(-score.loss)
            proxies |= values
            seconds |= dict.fromkeys(values, _training_seconds(record, PROXY_SEED, images))
    for name, count in (("params", record.parameters), ("macs", record.macs)):
        if count is not None:
            proxies[name], seconds[name] = float(count), 0.0
    for score in record.other_scores:
        proxies[score.metric], seconds[score.metric] = score.value, score.seconds
    if record.measurement is not None:
        seconds["images_per_s"] = record.measurement.seconds
    trained = [top1.get((seed, long)) for seed in (LONG_SEED, _SECOND_LONG_SEED)]
    # The first long training is the ground truth. Without it, the second must not move to the first place.
    kept = [value for value in trained if value is not None] if trained[0] is not None else []
    return CheckedNetwork(
        key=record.key,
        images_per_s=record.measurement.images_per_s if record.measurement else math.nan,
        long=tuple(kept),
        long_seconds=_training_seconds(record, LONG_SEED, long),
        proxies=proxies,
        seconds=seconds,
        target=target,
    )


def _training_seconds(record: TrialRecord, seed: int, images: int) -> float:
    """Returns the seconds of a training up to a budget, summed over all its parts."""
    return sum(score.seconds for score in record.scores if score.seed == seed and score.images_seen <= images)


def _list_score_names(manifest: Manifest, budgets: Sequence[int], networks: Sequence[CheckedNetwork]) -> list[str]:
    """Returns the names of the scores that exist at each budget. Older studies have top-1 without likelihood."""
    names = [name for images in budgets for name in (_name(manifest, images), f"{LIKELIHOOD}@{images}")]
    scored = {name for network in networks for name in network.proxies}
    return [name for name in dict.fromkeys(names) if name in scored]


def _name(manifest: Manifest, images: int) -> str:
    return f"{manifest.plan.metric}@{images}"
