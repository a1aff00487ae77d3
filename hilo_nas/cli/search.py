"""`hilo-nas search`: run a search, or resume one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import HOURS_HELP, OptionalSpace
from hilo_nas.cli.settings import takes_settings
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.text.commands import FLAGS
from hilo_nas.text.durations import duration

if TYPE_CHECKING:
    from rich.console import Console

    from hilo_nas.api import Study
    from hilo_nas.events import Event, SearchFinished

__all__ = ["EXAMPLES", "HELP", "run"]

HELP = """Search for networks that are fast on this machine and accurate.

Without arguments, it searches the shipped space litv2_digits with scikit-learn's digits on the available device. A
second call resumes the search. With only --study, it resumes that study. With --hours, no trial begins after that
time, and a new study is planned for it, as by `hilo-nas plan`. `hilo-nas config` lists all settings."""
EXAMPLES = """Examples:
hilo-nas search
hilo-nas search litv2_cifar --device cuda --data cifar10/train.tar --study gpu
hilo-nas search --study gpu --trials 40
hilo-nas search --data cifar10/train.tar --img-size 32 --hours 8 --study cifar
hilo-nas search --proxy mine.py:score --proxy-images 2000 --study mine
hilo-nas search litv2_cifar --proxy none --trials 1000 --study edge-box
hilo-nas search --set study.speeds=edge-box --data cifar10/train.tar"""

_ENDINGS = {
    "total": "all done",
    "timeout": "timeout reached",
    "gain": "ten more networks are expected to gain less than search.min_gain",
    "exhausted": "the space has no further network within the limits",
}


@takes_settings(*FLAGS)
def run(
    config: SearchConfig,
    space: OptionalSpace = None,
    hours: Annotated[
        float | None, typer.Option(metavar="HOURS", help=HOURS_HELP, rich_help_panel="Trials", show_default=False)
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate the cost, from brief runs of a few networks.")
    ] = False,
) -> None:
    """Runs the search, or estimates its cost."""
    config = config if space is None else dataclasses.replace(config, space=space)
    if dry_run:
        _print_cost(config, hours, build_console())
    else:
        _search(config, hours, build_console())


def _search(config: SearchConfig, hours: float | None, console: Console) -> None:
    from hilo_nas.searching.opening.study_lock import check_unlocked

    if config.study.name is not None:
        check_unlocked(config.study.name)  # refuses a second search before the slow imports

    from hilo_nas import api
    from hilo_nas.cli.display import build_display
    from hilo_nas.cli.front_output import print_front
    from hilo_nas.cli.hints import hints_after_search, resume_hint
    from hilo_nas.events import SearchFinished, SearchStarted

    address: str | None = None
    finished: SearchFinished | None = None
    own = dataclasses.asdict(config.evaluator)  # a study does not store who does the work
    settings = {f"evaluator.{name}": value for name, value in own.items() if value is not None}
    try:
        with build_display(console) as display:

            def receive(event: Event) -> None:
                nonlocal address, finished
                if isinstance(event, SearchStarted):
                    address = config.study.name or event.study
                elif isinstance(event, SearchFinished):
                    finished = event
                display(event)

            study = api.search(config=config, hours=hours, on_event=receive)
    except KeyboardInterrupt:
        hint = "Start it again with the same command."
        if address is not None:
            hint = f"Resume with: {resume_hint(address, settings=settings).command}"
        build_console(stderr=True).print(hint, soft_wrap=True)
        raise
    assert finished is not None
    if not study.manifest.plan.declaration.gives_scores:
        _print_timings(study, finished, console)
        return
    console.print()
    print_front(study, console)
    notes, hints = hints_after_search(
        study.address,
        study.manifest,
        study.front(),
        is_exhausted=finished.stopped_by == "exhausted",
        settings=settings,
    )
    lines = [
        f"\n{finished.measured} of {finished.total} networks measured, {_ENDINGS[finished.stopped_by]}; this run took "
        f"{duration(finished.seconds)}. Records: {study.path}",
        *notes,
        *_describe_gain(study),
        "Next:",
        *(f"  {hint.line()}" for hint in hints),
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _describe_gain(study: Study) -> list[str]:
    """Returns a sentence about further trainings; none without posteriors."""
    from hilo_nas.proxy.kinds import metric_named
    from hilo_nas.study.descriptions import describe_outlook

    if study.posteriors is None or not study.posteriors.outlook:
        return []
    metric = metric_named(study.manifest.plan.score_metric)
    return [f"Expected gain of {describe_outlook(study.posteriors.outlook[-1], metric)}"]


def _print_timings(study: Study, finished: SearchFinished, console: Console) -> None:
    """Prints the result of a study without a proxy, and the command for a search with its timings."""
    from hilo_nas.cli.front_output import print_front

    console.print()
    print_front(study, console)
    ending = _ENDINGS[finished.stopped_by]
    console.print(
        f"{finished.measured} of {finished.total} networks timed, {ending}; this run took "
        f"{duration(finished.seconds)}. Records: {study.path}",
        markup=False,
        soft_wrap=True,
    )


def _print_cost(config: SearchConfig, hours: float | None, console: Console) -> None:
    from hilo_nas import api
    from hilo_nas.cli.display import build_display

    with build_display(console) as display:
        cost = api.estimate_cost(config=config, hours=hours, on_event=display)
    console.print(
        f"{duration(cost.timing_s)} timing + {duration(cost.training_s)} training per trial "
        f"(median of {cost.networks} networks; {duration(cost.trial_s[0])} to {duration(cost.trial_s[1])} in total)\n"
        f"{cost.trials} trials: about {duration(cost.total_s)}, including {duration(cost.set_up_s)} of set-up",
        markup=False,
        soft_wrap=True,
    )
    if cost.baselines:
        console.print(f"baselines ({cost.baselines}): about {duration(cost.baselines_s)} of that")
    if cost.trials_by_timeout is not None:
        console.print(f"about {cost.trials_by_timeout} trials within the timeout")
    if cost.confirmation_s is not None:
        console.print(
            f"plus confirmation of the front: about {duration(cost.confirmation_s)} per {cost.confirmed} networks"
        )
    console.print(f"disk: {cost.disk_mib:,.0f} MiB (decoded images and records)")
