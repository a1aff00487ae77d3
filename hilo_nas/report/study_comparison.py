"""Comparison of two studies that share networks: who changes rank, and what a choice in the wrong study costs.

The two studies may be the same one under two of its conditions, such as two targets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from scipy.stats import kendalltau

from hilo_nas.arch.config import describe_arch
from hilo_nas.errors import UsageError
from hilo_nas.study.front import Front, speed_hypervolume
from hilo_nas.study.pareto import is_non_dominated
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.commands import command, setting_words

__all__ = ["RankChange", "StudyComparison", "compare_studies"]

_FEWEST = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankChange:
    """A network whose rank by speed differs between two studies. Rank 1 is the fastest common network."""

    network: str
    """The architecture in one line."""
    numbers: tuple[int, int]
    """Numbers of its trials."""
    images_per_s: tuple[float, float]
    ranks: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyComparison:
    """Comparison of the networks that are complete in both studies."""

    networks: int
    """Number of common networks."""
    speed_tau: float
    """Kendall's tau between the speeds of both studies."""
    value_tau: float | None
    """Kendall's tau between their values. None if the values have different metrics, or if the second study copied
    them."""
    speed_ratio: tuple[float, float]
    """Smallest and largest ratio of the speeds, the second study relative to the first."""
    changes: tuple[RankChange, ...]
    """Networks by the change of their rank, the largest change first."""
    front: tuple[int, ...]
    """Trials of the second study on the front of the common networks in the second study."""
    chosen: tuple[int, ...]
    """Trials of the second study on their front by the speeds of the first study."""
    hypervolume_loss: float
    """Share of the hypervolume in the second study that is lost by a choice with the speeds of the first study."""
    value_loss: float
    """Largest loss of the best value at a speed in the second study that the chosen networks reach."""
    images_per_s: float
    """Speed in the second study at which the loss of the best value is largest."""
    fastest: tuple[float, float]
    """Largest speed in the second study, of the front and of the chosen networks."""


def compare_studies(first: StoredStudy, second: StoredStudy) -> StudyComparison:
    """Returns the comparison of two studies under their objective conditions.

    The choice in the first study uses its speeds, and the values of the second study. So the loss is that of choosing
    on the wrong device.

    Args:
        first: Study in which networks are chosen.
        second: Study in which the choice is judged.

    Raises:
        UsageError: A study has no scores, or fewer than three networks are complete in both studies.
    """
    for study in (first, second):
        if not study.manifest.plan.declaration.gives_scores:
            way = command("search", *setting_words({"study.speeds": study.address, "study.name": "NAME"}))
            raise UsageError(
                f"a comparison needs studies with scores, but {study.title} has only timings. Search with its timings: "
                f"{way}"
            )
    fronts = first.front(), second.front()
    numbers = [{record.key: record.number for record in front.candidates} for front in fronts]
    keys = sorted(numbers[0].keys() & numbers[1].keys())
    if len(keys) < _FEWEST:
        if first.path == second.path:
            advice = f"Search for more: {command('search', '--study', first.address, '--trials', _FEWEST - len(keys))}"
        else:
            advice = "Time one study on the other device with `hilo-nas remeasure --device`."
        raise UsageError(
            f"a comparison needs at least {_FEWEST} networks that are complete in both studies, but {first.title} and "
            f"{second.title} share {len(keys)}. {advice}"
        )
    points = [[front.points[own[key]] for key in keys] for front, own in zip(fronts, numbers, strict=True)]
    speeds = [[point.images_per_s for point in own] for own in points]
    values = [[point.value for point in own] for own in points]
    ratios = [new / old for old, new in zip(*speeds, strict=True)]
    chosen, best = (_members(own, values[1]) for own in speeds)
    judged = list(zip(speeds[1], values[1], strict=True))
    ref_point = min(speeds[1]), min(values[1])
    whole = speed_hypervolume(judged, ref_point)
    kept = speed_hypervolume([judged[i] for i in chosen], ref_point)
    value_loss, at_speed = _largest_loss([judged[i] for i in best], [judged[i] for i in chosen])
    same_metric = first.manifest.plan.score_metric == second.manifest.plan.score_metric
    return StudyComparison(
        networks=len(keys),
        speed_tau=float(kendalltau(*speeds).statistic),
        value_tau=float(kendalltau(*values).statistic) if same_metric and values[0] != values[1] else None,
        speed_ratio=(min(ratios), max(ratios)),
        changes=_rank_changes(keys, numbers, speeds, fronts[1]),
        front=tuple(points[1][i].number for i in best),
        chosen=tuple(points[1][i].number for i in chosen),
        hypervolume_loss=1 - kept / whole if whole > 0 else 0.0,
        value_loss=value_loss,
        images_per_s=at_speed,
        fastest=(speeds[1][best[0]], max(speeds[1][i] for i in chosen)),
    )


def _members(speeds: Sequence[float], values: Sequence[float]) -> list[int]:
    """Returns the positions of the networks on the front, the fastest first."""
    keep = is_non_dominated(list(zip(speeds, values, strict=True)))
    return sorted((i for i, is_kept in enumerate(keep) if is_kept), key=lambda i: -speeds[i])


def _largest_loss(front: Sequence[tuple[float, float]], chosen: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Returns the largest loss of the best value, and its speed. A speed that no chosen network reaches is left out."""
    losses = []
    for speed, value in front:
        reached = [own for own_speed, own in chosen if own_speed >= speed]
        if reached:
            losses.append((value - max(reached), speed))
    return max(losses, default=(0.0, front[0][0]))


def _rank_changes(
    keys: Sequence[str], numbers: Sequence[dict[str, int]], speeds: Sequence[Sequence[float]], front: Front
) -> tuple[RankChange, ...]:
    ranks = []
    for own in speeds:
        order = sorted(zip(own, range(len(keys)), strict=True), reverse=True)
        ranks.append({i: rank for rank, (_, i) in enumerate(order, start=1)})
    changes = []
    for i, key in enumerate(keys):
        arch = front.by_number[numbers[1][key]].arch
        changes.append(
            RankChange(
                network=key if arch is None else describe_arch(arch),
                numbers=(numbers[0][key], numbers[1][key]),
                images_per_s=(speeds[0][i], speeds[1][i]),
                ranks=(ranks[0][i], ranks[1][i]),
            )
        )
    return tuple(sorted(changes, key=lambda own: (-abs(own.ranks[1] - own.ranks[0]), own.ranks[1])))
