"""Output of `hilo-nas front`: the front of a study, recommendations and predicted networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from hilo_nas.arch.config import describe_arch
from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.differences import print_differences
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.hints import confirm_command, remeasure_command, resume_hint
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import MOST_TIES, Column, metric_of, print_fitting, print_front_table, rows_of
from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.measurement.fields import to_plain
from hilo_nas.measurement.verdicts import verdict_name
from hilo_nas.proxy.kinds import metric_named
from hilo_nas.study.csv_files import render_front
from hilo_nas.study.descriptions import describe_outlook, describe_proxy
from hilo_nas.study.front import Front
from hilo_nas.study.further_conditions import further_targets
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.posteriors import Posteriors, PredictedNetwork
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy, open_view
from hilo_nas.study.trial_choice import Recommendation, recommend
from hilo_nas.study.trial_differences import TrialDifference, compare_trials, nearest_trials
from hilo_nas.text.commands import command, setting_words
from hilo_nas.text.figures import figure, is_wide, probability_text
from hilo_nas.text.plurals import agree, count_of

__all__ = ["Wish", "print_front", "print_study"]

_MOST_NEAR = 8
"""Maximum number of networks near another one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wish:
    """What the user asks of a network."""

    limits: Mapping[str, float]
    """Bounds by the names of `hilo_nas.study.trial_choice.recommend`, such as `images_per_s`."""
    min_score: float | None
    """Smallest score, in the unit of the table."""
    at_knee: bool
    near: int | None
    """Number of the trial whose neighbours are shown instead of the front."""

    @property
    def is_given(self) -> bool:
        """True if the user asks for anything."""
        return bool(self.limits) or self.min_score is not None or self.at_knee or self.near is not None

    def recommend(self, study: StoredStudy) -> Recommendation | None:
        """Returns the network that meets the wish. None if no limit, score or knee is given."""
        if not (self.limits or self.min_score is not None or self.at_knee):
            return None
        scale = metric_named(study.manifest.plan.score_metric).scale
        min_value = None if self.min_score is None else self.min_score / scale
        return recommend(study, limits=self.limits, min_value=min_value, at_knee=self.at_knee)


def print_study(name: str, wish: Wish, output: Format, *, predicted: bool) -> None:
    """Prints the front of a study, given by its name or folder, and what the user asks for.

    Args:
        name: Name or folder of the study, or `STUDY@CONDITION`.
        wish: What the user asks for. CSV needs an empty wish.
        output: Output format.
        predicted: True to add networks that were not trained.

    Raises:
        NotFoundError: There is no such study, or no network meets the wish.
        UsageError: The study has no such condition, or predictions under a further condition are asked for.
    """
    opened = open_view(name)
    if predicted and opened.is_view:
        raise UsageError(
            f"--predicted needs the objective of a study, but got {opened.title}: only speeds under the objective are "
            f"predicted. Use {command('front', opened.address, '--predicted')}"
        )
    found = _forecast(name) if predicted else None
    recommended, missed = None, None
    try:
        recommended = wish.recommend(opened)
    except NotFoundError as error:
        if not predicted:
            raise
        missed = str(error)
    min_images_per_s = wish.limits.get("images_per_s")
    if output is Format.csv:
        echo(render_front(opened.front(), ties=True), nl=False)
    elif output is Format.json:
        content = _build_content(opened)
        if predicted:
            rows = _predicted_rows(found, min_images_per_s)
            content |= {"predicted": to_plain(tuple(rows)), "outlook": to_plain(found.outlook if found else ())}
        if recommended is not None:
            content["recommended"] = {
                "trial": recommended.record.number,
                "best_probabilities": {str(number): p for number, p in recommended.best_probabilities.items()},
                "sentences": recommended.sentences(),
            }
        if wish.near is not None:
            content["near"] = [dataclasses.asdict(row) for row in _near(opened, wish.near)]
        echo_content(content, output)
    else:
        console = build_console()
        if wish.near is None:
            print_front(opened, console)
        else:
            metric = metric_named(opened.manifest.plan.score_metric)
            print_differences(_near(opened, wish.near), wish.near, metric, console)
        for sentence in recommended.sentences() if recommended else [missed] * (missed is not None):
            console.print(sentence, highlight=False, markup=False, soft_wrap=True)
        if predicted:
            _print_predicted(opened, found, min_images_per_s, console)


