"""Plot of how much each knob matters for speed and for the value."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping

import plotly.graph_objects as go

from hilo_nas.errors import UsageError
from hilo_nas.report.plots.style import build_figure
from hilo_nas.report.study_view import StudyView

__all__ = ["knob_importances", "plot_importances"]

_MOST = 500
"""Maximum number of networks, evenly spaced by their trials. Of 3,000 networks,
500 and all gave importances within 0.02, in 7 and 35 CPU s."""
_FEWEST = 10
"""Minimum number of networks. The forest of fANOVA explains noise with fewer."""


def plot_importances(view: StudyView) -> go.Figure:
    """Returns the share of the variance of log images/s and of the value that each knob explains (fANOVA).

    Args:
        view: The study.

    Raises:
        UsageError: The study has fewer than 10 complete trials of its space, or the values do not vary.
    """
    found = knob_importances(view)
    labels = {"images/s": "images/s", "value": view.metric.short}
    colours = {"images/s": "#0072B2", "value": "#E69F00"}
    order = sorted(found["value"], key=lambda name: found["value"][name] + found["images/s"][name])
    built = build_figure("Importance of the knobs", x="share of the variance (fANOVA)")
    for target, shares in found.items():
        built.add_trace(
            go.Bar(
                orientation="h",
                y=order,
                x=[shares[name] for name in order],
                name=labels[target],
                marker={"color": colours[target]},
                hovertemplate="%{y}: %{x:.0%}",
            )
        )
    built.update_xaxes(tickformat=".0%", rangemode="tozero")
    built.update_layout(barmode="group", bargap=0.25)
    return built


def knob_importances(view: StudyView) -> Mapping[str, dict[str, float]]:
    """Returns the importance of each knob by parameter name, for `images/s` (on a log scale) and for `value`.

    Optuna's `FanovaImportanceEvaluator` computes them with a fixed seed from the complete networks of the space
    (Hutter et al. 2014). Numbers count as ordered, kinds of attention do not.

    Raises:
        UsageError: As for `plot_importances`.
    """
    import optuna

    own = [n for n in view.networks if n.place.is_complete and n.knobs and n.images_per_s and n.value is not None]
    if len(own) < _FEWEST:
        raise UsageError(f"importances need at least {_FEWEST} complete networks, but study {view.name} has {len(own)}")
    own = own[:: -(-len(own) // _MOST)]
    knobs = {knob.param: knob.choices for knob in view.manifest.space.knobs if knob.param in own[0].knobs}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.CategoricalDistribution(list(map(str, choices)))
        if any(isinstance(choice, str) for choice in choices)
        else optuna.distributions.IntDistribution(0, len(choices) - 1)
        for name, choices in knobs.items()
    }

    def choice(name: str, value: object) -> int | str:
        categorical = isinstance(distributions[name], optuna.distributions.CategoricalDistribution)
        return str(value) if categorical else knobs[name].index(value)

    found = {}
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else Optuna reports each study that it creates
    try:
        for target, values in (
            ("images/s", [math.log(n.images_per_s or 1.0) for n in own]),
            ("value", [n.value or 0.0 for n in own]),
        ):
            if max(values) <= min(values):
                raise UsageError(
                    f"importances need networks that differ, but all of study {view.name} have one {target}"
                )
            study = optuna.create_study()
            study.add_trials(
                [
                    optuna.trial.create_trial(
                        params={name: choice(name, n.knobs[name]) for name in knobs},
                        distributions=distributions,
                        value=v,
                    )
                    for n, v in zip(own, values, strict=True)
                ]
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
            found[target] = {**dict.fromkeys(knobs, 0.0), **shares}
    finally:
        optuna.logging.set_verbosity(level)
    return found
