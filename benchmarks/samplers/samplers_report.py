"""Report of `python -m benchmarks.samplers`."""

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
from benchmarks.samplers.model_checks import ModelCheck
from benchmarks.samplers.replay import (
    BRIEF_COHORT_ERROR,
    BRIEF_ERROR,
    BRIEF_S,
    EXTRAPOLATED,
    FULL,
    ORACLE,
    PRUNED,
    Replay,
    SamplersPlan,
    build_measurement,
    list_checkpoints,
)
from benchmarks.tables.table import Table
from hilo_nas.bench.report_notes import plan_settings
from hilo_nas.report import BenchReport, BenchTable
from hilo_nas.report.benches import Column, between, number, percent, word
from hilo_nas.searching.configuration.resolve import DEFAULT_SAMPLER
from hilo_nas.study.states import TrialState
from hilo_nas.versions import versions

__all__ = ["report_samplers", "summarize"]

_RANDOM = "random"
_COSTS = ("seconds", "images")


def report_samplers(table: Table, plan: SamplersPlan, replays: Sequence[Replay], command: str) -> BenchReport:
    """Returns the report of the searches that have replays. Curves appear in a CSV file only.

    Args:
        table: Table of the replays.
        plan: Settings of the replays.
        replays: Replays, with all seeds of each search.
        command: Command that reproduces them.
    """
    rows = summarize(table, plan, replays)
    trials = plan.trials_of(table)
    shares = [between(f"at {count} networks", f"share_{part}", 3) for part, count in _checkpoints(trials)]
    main = BenchTable(
        title="Hypervolume found by each search",
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
            "range of the table. The reference point is the worst value of each in the table. Only fully trained "
            f"networks count. Means of {plan.seeds} replays, with 95 % intervals from a bootstrap over seeds. All "
            "searches use the same resamples.",
            f"rungs: with {FULL}, every network is fully trained. Else 1 of {plan.reduction_factor:g} continues at "
            f"{' and '.join(f'{images:,}' for images in table.budgets[:-1])} of {table.budgets[-1]:,} images. For "
            f"stopped networks, the sampler receives an {EXTRAPOLATED} top-1, or no value ({PRUNED}). {ORACLE}: scores "
            "at rungs are those of the full training, which real searches do not have. This shows the saving with "
            "perfect scores.",
            "hilo: stops a training at a rung if its expected gain per second is less than half of that of another "
            "one, and continues it later if it has the largest gain. It also times networks before it proposes one; "
            f"such a timing is assumed to take {BRIEF_S:g} s and to have an error of {BRIEF_ERROR:.0%}, and one of "
            f"{BRIEF_COHORT_ERROR:.0%} that all networks timed together share.",
            *_describe_judge(table),
            f"at equal cost: after the training images of {trials} full trainings. over random: difference to random "
            f"search at {trials} networks, with the same rungs or without. mean over: area under the curve of the "
            "share, over networks up to that number, and over training images up to that cost.",
            f"seconds, images: cost of {trials} networks, relative to the same search without rungs. Seconds are those "
            "of trainings and timings. "
            f"complete: number of fully trained networks among the {trials}.",
        ],
    )
    cheaper = BenchTable(
        name="cost",
        title="Training cost for the same hypervolume",
        rows=[row for row in rows if row["rungs"] != FULL],
        columns=_cost_columns(),
        notes=[
            f"target: mean share that the same sampler finds without rungs with {trials} networks. for this part: cost "
            "at which the mean over seeds reaches the target, relative to the cost of the search without rungs with "
            "the same seed. never: not reached at equal cost in images.",
            "first reached: mean over replays of the cost at which each replay reaches the target. A replay that never "
            "reaches it counts with its full cost, so the mean is then a lower bound. reached: number of replays that "
            "reached it.",
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
            *([_list_models(replays)] if any(replay.models for replay in replays) else []),
            BenchTable(name="curves", title="", rows=_list_steps(replays), columns=[], is_shown=False),
        ],
        headlines=_list_headlines(rows, plan, trials),
        condition=f"{table.manifest.name}-known-speeds" if plan.speeds else table.manifest.name,
    )


def _describe_judge(table: Table) -> list[str]:
    """Returns a sentence about the seeds of trainings that judge the searches, if the table has any."""
    seeds = sorted({seed for row in table.rows for seed in row.other_top1})
    if not seeds:
        return []
    others = ", ".join(map(str, seeds))
    return [f"The searches see the trainings with seed {table.manifest.seed}. Those with seed {others} judge them."]


