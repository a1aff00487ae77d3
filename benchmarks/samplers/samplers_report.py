"""The report of `python -m benchmarks.samplers`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.samplers.curves import (
    Curve,
    Spread,
    area_by_cost,
    area_by_evaluations,
    crossing,
    curve_of,
    draw_weights,
    spread,
)
from benchmarks.samplers.replay import EXTRAPOLATED, FORESEEN, FULL, PRUNED, Replay, SamplersPlan, build_measurement
from benchmarks.tables.table import Table
from hilo_nas.bench.report_notes import plan_settings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import Column, between, number, percent, word
from hilo_nas.searching.configuration.resolve import DEFAULT_SAMPLER
from hilo_nas.study.states import TrialState
from hilo_nas.versions import versions

__all__ = ["report_samplers", "summarize"]

_RANDOM = "random"
_PARTS = (4, 2, 1)
"""Results are given at a quarter, a half and all of the evaluations."""
_COSTS = ("seconds", "images")


def report_samplers(table: Table, plan: SamplersPlan, replays: Sequence[Replay], command: str) -> BenchReport:
    """Returns the report of the searches whose replays are there; the curves go to a CSV file alone.

    Args:
        table: What was replayed on.
        plan: What was asked for.
        replays: What came of it; of each search, all seeds.
        command: What makes it again.
    """
    rows = summarize(table, plan, replays)
    trials = plan.trials_of(table)
    shares = [between(f"at {count} networks", f"share_{part}", 3) for part, count in _checkpoints(trials)]
    main = BenchTable(
        title="What each search found",
        rows=rows,
        columns=[
            word("sampler", "sampler"),
            word("rungs", "rungs"),
            *shares,
            between("over random", "over_random", 2),
            between("at equal cost", "share_at_cost", 3),
            between("mean over networks", "auc_evaluations", 3),
            between("mean over cost", "auc_images", 3),
            percent("seconds %", "seconds", 0),
            percent("images %", "images", 0),
            number("complete", "complete", 3),
        ],
        notes=[
            "Shares of the hypervolume of the whole table, over log images/s and full-budget top-1, both scaled to the "
            "table's own range; the reference point is the table's worst of each. Only fully trained networks count. "
            f"Means of {plan.seeds} replays; intervals are of 95 %, from a bootstrap over seeds, which all searches "
            "share.",
            f"rungs: {FULL}, every network is fully trained; else one of {plan.reduction_factor:g} goes on at "
            f"{' and '.join(f'{images:,}' for images in table.budgets[:-1])} of {table.budgets[-1]:,} images, and of "
            f"those stopped the sampler is told an {EXTRAPOLATED} top-1, or no value ({PRUNED}). {FORESEEN}: scores at "
            "rungs are those of the full training, which no search has: it says what perfect ones would save.",
            f"at equal cost: once the training images of {trials} full trainings are spent. over random: at {trials} "
            "networks, to random search with the same rungs or without. mean over: the area under the curve of the "
            "share, over networks up to that number, and over training images up to that cost.",
            f"seconds, images: what training {trials} networks cost, in parts of what the same search without rungs "
            f"spent. complete: how many of the {trials} were fully trained.",
        ],
    )
    cheaper = BenchTable(
        name="cost",
        title="The same hypervolume for less training",
        rows=[row for row in rows if row["rungs"] != FULL],
        columns=_cost_columns(),
        notes=[
            f"target: what the same sampler finds without rungs with {trials} networks, on average. for this part: "
            "where the mean over seeds reaches it, in parts of what that search spent, which is counted seed by seed; "
            "never: not up to equal cost in images.",
            "first reached: the same of each replay by itself, averaged; one that never reaches the target counts "
            "with all that it spent, so a mean with such is a lower bound. reached: how many did.",
        ],
    )
    return BenchReport(
        bench="samplers",
        title=f"Searches replayed on {table.manifest.name}",
        command=command,
        settings={
            **plan_settings(plan),
            "table": table.manifest.name,
            "networks": len(table.rows),
            "space": f"{table.space.name} {table.space.hash()}",
            "data": table.manifest.data.name,
            "budgets": list(table.budgets),
            "recipe": table.manifest.plan.recipe,
            "replayed with": versions(),
        },
        measurements=[build_measurement(row, table) for row in table.rows],
        tables=[
            main,
            cheaper,
            BenchTable(name="curves", title="", rows=_list_steps(replays), columns=[], is_shown=False),
        ],
        headlines=_list_headlines(rows, plan, trials),
        condition=table.manifest.name,
    )


def _cost_columns() -> list[Column]:
    columns = [word("sampler", "sampler"), word("rungs", "rungs"), number("target", "target", 3)]
    for unit in _COSTS:
        columns.append((f"for this part of the {unit}", _percent_between(f"same_{unit}")))
    for unit in _COSTS:
        columns.append((f"first reached, by {unit}", _percent_between(f"first_{unit}")))
    return [*columns, word("reached", "reached")]


def _percent_between(key: str) -> Any:
    def text(row: Mapping[str, Any]) -> str:
        return _say_percent(_spread(row, key))

    return text


def _checkpoints(trials: int) -> list[tuple[int, int]]:
    """Into how many parts the evaluations are cut, and how many one part has."""
    return [(part, max(1, round(trials / part))) for part in _PARTS]


def summarize(table: Table, plan: SamplersPlan, replays: Sequence[Replay]) -> list[dict[str, Any]]:
    """Returns a row for each search, with every figure's mean and the ends of its interval."""
    trials = plan.trials_of(table)
    weights_RS = draw_weights(plan.seeds)
    cells = {
        cell: [replay for replay in replays if (replay.sampler, replay.rungs) == cell] for cell in plan.list_cells()
    }
    rows = []
    for (sampler, rungs), mine in cells.items():
        if not mine:
            continue
        full = cells[sampler, FULL]
        row: dict[str, Any] = {"sampler": sampler, "rungs": rungs, "seeds": len(mine), "trials": trials}
        for part, count in _checkpoints(trials):
            row |= _fields(f"share_{part}", spread([_share(replay, count) for replay in mine], weights_RS))
        budget = trials * table.budgets[-1]
        at_cost = [curve_of(replay, "images").share_at(budget) for replay in mine]
        row |= _fields("share_at_cost", spread(at_cost, weights_RS))
        areas = [area_by_evaluations(replay.steps, trials) for replay in mine]
        row |= _fields("auc_evaluations", spread(areas, weights_RS))
        areas = [area_by_cost(curve_of(replay, "images"), budget) for replay in mine]
        row |= _fields("auc_images", spread(areas, weights_RS))
        found = [_share(replay, trials) for replay in mine]
        own_full = [_share(replay, trials) for replay in full]
        gains = [a - b for a, b in zip(at_cost, own_full, strict=True)]
        row |= _fields("gain_at_cost", spread(gains, weights_RS))
        others = cells.get((_RANDOM, rungs if (_RANDOM, rungs) in cells else EXTRAPOLATED), [])
        if others and sampler != _RANDOM:
            gains = [a - _share(other, trials) for a, other in zip(found, others, strict=True)]
            row |= _fields("over_random", spread(gains, weights_RS))
            gains = [a - curve_of(other, "images").share_at(budget) for a, other in zip(at_cost, others, strict=True)]
            row |= _fields("over_random_at_cost", spread(gains, weights_RS))
        for unit in _COSTS:
            row |= _costs(unit, mine, full, trials, weights_RS)
        row["target"] = sum(own_full) / len(own_full)
        reached = sum(replay.steps[-1].share >= row["target"] for replay in mine)
        row["reached"] = f"{reached} of {len(mine)}"
        row["complete"] = _mean(
            [sum(step.state == TrialState.COMPLETE for step in replay.steps[:trials]) for replay in mine]
        )
        row["evaluations_at_cost"] = _mean([len(replay.steps) for replay in mine])
        row["replay_seconds"] = _mean([replay.replay_seconds for replay in mine])
        rows.append(row)
    return rows


