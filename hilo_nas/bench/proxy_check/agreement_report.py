"""Report of `hilo-nas proxy check`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.bench.cohort_timing import advise
from hilo_nas.bench.kendall_tau import LIKE_SPEED
from hilo_nas.bench.proxy_check.agreement import BASELINES, LIKELIHOOD, Agreement, Estimate, Taus
from hilo_nas.bench.proxy_check.budget_advice import advise_budget
from hilo_nas.bench.proxy_check.left_out import MODEL
from hilo_nas.measurement import Measurement
from hilo_nas.report import BenchReport, BenchTable, Cloud, TauBar, render_agreement
from hilo_nas.report.benches import Column, between, number, percent, word

__all__ = ["plot_agreement", "report_proxy_check"]

_CEILING = "long training, another seed"
_TITLE = "Proxy rankings compared with a long training"


def report_proxy_check(
    agreement: Agreement,
    *,
    study: str,
    command: str,
    settings: Mapping[str, Any],
    measurements: Sequence[Measurement],
    failures: Mapping[str, str],
    models: Sequence[str] = (),
    with_picture: bool,
) -> BenchReport:
    """Returns the report of the proxies. Rows per network appear in a CSV file only.

    Args:
        agreement: Findings of the check.
        study: Name of the study. File names include it, because a folder may hold several checks.
        command: Command that reproduces the check.
        settings: Settings of the check, including defaults.
        measurements: Timings of the networks.
        failures: Reasons why networks could not be timed or trained, by key.
        models: Sentences about the models of a search (`ProxyCheckFindings.models`).
        with_picture: True to add a plot.

    Raises:
        UsageError: `with_picture` is True and matplotlib is not installed.
    """
    condition = measurements[0].condition
    return BenchReport(
        bench="proxy-check",
        condition=f"{study}-{condition.precision}-b{condition.batch_size}",
        title=_TITLE,
        command=command,
        settings=settings,
        measurements=measurements,
        tables=[_list_proxies(agreement), _list_gains(agreement), _list_networks(agreement)],
        failures=failures,
        advice=advise(measurements),
        headlines=[*_list_headlines(agreement), *models],
        picture=plot_agreement(agreement) if with_picture else "",
    )


def plot_agreement(agreement: Agreement) -> str:
    """Returns a plot of the agreement as SVG text.

    Raises:
        UsageError: matplotlib is not installed.
    """
    clouds = []
    for budget in agreement.budgets:
        if agreement.score_before(budget):
            continue  # draw each training once
        taken = [network for network in agreement.networks if budget.name in network.proxies]
        clouds.append(
            Cloud(
                name=budget.name,
                long_top1=[network.long[0] for network in taken],
                values=[network.proxies[budget.name] for network in taken],
            )
        )
    bars = [_bar(proxy.name, proxy.tau) for proxy in agreement.proxies]
    ceiling = _bar(_CEILING, agreement.ceiling) if agreement.ceiling else None
    return render_agreement(bars, clouds, ceiling=ceiling, title=f"{_TITLE}, {len(agreement.networks)} networks")


def _bar(name: str, taus: Taus) -> TauBar:
    overall, like = ((found.value, found.low, found.high) for found in (taus.overall, taus.like_speed))
    return TauBar(name=name, overall=overall, like_speed=like)


def _list_proxies(agreement: Agreement) -> BenchTable:
    has_mean = any(proxy.tau_to_mean for proxy in agreement.proxies)
    has_target = any(proxy.tau_to_target for proxy in agreement.proxies)
    columns: list[Column] = [
        word("proxy", "proxy"),
        word("networks", "networks"),
        between("tau", "tau", 2),
        between("tau at similar speed", "tau_like_speed", 2),
        word("pairs of similar speed", "tau_like_speed_pairs"),
    ]
    if has_mean:
        columns += [between("tau to the mean of two", "tau_to_mean", 2)]
        columns += [between("same at similar speed", "tau_to_mean_like_speed", 2)]
    if has_target:
        columns += [between("tau at the target's size", "tau_to_target", 2)]
        columns += [between("same at similar speed", "tau_to_target_like_speed", 2)]
    columns += [number("s per network", "seconds", 3), percent("cost %", "cost_share", 2)]
    notes = [
        "tau: Kendall's tau-b to the top-1 of each network's first long training. At similar speed: over pairs whose "
        f"images/s differ by a factor of {LIKE_SPEED:g} at most. Intervals are 95 % intervals from "
        f"{agreement.resamples:,} resamples of the networks. All rows use the same resamples.",
        f"{_CEILING}: the noise ceiling, which is tau between two long trainings with different seeds, on the networks "
        "that were trained twice. A proxy with less noise than a long training can exceed it.",
        f"{LIKELIHOOD}: exp(-loss) of the same training, which is the probability of a held-out image's true class "
        "(geometric mean).",
        f"{MODEL}: prediction of the model of the sampler hilo, from the scores of the other networks after the same "
        "number of images.",
        "images_per_s keeps its sign: a negative tau means that slower networks are better.",
        "cost: seconds divided by those of one long training, on the same networks.",
    ]
    if has_mean:
        notes.append("tau to the mean of two: to the mean of two long trainings, on the networks that have both.")
    if has_target:
        notes.append(
            "tau at the target's size: to a long training at the target's image size. The first row shows the tau of "
            "the long training of this check."
        )
    return BenchTable(title="Agreement of each proxy", rows=_proxy_rows(agreement), columns=columns, notes=notes)


def _proxy_rows(agreement: Agreement) -> list[dict[str, Any]]:
    rows = [
        {
            "proxy": proxy.name,
            "is_budget": proxy.is_budget,
            "networks": proxy.networks,
            **_taus("tau", proxy.tau),
            **_taus("tau_to_mean", proxy.tau_to_mean),
            **_taus("tau_to_target", proxy.tau_to_target),
            "seconds": _known(proxy.seconds),
            "cost_share": _known(proxy.cost_share),
        }
        for proxy in agreement.proxies
    ]
    long = {
        "proxy": _CEILING,
        "is_budget": False,
        "networks": sum(len(network.long) > 1 for network in agreement.networks),
        **_taus("tau", agreement.ceiling),
        **_taus("tau_to_mean", None),
        **_taus("tau_to_target", agreement.long_to_target),
        "seconds": agreement.long_seconds,
        "cost_share": 1.0,
    }
    return [long, *rows]


def _list_gains(agreement: Agreement) -> BenchTable:
    rows = [
        {
            "proxy": proxy.name,
            **{
                key: value
                for baseline in BASELINES
                for key, value in _taus(f"over_{baseline}", proxy.gains.get(baseline)).items()
            },
        }
        for proxy in agreement.proxies
        if proxy.gains
    ]
    columns = [word("proxy", "proxy")]
    for baseline in BASELINES:
        columns += [between(f"tau over {baseline}'", f"over_{baseline}", 2)]
        columns += [between("same at similar speed", f"over_{baseline}_like_speed", 2)]
    return BenchTable(
        name="gains",
        title="Compared with counts of parameters and multiply-adds",
        rows=rows,
        columns=columns,
        notes=[
            "Difference between the taus of a proxy and of a count, on the networks that have both. Both taus use the "
            "same resamples, so the interval is that of the difference. If it contains 0, the count may rank equally "
            "well.",
        ],
    )


def _list_networks(agreement: Agreement) -> BenchTable:
    most = max(len(network.long) for network in agreement.networks)
    names = list(dict.fromkeys(name for network in agreement.networks for name in network.proxies))
    timed = list(dict.fromkeys(name for network in agreement.networks for name in network.seconds))
    rows: list[dict[str, Any]] = [
        {
            "network": network.key,
            "images_per_s": _known(network.images_per_s),
            **{f"long_top1_{i + 1}": network.long[i] if i < len(network.long) else None for i in range(most)},
            "long_seconds": network.long_seconds,
            "target_top1": network.target,
            **{name: network.proxies.get(name) for name in names},
            **{f"{name}_seconds": network.seconds.get(name) for name in timed},
        }
        for network in agreement.networks
    ]
    return BenchTable(name="networks", title="", rows=rows, columns=[], is_shown=False)


def _list_headlines(agreement: Agreement) -> list[str]:
    count = len(agreement.networks)
    lines = [
        f"{count} networks; top-1 of the long training from {100 * agreement.top1_low:.1f} to "
        f"{100 * agreement.top1_high:.1f} %"
    ]
    if agreement.ceiling:
        lines.append(f"noise ceiling (tau between two seeds of the long training): {_format(agreement.ceiling)}")
    else:
        lines.append("the noise ceiling is unknown, because no network has two long trainings")
    if agreement.long_to_target:
        lines.append(f"tau between the long trainings here and at the target: {_format(agreement.long_to_target)}")
    lines += [
        f"tau of {budget.name} minus tau of {other.name}, from the same trainings: {_format(budget.gains[other.name])}"
        for budget in agreement.budgets
        if (other := agreement.score_before(budget))
    ]
    return [*lines, advise_budget(agreement)]


def _format(taus: Taus) -> str:
    return f"{_format_estimate(taus.overall)} over all pairs, {_format_estimate(taus.like_speed)} at similar speed"


def _format_estimate(found: Estimate) -> str:
    if math.isnan(found.value):
        return f"none ({found.pairs} pairs)"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] ({found.pairs} pairs)"


def _taus(key: str, taus: Taus | None) -> dict[str, float | int | None]:
    """Returns the taus as fields of a row: `KEY` and `KEY_like_speed`, each also with `_low`, `_high` and `_pairs`."""
    found: dict[str, float | int | None] = {}
    for end, estimate in (("", taus and taus.overall), ("_like_speed", taus and taus.like_speed)):
        for part in ("value", "low", "high", "pairs"):
            name = f"{key}{end}" if part == "value" else f"{key}{end}_{part}"
            found[name] = _known(getattr(estimate, part)) if estimate else None
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