def _list_models(replays: Sequence[Replay]) -> BenchTable:
    """Returns the error and the calibration of the models of hilo, by the number of trainings."""
    checks = [check for replay in replays for check in replay.models]
    found: dict[int, list[ModelCheck]] = {}
    for check in checks:
        found.setdefault(check.trained, []).append(check)
    rows = []
    for trained, own in sorted(found.items()):
        row: dict[str, Any] = {"trained": trained, "replays": len(own)}
        weights_RS = draw_weights(len(own))
        for field in dataclasses.fields(ModelCheck):
            if field.name != "trained":
                values = [getattr(check, field.name) for check in own]
                is_known = not any(map(math.isnan, values))
                row |= _fields(field.name, spread(values, weights_RS)) if is_known else {}
        rows.append(row)
    return BenchTable(
        name="models",
        title="Models of hilo during its searches without rungs",
        rows=rows,
        columns=[
            word("trained", "trained"),
            number("timed", "timed", 3),
            between("value: error", "value_error", 2),
            between("in 80 %", "value_held_80", 2),
            between("in 95 %", "value_held_95", 2),
            between("tau", "tau", 2),
            between("tau of params", "tau_params", 2),
            between("tau of macs", "tau_macs", 2),
            between("log images/s: error", "speed_error", 2),
            between("in 80 % ", "speed_held_80", 2),
            between("in 95 % ", "speed_held_95", 2),
        ],
        notes=[
            "Predictions for the networks that were not trained (value) or not timed (log images/s), compared with the "
            "table. in 80 %, in 95 %: share of the results within intervals of this width. Means over replays, with "
            "95 % intervals from a bootstrap over seeds.",
        ],
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
        return _format_percent(_spread(row, key))

    return text


def _checkpoints(trials: int) -> list[tuple[int, int]]:
    """Returns pairs of a divisor (4, 2, 1) and the number of evaluations that it gives."""
    return list(zip((4, 2, 1), list_checkpoints(trials), strict=True))


def summarize(table: Table, plan: SamplersPlan, replays: Sequence[Replay]) -> list[dict[str, Any]]:
    """Returns a row for each search, with means and their intervals."""
    trials = plan.trials_of(table)
    weights_RS = draw_weights(plan.seeds)
    cells = {
        cell: [replay for replay in replays if (replay.sampler, replay.rungs) == cell] for cell in plan.list_cells()
    }
    rows = []
    for (sampler, rungs), own in cells.items():
        if not own:
            continue
        full = cells[sampler, FULL]
        row: dict[str, Any] = {"sampler": sampler, "rungs": rungs, "seeds": len(own), "trials": trials}
        for part, count in _checkpoints(trials):
            row |= _fields(f"share_{part}", spread([_share(replay, count) for replay in own], weights_RS))
        budget = trials * table.budgets[-1]
        at_cost = [curve_of(replay, "images").share_at(budget) for replay in own]
        row |= _fields("share_at_cost", spread(at_cost, weights_RS))
        areas = [area_by_evaluations(replay.steps, trials) for replay in own]
        row |= _fields("auc_evaluations", spread(areas, weights_RS))
        areas = [area_by_cost(curve_of(replay, "images"), budget) for replay in own]
        row |= _fields("auc_images", spread(areas, weights_RS))
        found = [_share(replay, trials) for replay in own]
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
            row |= _costs(unit, own, full, trials, weights_RS)
        row["target"] = sum(own_full) / len(own_full)
        reached = sum(replay.steps[-1].share >= row["target"] for replay in own)
        row["reached"] = f"{reached} of {len(own)}"
        row["complete"] = _mean(
            [sum(step.state == TrialState.COMPLETE for step in replay.steps[:trials]) for replay in own]
        )
        row["evaluations_at_cost"] = _mean([len(replay.steps) for replay in own])
        row["replay_seconds"] = _mean([replay.replay_seconds for replay in own])
        rows.append(row)
    return rows


def _costs(unit: str, own: Sequence[Replay], full: Sequence[Replay], trials: int, weights_RS: Any) -> dict[str, Any]:
    """Returns costs relative to the search without rungs: in total, and until the same hypervolume is found."""
    spent = [getattr(_step(replay, trials), unit) for replay in full]
    targets = [_share(replay, trials) for replay in full]
    target = sum(targets) / len(targets)
    curves = [curve_of(replay, unit, scale) for replay, scale in zip(own, spent, strict=True)]
    first = [_first(curve, target) for curve in curves]
    shares = [getattr(_step(replay, trials), unit) / scale for replay, scale in zip(own, spent, strict=True)]
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
        *_compare_samplers(by_cell, trials, plan.trials_share),
        *(line for sampler in plan.samplers for line in _describe_rungs(by_cell, sampler, trials)),
        *(line for sampler in plan.samplers for line in _describe_oracle(by_cell, sampler)),
        *(line for sampler in plan.samplers for line in _compare_reporting(by_cell, sampler)),
    ]