def _costs(unit: str, mine: Sequence[Replay], full: Sequence[Replay], trials: int, weights_RS: Any) -> dict[str, Any]:
    """What a search cost beside the one without rungs, and for which part of that cost it found the same."""
    spent = [getattr(_step(replay, trials), unit) for replay in full]
    targets = [_share(replay, trials) for replay in full]
    target = sum(targets) / len(targets)
    curves = [curve_of(replay, unit, scale) for replay, scale in zip(mine, spent, strict=True)]
    first = [_first(curve, target) for curve in curves]
    shares = [getattr(_step(replay, trials), unit) / scale for replay, scale in zip(mine, spent, strict=True)]
    return {
        unit: _mean(shares),
        **_fields(f"same_{unit}", crossing(curves, targets, weights_RS)),
        **_fields(f"first_{unit}", spread(first, weights_RS)),
    }


def _first(curve: Curve, target: float) -> float:
    cost = curve.cost_of(target)
    return curve.costs[-1] if math.isinf(cost) else cost


def _step(replay: Replay, evaluations: int) -> Any:
    return replay.steps[min(evaluations, len(replay.steps)) - 1]


def _share(replay: Replay, evaluations: int) -> float:
    return float(_step(replay, evaluations).share)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _fields(key: str, found: Spread) -> dict[str, float]:
    return {key: found.mean, f"{key}_low": found.low, f"{key}_high": found.high}


