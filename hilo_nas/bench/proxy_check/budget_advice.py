"""Which of a proxy training's budgets, and which of its scores, an agreement with long trainings speaks for."""

from __future__ import annotations

import math

from hilo_nas.bench.proxy_check.agreement import BASELINES, LIKELIHOOD, Agreement, ProxyAgreement

__all__ = ["advise_budget"]

_ENOUGH_PAIRS = 30
"""Pairs of like speed without which nothing is said."""


def advise_budget(agreement: Agreement) -> str:
    """Returns in a sentence which budget the agreement among networks of like speed speaks for, and what a count does.

    A budget is one score, top-1 or likelihood, of a training of so many images. It is the cheapest that cannot be told
    from the one with the highest tau, and of one training top-1, if it is one of them: the interval of their
    difference, in the same resamples, holds 0. A budget whose own interval holds 0 ranks no better than chance for all
    that is known, and is never advised. With fewer than 30 pairs of like speed nothing is said of a budget. Beside it
    stands whichever of the counts of parameters and multiply-adds, which cost nothing, has the higher tau.
    """
    if not agreement.budgets:
        return "nothing can be said of a budget, for none was tried"
    pairs = max(budget.tau.like_speed.pairs for budget in agreement.budgets)
    if pairs < _ENOUGH_PAIRS:
        return (
            f"nothing can be said of a budget: at least {_ENOUGH_PAIRS} pairs of networks of like speed must be "
            f"compared, but there were {pairs}. Use more --networks."
        )
    enough = [budget for budget in agreement.budgets if budget.tau.like_speed.pairs >= _ENOUGH_PAIRS]
    ranking = [budget for budget in enough if budget.tau.like_speed.low > 0]
    if not ranking:
        return (
            "no budget can be advised: among networks of like speed, no budget's order can be told from chance. "
            "Use longer budgets, or more --networks."
        )
    best = max(ranking, key=lambda budget: budget.tau.like_speed.value)
    near = [budget for budget in ranking if budget is best or _is_as_good(budget, best)]
    advised = near[0]
    counts = _beside_counts(advised, agreement)
    if advised is best:
        cheaper = "; those that cost no more are behind it by more than chance" if best is not ranking[0] else ""
        return f"{_describe(best)}, the highest of all budgets{cheaper}{counts}"
    return (
        f"{_describe(advised)}: the cheapest that cannot be told from the best, {best.name} at {_cost(best)}, whose "
        f"tau is {best.tau.like_speed.value:.2f} (difference {_gain(advised, best)}){counts}"
    )


def _is_as_good(budget: ProxyAgreement, best: ProxyAgreement) -> bool:
    """Whether a budget's tau may be that of the best; where their difference has no interval, it is not known to be."""
    behind = budget.gains.get(best.name)
    return behind is not None and behind.like_speed.high >= 0


def _beside_counts(budget: ProxyAgreement, agreement: Agreement) -> str:
    """What is to be said of the count that ranks better; empty where none was compared."""
    counts = [proxy for proxy in agreement.proxies if proxy.name in BASELINES and proxy.name in budget.gains]
    counts = [count for count in counts if not math.isnan(count.tau.like_speed.value)]
    if not counts:
        return ""
    count = max(counts, key=lambda count: count.tau.like_speed.value)
    gain = budget.gains[count.name].like_speed
    if gain.low > 0:
        said = f"ranks them better than {count.name} does"
    elif gain.high < 0:
        said = f"ranks them worse than {count.name}, which costs nothing"
    else:
        said = f"cannot be told from {count.name}, which costs nothing"
    return f". {budget.name} {said} (tau {count.tau.like_speed.value:.2f}; difference {_gain(budget, count)})"


def _gain(budget: ProxyAgreement, other: ProxyAgreement) -> str:
    found = budget.gains[other.name].like_speed
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _describe(budget: ProxyAgreement) -> str:
    found = budget.tau.like_speed
    option = f" (--metric {LIKELIHOOD})" if budget.name.startswith(f"{LIKELIHOOD}@") else ""
    return (
        f"use {budget.name}{option}: among networks of like speed it agrees with the long training by a tau of "
        f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] at {_cost(budget)}"
    )


def _cost(budget: ProxyAgreement) -> str:
    return "a cost unknown" if math.isnan(budget.cost_share) else f"{100 * budget.cost_share:.2g} % of a long training"