def _near(study: StoredStudy, number: int) -> list[TrialDifference]:
    front = study.front()
    numbers = nearest_trials(front, number, at_most=_MOST_NEAR)
    return compare_trials(front, study.manifest.space, number, numbers)


def _forecast(study: str) -> Posteriors | None:
    from hilo_nas import api  # its imports are slow

    return api.load_study(study).forecast()


def _predicted_rows(found: Posteriors | None, min_images_per_s: float | None) -> list[PredictedNetwork]:
    rows = found.predicted if found is not None else ()
    return [own for own in rows if own.images_per_s >= (min_images_per_s or 0.0)]


def _print_predicted(
    study: StoredStudy, found: Posteriors | None, min_images_per_s: float | None, console: Console
) -> None:
    """Prints the predicted networks, what further trainings may gain, and the command for them."""
    if found is None:
        console.print("No predictions: too few networks are timed and trained.")
        return
    rows, metric = _predicted_rows(found, min_images_per_s), metric_named(study.manifest.plan.score_metric)
    limit = f" of at least {figure(min_images_per_s)} images/s" if min_images_per_s else ""
    console.print(f"\n{count_of(len(rows), 'predicted network')}{limit} that no trained network is expected to beat")
    if rows:
        space, scale = study.manifest.space, metric.scale
        columns = [
            Column("images/s", [f"{figure(own.images_per_s, 3)}{'*' * own.is_timed}" for own in rows]),
            Column("95 %", [f"{figure(own.images_per_s_low, 3)}-{figure(own.images_per_s_high, 3)}" for own in rows]),
            Column(metric.heading, [f"{scale * own.value:.{metric.decimals}f}" for own in rows]),
            Column(
                "95 % ",
                [
                    f"{scale * own.value_low:.{metric.decimals}f}-{scale * own.value_high:.{metric.decimals}f}"
                    for own in rows
                ],
            ),
            Column("P(feasible)", [probability_text(own.feasible_probability, is_short=True) for own in rows], rank=1),
            Column("key", [own.key for own in rows], rank=2),
            Column("architecture", [describe_arch(space.decode(own.params)) for own in rows], rank=3, justify="left"),
        ]
        shown = [own for own in columns if own.name != "P(feasible)" or set(own.cells) != {">99%"}]
        print_fitting(shown, console, other_format="json")
        text = "Predicted by models of the speeds and scores of this study, not measured (* timed)."
        console.print(text, style="dim", soft_wrap=True)
    for outlook in found.outlook:
        console.print(describe_outlook(outlook, metric), highlight=False, soft_wrap=True)
    hint = resume_hint(study.address, trials=min(len(rows), 10) or 5)
    console.print(f"Train those with the largest expected gains: {hint.command}", markup=False, soft_wrap=True)


def _build_content(study: StoredStudy) -> dict[str, Any]:
    """Returns the front, its ties and its comparisons as plain data."""
    front = study.front()
    probabilities = front.probabilities()
    standings: dict[str, list[dict[str, Any]]] = {"anchor": [], "baseline": []}
    for standing in front.standings:
        fields = dataclasses.asdict(standing)
        name, number = fields.pop("name"), fields.pop("number")
        row = {standing.kind: name, "trial": number, **fields, "sentence": standing.sentence()}
        standings[standing.kind].append(row)
    return {
        "study": study.name,
        "condition": study.manifest.objective.label(),
        "seed_noise": front.seed_noise,
        "front": [
            {
                **record.to_dict(),
                **_speed_of(record),
                "seeds": record.score.seeds if record.score else 0,
                "on_front_probability": probabilities[record.number],
                "verdict": verdict_name(record.measurement) if record.measurement else None,
            }
            for record in front.members
        ],
        "tied": [
            {"trial": number, "tied_with": list(rivals), "on_front_probability": probabilities[number]}
            for number, rivals in front.ties.items()
        ],
        "anchors": standings["anchor"],
        "baselines": standings["baseline"],
    }


