"""Which of a proxy training's budgets an agreement with long trainings speaks for."""

from __future__ import annotations

import math

from hilo_nas.bench.agreement import Agreement, Estimate, ProxyAgreement

__all__ = ["advise_budget"]

_NEAR = 0.05
"""How far below the noise ceiling a tau may stay and still count as having reached it."""
_ENOUGH_PAIRS = 30
"""Pairs of like speed without which nothing is said."""


def advise_budget(agreement: Agreement) -> str:
    """Returns in a sentence which budget the agreement among networks of like speed speaks for.

    It is the cheapest whose interval reaches within 0.05 of the noise ceiling, else that with the highest tau; a budget
    whose interval holds 0 ranks no better than chance for all that is known, and is never advised. With fewer than 30
    pairs of like speed nothing is said of a budget, nor of the ceiling.
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
    ceiling = agreement.ceiling.like_speed if agreement.ceiling else None
    if ceiling is None or ceiling.pairs < _ENOUGH_PAIRS or math.isnan(ceiling.value):
        return (
            f"{_describe(best)}, which is the most; how much more there is to gain is not known, for the ceiling "
            f"needs {_ENOUGH_PAIRS} pairs of like speed with two long trainings, but there were "
            f"{ceiling.pairs if ceiling else 0}"
        )
    reaching = [budget for budget in ranking if budget.tau.like_speed.high >= ceiling.value - _NEAR]
    if reaching:
        advised = f"{_describe(reaching[0])}: the cheapest whose interval reaches {_near(ceiling)}"
        most = f"; the highest tau is {best.tau.like_speed.value:.2f}, of {best.name} at {_cost(best)}"
        return advised + (most if best is not reaching[0] else "")
    return f"{_describe(best)}, which is the most, but no budget's interval reaches {_near(ceiling)}"


def _describe(budget: ProxyAgreement) -> str:
    found = budget.tau.like_speed
    return (
        f"use {budget.name}: among networks of like speed it agrees with the long training by a tau of "
        f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}] at {_cost(budget)}"
    )


def _near(ceiling: Estimate) -> str:
    return f"within {_NEAR:g} of the ceiling ({ceiling.value:.2f})"


def _cost(budget: ProxyAgreement) -> str:
    return "a cost unknown" if math.isnan(budget.cost_share) else f"{100 * budget.cost_share:.2g} % of a long training"
