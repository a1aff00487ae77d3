"""What is said while a search runs: a line per thing on a pipe, a live picture on a terminal."""

import io
import sys

import pytest
from rich.console import Console

from hilo_nas.cli.console import IS_QUIET, build_console
from hilo_nas.cli.display import build_display
from hilo_nas.cli.live_view import LiveView
from hilo_nas.events import (
    CalibrationStarted,
    CohortTimed,
    ConfirmationForeseen,
    CostForeseen,
    DeviceAwaited,
    FrontChanged,
    LimitsForeseen,
    NetworkPrepared,
    NetworksTimed,
    Notice,
    RoundTimed,
    RungReached,
    SearchFinished,
    SearchStarted,
    SeedScored,
    TrainingProgressed,
    TrialFinished,
    TrialStarted,
)


def say(*events, is_terminal=False):
    """What the events make the display print, without colours."""
    console = Console(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=100, highlight=False)
    with build_display(console) as display:
        for event in events:
            display(event)
            if is_terminal:
                console.print(display.render())
    return console.file.getvalue()


def foreseen(**fields):
    values = {
        "limits": ("images_per_s >= 900", "latency_ms <= 20 at cpu-b1-32px-fp32"),
        "networks": 12,
        "keeping": 5,
        "share_low": 0.193,
        "share_high": 0.681,
        "smallest_keeps": True,
        "seen": ("images_per_s: 310 to 1900", "latency_ms@cpu-b1-32px-fp32: 3 to 40"),
    }
    return LimitsForeseen(**{**values, **fields})


LAW = "images_per_s >= 900 and latency_ms <= 20 at cpu-b1-32px-fp32"
SEEN = "measured images_per_s: 310 to 1900; latency_ms@cpu-b1-32px-fp32: 3 to 40"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (foreseen(), f"{LAW}: met by 5 of 12 sampled networks, timed briefly (19% to 68% of the space); {SEEN}"),
        (
            foreseen(keeping=12, share_low=0.757, share_high=1.0),
            f"{LAW}: met by 12 of 12 sampled networks, timed briefly (76% to 100% of the space); {SEEN}",
        ),
        (
            foreseen(keeping=0, share_low=0.0, share_high=0.243),
            f"{LAW}: met by none of 12 sampled networks, but by the smallest of the space (at most 24% of the space); "
            f"{SEEN}",
        ),
        (
            foreseen(keeping=0, share_low=0.0, share_high=0.243, smallest_keeps=False),
            f"{LAW}: met by none of 12 sampled networks, timed briefly, and not by the smallest of the space; {SEEN}. "
            "It is unlikely that a network meets it. Loosen the limit, or search a space with smaller networks.",
        ),
        (CostForeseen(trials=40, total_s=4321.0, seconds=3.0), "40 networks will take about 1 h 12 min"),
        (
            CohortTimed(networks=9, condition="cpu-b1", verdict="steady", text="3 % of the blocks", seconds=14.2),
            "9 networks timed side by side at cpu-b1 in 14 s: steady",
        ),
        (
            CohortTimed(networks=9, condition="cpu-b1", verdict="bursty", text="[quiet] please", seconds=14.2),
            "9 networks timed side by side at cpu-b1 in 14 s: bursty\nwarning: [quiet] please",
        ),
        (DeviceAwaited(device="the CPU", holders=("a [x]", "b")), "waiting for the CPU: a [x]; b"),
        (DeviceAwaited(device="the CPU", holders=()), "waiting for the CPU: another process"),
        (NetworksTimed(done=16, total=1000), "16 of 1000 networks timed"),
        (Notice(text="[0] was left out", level="warning"), "warning: [0] was left out"),
        (Notice(text="plain [1]"), "plain [1]"),
        (
            SearchStarted(study="s [2]", done=1, total=9, device="cpu (a CPU)"),
            "study s [2] on cpu (a CPU): 1 of 9 networks measured",
        ),
    ],
)
def test_a_pipe_gets_a_line_for_what_its_reader_looks_for(event, text):
    assert say(event) == f"{text}\n"


def finished(**fields):
    values = {"number": 3, "key": "0123456789ab", "images_per_s": 950.4, "value": 0.5, "reason": None}
    return TrialFinished(**{**values, "seconds": 12.0, "measured": 4, "total": 9, "state": "complete", **fields})


def test_a_pipe_gets_a_line_per_trial():
    assert say(finished()) == "trial   3 (4/9) 0123456789ab     950.4 images/s  top-1  50.0 %  12 s\n"
    named = finished(network="p2 16-32-64-128 x 1-1-2-1, mlp 4 [3: 2/4 lofi, s=2]")
    assert "(4/9) p2 16-32-64-128 x 1-1-2-1, mlp 4 [3: 2/4 lofi, s=2]     950.4 images/s" in say(named)
    broken = finished(state="infeasible", reason="latency_ms <= 20 is a limit, but got [25]", value=None)
    assert say(broken) == ("trial   3 (4/9) 0123456789ab  infeasible: latency_ms <= 20 is a limit, but got [25]\n")