def _speed_of(record: TrialRecord) -> dict[str, float | None]:
    """Returns a record's images/s with the 95 % interval."""
    measured = record.measurement
    low, high = (measured and measured.images_per_s_interval) or (None, None)
    speed = measured.images_per_s if measured else None
    return {"images_per_s": speed, "images_per_s_low": low, "images_per_s_high": high}


def print_front(study: StoredStudy, console: Console) -> None:
    """Prints the front as a table, with the conditions of its figures and a comparison with each anchor and baseline.

    A study without a proxy has no front. Its timings are summarized instead.

    Args:
        study: Study with the front.
        console: Console to print on.
    """
    manifest, front = study.manifest, study.front()
    untrained = [record for record in front.untrained if not record.is_baseline]
    if not manifest.plan.declaration.gives_scores:
        _print_timed(study, console)
        return
    if not front.members:
        text = "no complete trial that trained" if untrained else "no complete trial yet"
        console.print(f"study {study.title} has {text}", highlight=False)
        _print_untrained(untrained, console)
        return
    console.print(_heading(study.title, front))
    anchors = {anchor.arch.key() for anchor in manifest.space.anchors}
    print_front_table(front, anchors, console, limits=manifest.limits_in_force)
    shown = [record for record in rows_of(front) if record.measurement]
    console.print(_legend(manifest, front, shown), style="dim", soft_wrap=True)
    _print_warnings(front.members, shown, _remeasure_hint(manifest, study.address), console)
    _print_untrained(untrained, console)
    if not front.believed and study.posteriors_path.is_file():
        console.print(
            "P(front) and ties use the scores alone, because the stored posteriors are older than the records. "
            f"The next search renews them: {resume_hint(study.address).command}",
            markup=False,
            soft_wrap=True,
        )
    for standing in front.standings:
        console.print(standing.sentence(), highlight=False, soft_wrap=True)
    for condition in () if study.is_view else further_targets(manifest):
        way = command("front", f"{study.address}@{condition.label()}")
        device = manifest.calibrations[condition.label()].device.model
        console.print(f"The front of {device}: {way}", highlight=False, markup=False, soft_wrap=True)
    scores = [record.score for record in front.members if record.score]
    if all(score.seeds == 1 and score.loss is not None for score in scores):  # only trainings have a loss
        text = (
            f"Each score comes from one seed, so some may be lucky. Confirm the front: {confirm_command(study.address)}"
        )
        console.print(text, markup=False, soft_wrap=True)


def _heading(name: str, front: Front) -> str:
    """Returns a sentence with the number of networks on the front, tied with it and stopped."""
    members, ties = front.members, front.ties
    scored = sum(record.state == TrialState.COMPLETE and not record.is_baseline for record in front.records)
    text = f"{name}: {len(members)} of {scored} scored networks {agree(len(members), 'is', 'are')} on the front"
    if ties:
        text += f", {len(ties)} {agree(len(ties), 'is', 'are')} tied with it (~)"
        if len(ties) > MOST_TIES:
            text += f", of which the {MOST_TIES} most likely ones are shown"
    if stopped := sum(record.state == TrialState.STOPPED for record in front.records):
        text += f"; {stopped} more stopped at a rung"
    return text


def _legend(manifest: Manifest, front: Front, shown: Sequence[TrialRecord]) -> str:
    """Returns the explanation of the table's columns and marks."""
    condition, device = manifest.objective, manifest.device
    lines = [
        f"images/s: {condition.label()} on {device.model}, torch {device.torch}",
        "p50 ms, p95 ms, MiB: time of one call (a limit on latency applies to p95), peak memory of one call",
        f"{metric_named(manifest.plan.score_metric).title}: {describe_proxy(manifest)}",
        _legend_of_spread(shown, front.seed_noise),
        "n: number of trainings with different seeds. The score is their mean",
        "P(front): probability that no other network is both faster and better, given these intervals",
        "* anchor   ~ tied: other trials are better, but with a probability below 95 %",
    ]
    if front.believed:
        lines[-2] += ". A score counts with the scores of similar networks"
    if front.baselines:
        lines.append("+ baseline, not a candidate of the search")
    if manifest.speeds:
        lines.append(f"timed by study {manifest.speeds}")
    return "\n".join(lines)


