"""`hilo-nas status`: how far a study is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated

import typer
from rich.markup import escape

from hilo_nas.cli.console import build_console, echo
from hilo_nas.cli.hints import resume_hint
from hilo_nas.cli.options import StudyArgument
from hilo_nas.cli.stored_table import find_stored_table, print_table_status
from hilo_nas.cli.text import describe_proxy, duration
from hilo_nas.figures import share_text
from hilo_nas.plurals import count_of
from hilo_nas.records import TrialRecord
from hilo_nas.rounds import verdict_name
from hilo_nas.space import limit_text
from hilo_nas.states import TrialState
from hilo_nas.study import open_study

__all__ = ["HELP", "run"]

_MOST_NUMBERS = 20

HELP = """Show how far a study is, what it cost, and why trials failed.

Example: hilo-nas status my-gpu"""


def run(
    study: StudyArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Write it as JSON.")] = False,
) -> None:
    """Prints the state of a study."""
    opened = open_study(study)
    table = find_stored_table(opened)
    if table is not None:
        print_table_status(opened, table, as_json=as_json)
        return
    manifest, records, front = opened.manifest, opened.records, opened.front()
    states = Counter(record.state for record in records if not record.is_peer)
    peers: dict[str, str | None] = dict.fromkeys(manifest.peers)
    tried = [record for record in records if record.is_peer and record.state != TrialState.TIMED]
    peers |= {record.key: record.state for record in tried}
    measured = sum(map(manifest.counts, records))
    begun = [record for record in records if record.started_at is not None]  # not what was copied and not tried yet
    # In studies of earlier versions a retry had a record of its own, with the same measurements.
    made = manifest.created_at  # what was copied is older, and was paid for elsewhere
    timings = [(r, m) for r in begun for m in r.measurements if m.measured_at >= made]
    timing = sum({(r.key, m.measured_at, m.condition.label()): m.seconds for r, m in timings}.values())
    scores = [(r, s) for r in begun for s in r.scores if s.scored_at >= made]
    training = sum({(r.key, s.seed, s.images_seen): s.seconds for r, s in scores}.values())
    images = _images_trained(begun)
    searching = sum(next(iter(seen.values())) for seen in images.values())
    confirming = sum(sum(seen.values()) for seen in images.values()) - searching
    in_full = len(images) * manifest.plan.budgets[-1]
    in_trials = sum(record.seconds for record in records)
    verdicts = Counter(verdict_name(record.measurement) for record in records if record.measurement)
    contended = [record.number for record in records if record.measurement and record.measurement.contention]
    verdicts.pop(None, None)  # protocol 1 gave none
    if as_json:
        content = {
            "study": opened.name,
            "measured": measured,
            "total": manifest.trials,
            "states": dict(states),
            "verdicts": dict(verdicts),
            "contended": contended,
            "front": [record.number for record in front.members],
            "peers": peers,
            "timing_s": timing,
            "training_s": training,
            "trials_s": in_trials,
            "images_trained": searching,
            "images_in_full": in_full,
            "images_of_further_seeds": confirming,
        }
        echo(json.dumps(content, indent=1))
        return
    console = build_console(soft_wrap=True)
    condition = manifest.objective
    console.print(
        f"[bold]{escape(opened.name)}[/]: {measured} of {manifest.trials} networks measured, "
        f"{len(front.members)} on the front",
        markup=True,
    )
    rows = {
        "space": f"{manifest.space.name} ({manifest.space.n_configs:,} settings)",
        "target": f"{condition.label()} on {manifest.device.model} (torch {manifest.device.torch})",
        "proxy": describe_proxy(manifest, whole=True),
        "sampler": f"{manifest.sampler}, seed {manifest.seed}",
        "trials": ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "none yet",
        "spent": f"{duration(in_trials)} in trials, of which {duration(timing)} timing, {duration(training)} training",
    }
    if images:
        rows["trained"] = (
            f"{searching:,} images, {share_text(searching / in_full)} of the full trainings of "
            f"{'this network' if len(images) == 1 else f'these {len(images)} networks'}"
        )
        if confirming:
            rows["trained"] += f"; {confirming:,} more with further seeds"
    if peers:
        rows["peers"] = ", ".join(f"{name} ({state or 'not tried yet'})" for name, state in peers.items())
    if front.untrained:
        untrained = ", ".join(str(record.number) for record in front.untrained)
        rows["untrained"] = f"trial {untrained}: the score cannot be told from guessing"
    if verdicts:
        rows["machine"] = ", ".join(
            f"{count_of(count, 'timing')} {verdict}" for verdict, count in verdicts.most_common()
        )
        if contended:
            rows["machine"] += f"; contended: trial {_shortened(contended)}"
    if limits := manifest.limits_in_force:
        rows["limits"] = ", ".join(limit_text(name, bound) for name, bound in limits.items())
    if manifest.speeds:
        rows["timed by"] = f"study {manifest.speeds}"
    for name, value in rows.items():
        console.print(f"  {name + ':':9} {value}")
    for reason, numbers in _reasons(records, limits).items():
        console.print(f"  {reason}: trial {_shortened(numbers)}")
    if measured < manifest.trials:
        console.print(f"Resume with: {resume_hint(opened.address).command}")


def _shortened(numbers: Sequence[int]) -> str:
    """Returns the first numbers of a list, and how many more there are."""
    more = f" and {len(numbers) - _MOST_NUMBERS} more" if len(numbers) > _MOST_NUMBERS else ""
    return ", ".join(map(str, numbers[:_MOST_NUMBERS])) + more


def _images_trained(records: Sequence[TrialRecord]) -> dict[str, dict[int, int]]:
    """Images seen by key and seed, a network's first seed first; a training's last score tells all that it has seen."""
    images: dict[str, dict[int, int]] = {}
    for record in records:
        for score in record.scores:
            seen = images.setdefault(record.key, {})
            seen[score.seed] = max(seen.get(score.seed, 0), score.images_seen)
    return images


def _reasons(records: Sequence[TrialRecord], limits: Mapping[str, float]) -> dict[str, list[int]]:
    """Trials by what stopped them; values differ from trial to trial, so limits are grouped by their law."""
    reasons: dict[str, list[int]] = {}
    for record in records:
        if record.reason:
            broken = [
                limit_text(name, limits[name]) for name, by in record.violations.items() if by > 0 and name in limits
            ]
            is_beyond = record.state == TrialState.INFEASIBLE and broken
            why = f"{' and '.join(broken)} is a limit" if is_beyond else record.reason[:160]
            reasons.setdefault(f"{record.state}: {why}", []).append(record.number)
    return reasons
