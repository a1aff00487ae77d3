"""Recommendation of a budget and a score for proxy trainings, from their agreement with long trainings."""

from __future__ import annotations

import math

from hilo_nas.bench.proxy_check.agreement import BASELINES, LIKELIHOOD, Agreement, ProxyAgreement

__all__ = ["advise_budget"]

_ENOUGH_PAIRS = 30
"""Minimum number of pairs of similar speed for a recommendation."""


def advise_budget(agreement: Agreement) -> str:
    """Returns a sentence that recommends a budget, based on networks of similar speed.

    A budget is one score (top-1 or likelihood) of a training on a number of images, such as `top1@4608`.

    * The recommended budget is the cheapest whose tau does not differ significantly from the highest tau: the 95 %
      interval of the difference of the two taus contains 0.
    * If top-1 and likelihood of one training both qualify, top-1 is recommended.
    * A budget is never recommended if the interval of its tau contains 0, because it may rank no better than chance.
    * With fewer than 30 pairs of similar speed, there is no recommendation.

    The sentence also compares the budget with the count (parameters or multiply-adds) that has the higher tau, because
    counts cost nothing.
    """
    if not agreement.budgets:
        return "no budget can be recommended, because none was tried"
    pairs = max(budget.tau.like_speed.pairs for budget in agreement.budgets)
    if pairs < _ENOUGH_PAIRS:
        return (
            f"no budget can be recommended: at least {_ENOUGH_PAIRS} pairs of networks of similar speed must be "
            f"compared, but there were {pairs}. Use more --networks."
        )
    enough = [budget for budget in agreement.budgets if budget.tau.like_speed.pairs >= _ENOUGH_PAIRS]
    ranking = [budget for budget in enough if budget.tau.like_speed.low > 0]
    if not ranking:
        return (
            "no budget can be recommended: among networks of similar speed, no budget ranks significantly better than "
            "chance. Use longer budgets, or more --networks."
        )
    best = max(ranking, key=lambda budget: budget.tau.like_speed.value)
    advised = next(budget for budget in ranking if budget is best or _is_as_good(budget, best))
    counts = _compare_with_counts(advised, agreement)
    if advised is best:
        cheaper = "; budgets that cost no more are significantly worse" if best is not ranking[0] else ""
        return f"{_describe(best)}, the highest of all budgets{cheaper}{counts}"
    return (
        f"{_describe(advised)}. It is the cheapest budget that is not significantly worse than the best, {best.name} "
        f"at {_cost(best)}, whose tau is {best.tau.like_speed.value:.2f} (difference {_gain(advised, best)}){counts}"
    )


def _is_as_good(budget: ProxyAgreement, best: ProxyAgreement) -> bool:
    """Returns True if a budget is not significantly worse than the best; False if the difference has no interval."""
    behind = budget.gains.get(best.name)
    return behind is not None and behind.like_speed.high >= 0


def _compare_with_counts(budget: ProxyAgreement, agreement: Agreement) -> str:
    """Returns a sentence that compares a budget with the better of the counts; empty if there is none."""
    counts = [proxy for proxy in agreement.proxies if proxy.name in BASELINES and proxy.name in budget.gains]
    counts = [count for count in counts if not math.isnan(count.tau.like_speed.value)]
    if not counts:
        return ""
    count = max(counts, key=lambda count: count.tau.like_speed.value)
    gain = budget.gains[count.name].like_speed
    if gain.low > 0:
        verdict = f"ranks them better than {count.name}"
    elif gain.high < 0:
        verdict = f"ranks them worse than {count.name}, which costs nothing"
    else:
        verdict = f"does not differ significantly from {count.name}, which costs nothing"
    return f". {budget.name} {verdict} (tau {count.tau.like_speed.value:.2f}; difference {_gain(budget, count)})"


def _gain(budget: ProxyAgreement, other: ProxyAgreement) -> str:
    found = budget.gains[other.name].like_speed
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _describe(budget: ProxyAgreement) -> str:
    found = budget.tau.like_speed
    option = f" (--metric {LIKELIHOOD})" if budget.name.startswith(f"{LIKELIHOOD}@") else ""
    return (
        f"use {budget.name}{option}: among networks of similar speed, its tau to the long training is "
        f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] at {_cost(budget)}"
    )


def _cost(budget: ProxyAgreement) -> str:
    return "an unknown cost" if math.isnan(budget.cost_share) else f"{100 * budget.cost_share:.2g} % of a long training"