def _print_warnings(members: Sequence[TrialRecord], shown: Sequence[TrialRecord], hint: str, console: Console) -> None:
    """Prints warnings about speeds of different forms or protocols, and about timings while others used the cores.

    Args:
        members: Trials on the front.
        shown: Timed rows of the table.
        hint: Command that times them again.
        console: Console to print on.
    """
    if len({(m.form, m.protocol) for record in members if (m := record.measurement)}) > 1:
        text = f"These speeds were not all measured in the same way. Time them again: {hint}"
        console.print(text, markup=False, soft_wrap=True)
    contended = {record.number: m for record in shown if (m := record.measurement) and m.contention}
    if not contended:
        return
    worst = max(contended.values(), key=lambda m: m.contention_error)
    assert worst.contention is not None
    one, many = ("is", "its", "it", "trial"), ("are", "their", "them", "trials")
    are, their, them, trials = one if len(contended) == 1 else many
    console.print(
        f"{len(contended)} of these timings {are} contended ({trials} {', '.join(map(str, contended))}): "
        f"{worst.contention.text}, so {their} ± is wider. Time {them} again when nothing else runs: {hint}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _print_timed(study: StoredStudy, console: Console) -> None:
    """Prints a summary of a study without a proxy, and the command for a search with its timings."""
    manifest = study.manifest
    timings = [m for record in study.records if (m := record.measurement) and manifest.is_comparable(m)]
    if not timings:
        console.print(f"study {study.title} has no timings yet", highlight=False)
        return
    spans = [
        f"{figure(min(values), 3)} to {figure(max(values), 3)} {unit}"
        for field, unit in (("images_per_s", "images/s"), ("latency_ms_p50", "ms p50"), ("latency_ms_p95", "ms p95"))
        if (values := [value for timing in timings if (value := getattr(timing, field)) is not None])
    ]
    space = manifest.space.name
    console.print(
        f"{study.title}: {len(timings)} networks of {space} timed but not scored, {', '.join(spans)}\n"
        f"at {manifest.objective.label()} on {manifest.device.model}. Each is a row of {study.path / 'trials.csv'}.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if not study.is_view:  # such a search has all conditions of this study, in their order
        words = setting_words({"study.speeds": study.address, "study.name": "NAME"})
        way = command("search", space, *words, "--device", "cuda", "--data", "DATA")
        console.print(
            f"To search among them on the machine with the images: {way}",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _legend_of_spread(shown: Sequence[TrialRecord], noise: float) -> str:
    """Returns the meaning of ± in the table and in the sentences below it."""
    text = "±: half of a 95 % interval; for images/s including the error of the calibration"
    if noise:
        metric = metric_of(shown)
        text += f", for {metric.title} including the noise of a seed ({metric.spread_text(noise)})"
    if any(record.measurement and record.measurement.images_per_s_low is None for record in shown):  # protocol 1
        text += "; for timings without an interval, the robust spread of a round"
    speeds = [record.measurement for record in shown if record.measurement]
    if any(is_wide(speed.images_per_s, speed.images_per_s_half_width) for speed in speeds):
        text += "; ×/÷: factor of an interval that is too wide for ±"
    return text


def _remeasure_hint(manifest: Manifest, study: str) -> str:
    """Returns the command that times a study's networks again. If another study timed them, it names that study."""
    return remeasure_command(study if manifest.speeds is None else manifest.speeds)


def _print_untrained(records: Sequence[TrialRecord], console: Console) -> None:
    """Prints the trials that are excluded from the front because their score is not better than guessing."""
    if not records:
        return
    numbers = ", ".join(str(record.number) for record in records)
    console.print(
        f"did not train, so not on the front: trial {numbers} (the score is not distinguishable from guessing). "
        "Use a new study with a larger --proxy-images to train them for longer.",
        soft_wrap=True,
    )