def _compare_samplers(cells: Mapping[tuple[str, str], Mapping[str, Any]], trials: int, share: float) -> list[str]:
    """Returns sentences about the best sampler without rungs, and about the default sampler and random search."""
    full = {sampler: row for (sampler, rungs), row in cells.items() if rungs == FULL}
    if not full:
        return []
    best = max(full, key=lambda sampler: full[sampler]["share_1"])
    lines = [
        f"without rungs, {best} finds the most with {trials} networks ({share:.0%} of the table): "
        f"{_format(full[best], 'share_1')} of the hypervolume"
    ]
    row = full.get(DEFAULT_SAMPLER)
    if row is not None and "over_random" in row:
        lines.append(
            f"{DEFAULT_SAMPLER}, the default of `hilo-nas search`, finds {_format(row, 'share_1')}, random search "
            f"{_format(full[_RANDOM], 'share_1')}: {_judge(row, 'over_random')}"
        )
    return lines


def _describe_rungs(cells: Mapping[tuple[str, str], Mapping[str, Any]], sampler: str, trials: int) -> list[str]:
    """Returns a sentence about the saving through rungs, and about the result at equal cost."""
    row = cells.get((sampler, EXTRAPOLATED))
    if row is None:
        return []
    costs = " and ".join(f"{_format_percent(_spread(row, f'same_{unit}'))} of the {unit}" for unit in _COSTS)
    return [
        f"{sampler} with rungs needs {costs} to find the same as without rungs ({row['target']:.3f}); at the cost of "
        f"{trials} full trainings it finds {_format(row, 'share_at_cost')}: {_judge(row, 'gain_at_cost')}"
    ]


def _describe_oracle(cells: Mapping[tuple[str, str], Mapping[str, Any]], sampler: str) -> list[str]:
    """Returns a sentence about the saving with perfect scores at rungs."""
    row = cells.get((sampler, ORACLE))
    if row is None:
        return []
    costs = " and ".join(f"{_format_percent(_spread(row, f'same_{unit}'))} of the {unit}" for unit in _COSTS)
    return [f"{sampler} would need {costs} if scores at rungs were those of the full training"]


def _compare_reporting(cells: Mapping[tuple[str, str], Mapping[str, Any]], sampler: str) -> list[str]:
    """Returns a sentence that compares the two ways of reporting stopped networks to the sampler."""
    found = [cells[sampler, rungs] for rungs in (EXTRAPOLATED, PRUNED) if (sampler, rungs) in cells]
    if len(found) < 2:
        return []
    better = max(found, key=lambda row: row["auc_images"])
    values = ", ".join(f"{row['rungs']} {_format(row, 'auc_images')}" for row in found)
    return [f"{sampler}: it is better to report stopped networks as {better['rungs']} (mean over cost: {values})"]


def _judge(row: Mapping[str, Any], key: str) -> str:
    found = _spread(row, key)
    if math.isnan(found.low):
        return f"a difference of {found.mean:+.3f}, from one seed"
    verdict = "more" if found.low > 0 else "less" if found.high < 0 else "no significant difference"
    return f"{verdict} ({found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}])"


def _format(row: Mapping[str, Any], key: str) -> str:
    found = _spread(row, key)
    return f"{found.mean:.3f}" + f" [{found.low:.3f}, {found.high:.3f}]" * (not math.isnan(found.low))


def _spread(row: Mapping[str, Any], key: str) -> Spread:
    return Spread(mean=row[key], low=row[f"{key}_low"], high=row[f"{key}_high"])


def _format_percent(found: Spread) -> str:
    value, low, high = ("never" if math.isinf(end) else f"{100 * end:.0f}" for end in dataclasses.astuple(found))
    value += " %" * math.isfinite(found.mean)
    return value if math.isnan(found.low) else f"{value} [{low}, {high}]"