def _list_steps(replays: Sequence[Replay]) -> list[dict[str, Any]]:
    return [
        {"sampler": replay.sampler, "rungs": replay.rungs, "seed": replay.seed, **dataclasses.asdict(step)}
        for replay in replays
        for step in replay.steps
    ]


# Sentences.


def _list_headlines(rows: Sequence[Mapping[str, Any]], plan: SamplersPlan, trials: int) -> list[str]:
    by_cell = {(row["sampler"], row["rungs"]): row for row in rows}
    return [
        *_say_samplers(by_cell, trials, plan.trials_share),
        *(line for sampler in plan.samplers for line in _say_rungs(by_cell, sampler, trials)),
        *(line for sampler in plan.samplers for line in _say_foreseen(by_cell, sampler)),
        *(line for sampler in plan.samplers for line in _say_told(by_cell, sampler)),
    ]


def _say_samplers(cells: Mapping[tuple[str, str], Mapping[str, Any]], trials: int, share: float) -> list[str]:
    """Which sampler finds most without rungs, and how the default one stands beside random search."""
    full = {sampler: row for (sampler, rungs), row in cells.items() if rungs == FULL}
    if not full:
        return []
    best = max(full, key=lambda sampler: full[sampler]["share_1"])
    lines = [
        f"without rungs, {best} finds most with {trials} networks ({share:.0%} of the table): "
        f"{_say(full[best], 'share_1')} of the hypervolume"
    ]
    row = full.get(DEFAULT_SAMPLER)
    if row is not None and "over_random" in row:
        lines.append(
            f"{DEFAULT_SAMPLER}, the default of `hilo-nas search`, finds {_say(row, 'share_1')}, random search "
            f"{_say(full[_RANDOM], 'share_1')}: {_judge(row, 'over_random')}"
        )
    return lines


def _say_rungs(cells: Mapping[tuple[str, str], Mapping[str, Any]], sampler: str, trials: int) -> list[str]:
    """What rungs save, and what they find for the same money."""
    row = cells.get((sampler, EXTRAPOLATED))
    if row is None:
        return []
    costs = " and ".join(f"{_say_percent(_spread(row, f'same_{unit}'))} of the {unit}" for unit in _COSTS)
    return [
        f"{sampler} with rungs needs, for what it finds without ({row['target']:.3f}), {costs}; at the cost of "
        f"{trials} full trainings it finds {_say(row, 'share_at_cost')}: {_judge(row, 'gain_at_cost')}"
    ]


def _say_foreseen(cells: Mapping[tuple[str, str], Mapping[str, Any]], sampler: str) -> list[str]:
    """What rungs would save if no score at them misled."""
    row = cells.get((sampler, FORESEEN))
    if row is None:
        return []
    costs = " and ".join(f"{_say_percent(_spread(row, f'same_{unit}'))} of the {unit}" for unit in _COSTS)
    return [f"{sampler} would need {costs} if rungs showed what the full training reaches"]


def _say_told(cells: Mapping[tuple[str, str], Mapping[str, Any]], sampler: str) -> list[str]:
    """Which way of telling a sampler about stopped networks serves it better."""
    found = [cells[sampler, rungs] for rungs in (EXTRAPOLATED, PRUNED) if (sampler, rungs) in cells]
    if len(found) < 2:
        return []
    better = max(found, key=lambda row: row["auc_images"])
    values = ", ".join(f"{row['rungs']} {_say(row, 'auc_images')}" for row in found)
    return [f"{sampler}: stopped networks are better told as {better['rungs']} (mean share over the cost: {values})"]


def _judge(row: Mapping[str, Any], key: str) -> str:
    found = _spread(row, key)
    if math.isnan(found.low):
        return f"a difference of {found.mean:+.3f}, from one seed"
    word = "more" if found.low > 0 else "less" if found.high < 0 else "not to be told apart"
    return f"{word} ({found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}])"


def _say(row: Mapping[str, Any], key: str) -> str:
    found = _spread(row, key)
    return f"{found.mean:.3f}" + f" [{found.low:.3f}, {found.high:.3f}]" * (not math.isnan(found.low))


def _spread(row: Mapping[str, Any], key: str) -> Spread:
    return Spread(mean=row[key], low=row[f"{key}_low"], high=row[f"{key}_high"])


def _say_percent(found: Spread) -> str:
    value, low, high = ("never" if math.isinf(end) else f"{100 * end:.0f}" for end in dataclasses.astuple(found))
    value += " %" * math.isfinite(found.mean)
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"