@pytest.mark.parametrize(
    "event",
    [
        CalibrationStarted(condition="c"),
        NetworkPrepared(name="k", done=1, total=9),
        RoundTimed(condition="c", round=1, rounds=16, images_per_s=10.0),
        TrainingProgressed(images_seen=1, images_total=2, loss=0.5),
        TrialStarted(number=1, key="k", params_m=1.0, gmacs=0.1, origin="sampler"),
        SearchFinished(study="s", measured=9, total=9, stopped_by="total", seconds=3.0),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_pipe_hears_nothing_of_what_happens_too_often(event):
    assert say(event) == ""


@pytest.mark.parametrize("event", [NetworkPrepared(name="timm:[x]", done=1, total=9), Notice(text="3 were copied")])
def test_a_pipe_hears_of_each_network_where_a_command_times_a_few(event):
    console = Console(file=io.StringIO(), color_system=None, width=100, highlight=False)
    with build_display(console, shows_networks=True) as display:
        display(event)
    is_notice = isinstance(event, Notice)
    assert console.file.getvalue() == ("3 were copied\n" if is_notice else "1/9 timm:[x] is ready to be timed\n")


def test_a_terminal_sees_the_phase_under_way():
    shown = say(
        CalibrationStarted(condition="cpu-b1"),
        DeviceAwaited(device="the CPU", holders=("study a",)),
        SearchStarted(study="s", done=1, total=9, device="cpu (a CPU)"),
        FrontChanged(points=((900.0, 0.5),)),
        TrialStarted(number=1, key="k", params_m=1.25, gmacs=0.1, origin="sampler"),
        RoundTimed(condition="c", round=4, rounds=16, images_per_s=1234.0),
        TrainingProgressed(images_seen=1000, images_total=2000, loss=0.5),
        finished(images_per_s=1000.0, value=0.4),
        FrontChanged(points=((1000.0, 0.4), (900.0, 0.5))),
        NetworkPrepared(name="k", done=2, total=9),
        CohortTimed(networks=9, condition="cpu-b1", verdict="steady", text="", seconds=14.2),
        is_terminal=True,
    )
    for text in (
        "timing the reference at cpu-b1",
        "waiting for the CPU: study a",
        "trial 1 (1.25 M params): building",
        "trial 1 (1.25 M params): timing: 1,234 images/s",
        "trial 1 (1.25 M params): training: 1,000 of 2,000 images, loss 0.500",
        "preparing 2 of 9 networks",
        "9 networks timed side by side at cpu-b1 in 14 s: steady",
        "front: 900/s 50.0 %   1000/s 40.0 %",
        "4/9",
    ):
        assert text in shown


def test_a_terminal_names_all_running_trials():
    started = [TrialStarted(number=number, key="k", params_m=1.25, gmacs=0.1, origin="sampler") for number in (3, 4)]
    progress = TrainingProgressed(images_seen=1000, images_total=2000, loss=0.5)
    begun = SearchStarted(study="s", done=1, total=9, device="cuda (2 x a card)")
    shown = say(begun, *started, progress, finished(), progress, is_terminal=True)
    assert "trials 3, 4: running" in shown
    assert "trial 4 (1.25 M params): training: 1,000 of 2,000 images, loss 0.500" in shown


def test_a_terminal_counts_the_networks_that_were_stopped():
    shown = say(
        SearchStarted(study="s", done=3, total=9, device="cpu", stopped=1),
        finished(state="stopped", reason="others did better after 334 of 3,008 images"),
        finished(measured=5),
        is_terminal=True,
    )
    assert "3/9 (1 stopped)" in shown
    assert "4/9 (2 stopped)" in shown
    assert "5/9 (2 stopped)" in shown
    assert "stopped)" not in say(SearchStarted(study="s", done=3, total=9, device="cpu"), is_terminal=True)


def test_a_confirmation_is_estimated_and_reported_seed_by_seed():
    assert say(ConfirmationForeseen(networks=4, trainings=8, seconds=480.0)) == (
        "confirming 4 networks with further seeds: 8 trainings, about 8 min 0 s\n"
    )
    assert say(SeedScored(number=3, seed=1, value=0.75, done=2, total=8)) == ("2/8 trial 3, seed 1: top-1 75.0 %\n")


def test_a_baseline_is_named_while_it_runs():
    started = TrialStarted(number=1, key="timm:swift", params_m=None, gmacs=None, origin="baseline:swift")
    begun = SearchStarted(study="demo", done=1, total=4, device="cpu")
    assert "trial 1 (timm:swift): building" in say(begun, started, is_terminal=True)


def test_a_score_that_is_no_share_of_images_is_shown_as_it_is():
    line = say(finished(metric="mine.py:score", value=-1234.56))
    assert line == "trial   3 (4/9) 0123456789ab     950.4 images/s  mine.py:score   -1235  12 s\n"
    seed = SeedScored(number=1, seed=2, value=31.25, done=1, total=6, metric="zico")
    assert say(seed) == "1/6 trial 1, seed 2: zico 31.25\n"
    shown = say(
        SearchStarted(study="s", done=1, total=9, device="cpu", metric="zico"),
        FrontChanged(points=((900.0, 12.5),)),
        TrialStarted(number=1, key="k", params_m=1.25, gmacs=0.1, origin="sampler"),
        TrainingProgressed(images_seen=3000, images_total=2000, score=7.5),
        RungReached(number=1, images_seen=1, images_total=1, value=12.5, goes_on=False, metric="zico"),
        is_terminal=True,
    )
    for text in ("training: 3,000 images, score 7.5", "scored: 12.5", "front: 900/s 12.5"):
        assert text in shown
    assert "%" not in shown.split("front: ")[-1]


def view(height, width=100, now=None):
    """A live view on a terminal of that size, and the text that it renders."""
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system=None, width=width, height=height, highlight=False
    )
    live = LiveView(console, lambda event: None, clock=now or (lambda: 0.0))

    def render():
        with console.capture() as shown:
            console.print(live.render())
        return shown.get()

    return live, render


def test_a_high_terminal_shows_the_front_as_it_grows():
    live, render = view(height=30)
    live(SearchStarted(study="s", done=0, total=9, device="cpu"))
    for number, (speed, value) in enumerate([(1000.0, 0.2), (500.0, 0.4), (400.0, 0.3)]):
        live(finished(number=number, state="complete", images_per_s=speed, value=value))
    live(FrontChanged(points=((1000.0, 0.2), (500.0, 0.4))))
    text = render()
    assert text.count("●") == 2
    assert text.count("·") == 1
    assert "front:" not in text
    low, render = view(height=10)
    low(FrontChanged(points=((1000.0, 0.2), (500.0, 0.4), (100.0, 0.5))))
    assert "front: 100/s 50.0 %" in render()


def test_the_speed_of_a_training_is_shown_from_its_second_report():
    clock = iter([0.0, 10.0, 12.0])
    live, render = view(height=10, now=lambda: next(clock))
    live(TrainingProgressed(images_seen=100, images_total=2000, loss=0.5))
    assert "images/s" not in render()
    live(TrainingProgressed(images_seen=500, images_total=2000, loss=0.4))
    assert "500 of 2,000 images, 200 images/s, loss 0.400" in render()


def test_every_state_that_is_not_complete_is_counted():
    live, render = view(height=10)
    live(SearchStarted(study="s", done=2, total=9, device="cpu", stopped=1))
    for state in ("stopped", "infeasible", "failed"):
        live(finished(state=state, value=None))
    assert "(2 stopped, 1 infeasible, 1 failed)" in render()


def test_a_rung_tells_whether_the_training_goes_on():
    live, render = view(height=10)
    live(RungReached(number=1, images_seen=500, images_total=2000, value=0.25, goes_on=True))
    assert "scored after 500 images: 25.0 %, goes on" in render()


NOTES = (
    Notice(text="3 networks were copied"),
    Notice(level="warning", text="the disk is [nearly] full"),
    CohortTimed(networks=2, condition="cpu-b1", verdict="bursty", text="other work was seen", seconds=3),
    CohortTimed(networks=2, condition="cpu-b1", verdict="steady", text="nothing was seen", seconds=3),
)


@pytest.fixture
def quiet():
    token = IS_QUIET.set(True)
    yield
    IS_QUIET.reset(token)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_quiet_search_shows_warnings_only(quiet, is_terminal):
    console = Console(file=io.StringIO(), force_terminal=is_terminal, color_system=None, width=100, highlight=False)
    with build_display(console) as display:
        for event in NOTES:
            display(event)
    assert console.file.getvalue() == "warning: the disk is [nearly] full\nwarning: other work was seen\n"


def test_a_terminal_without_colours_gets_no_escape_codes(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = build_console()
    assert console.is_terminal
    with build_display(console) as display:
        for event in NOTES:
            display(event)
    console.print("[bold red]done[/]", markup=True)
    text = sys.stdout.getvalue()
    assert "\x1b" not in text
    assert text.splitlines()[0] == "3 networks were copied"
    assert text.splitlines()[-1] == "done"
