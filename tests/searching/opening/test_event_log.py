"""The study's log: every event becomes a line that can be read back, the finest ones are only passed on."""

import json

import pytest

from hilo_nas.events import (
    BenchStepped,
    Calibrated,
    CalibrationChanged,
    CalibrationStarted,
    CohortTimed,
    ConfirmationForeseen,
    CostForeseen,
    DataPrepared,
    DataRead,
    DeviceAwaited,
    Event,
    FrontChanged,
    LimitsForeseen,
    NetworkPrepared,
    NetworksTimed,
    Notice,
    OtherProxyScored,
    RoundTimed,
    RungReached,
    SearchFinished,
    SearchPlanned,
    SearchStarted,
    SeedScored,
    TrainingProgressed,
    TrainingStarted,
    TrialFinished,
    TrialStarted,
    event_from_dict,
    event_to_dict,
)
from hilo_nas.searching.opening.event_log import EventLog

FINE = [
    RoundTimed(condition="c", round=1, rounds=16, images_per_s=10.0),
    TrainingProgressed(images_seen=1, images_total=2, loss=0.5),
    DataPrepared(done=1, total=None),
]
"""Too many to be kept."""
EVENTS = [
    Notice(text="a warning", level="warning"),
    DataRead(summary={"n_scored": 12}),
    DeviceAwaited(device="the CPU", holders=("study a", "study b")),
    CalibrationStarted(condition="c"),
    Calibrated(condition="c", images_per_s=320.0),
    CalibrationChanged(condition="c", old_images_per_s=320.0, images_per_s=1569.0),
    LimitsForeseen(
        limits=("latency_ms <= 20",),
        networks=12,
        keeping=3,
        share_low=0.1,
        share_high=0.5,
        smallest_keeps=True,
        seen=("latency_ms: 3 to 40", "memory_mib: not seen"),
    ),
    CostForeseen(trials=40, total_s=3600.0, seconds=4.0),
    CohortTimed(networks=9, condition="c", verdict="bursty", text="time again", seconds=12.0),
    SearchPlanned(trials=40, total_s=3600.0, reasons=("space litv2_cifar, made for images of 32 pixels",)),
    SearchStarted(study="s", done=2, total=9, device="cpu (a CPU)"),
    FrontChanged(points=((900.0, 0.5), (800.0, 0.6))),
    TrialStarted(number=1, key="k", params_m=1.0, gmacs=0.1, origin="sampler"),
    BenchStepped(text="14x14, dim 768", done=1, total=9),
    NetworkPrepared(name="k", done=1, total=9),
    NetworksTimed(done=16, total=1000),
    TrainingStarted(subject={"timm": "resnet18"}, seed=0, images_seen=1024, images_total=3072),
    RungReached(number=1, images_seen=1000, images_total=9000, value=0.4, goes_on=True),
    ConfirmationForeseen(networks=3, trainings=6, seconds=90.0),
    SeedScored(number=1, seed=2, value=0.5, done=1, total=6),
    OtherProxyScored(number=1, proxy="zico", value=12.5, done=2, total=6),
    TrialFinished(
        number=1,
        key="k",
        state="infeasible",
        reason="too slow",
        images_per_s=1.0,
        value=None,
        seconds=2.0,
        measured=3,
        total=9,
        verdict="steady",
    ),
    SearchFinished(study="s", measured=9, total=9, stopped_by="total", seconds=3.0),
]


def listed(value):
    """The same with its tuples as lists, which is how JSON has them."""
    return [listed(item) for item in value] if isinstance(value, tuple | list) else value


def test_there_is_an_example_of_every_event():
    assert {type(event) for event in [*FINE, *EVENTS]} == set(Event.__subclasses__())


@pytest.mark.parametrize("event", [*FINE, *EVENTS], ids=lambda event: type(event).__name__)
def test_an_event_survives_being_plain_data(event):
    assert event_from_dict(event_to_dict(event)) == event


@pytest.mark.parametrize("event", [*FINE, *EVENTS], ids=lambda event: type(event).__name__)
def test_an_event_survives_json_but_for_its_tuples(event):
    again = event_from_dict(json.loads(json.dumps(event_to_dict(event), allow_nan=False)))
    assert type(again) is type(event)
    assert vars(again) == {name: listed(value) for name, value in vars(event).items()}


def test_the_log_keeps_all_but_the_finest_and_passes_everything_on(tmp_path):
    passed = []
    with EventLog(tmp_path / "events.jsonl", passed.append) as event_log:
        for event in [*FINE, *EVENTS]:
            event_log(event)
    assert passed == [*FINE, *EVENTS]
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == [type(event).__name__ for event in EVENTS]
    assert all(line.pop("at") for line in lines)
    assert [type(event_from_dict(line)) for line in lines] == [type(event) for event in EVENTS]


def test_a_log_is_gone_on_with(tmp_path):
    for text in ("first", "second"):
        with EventLog(tmp_path / "events.jsonl", lambda event: None) as event_log:
            event_log(Notice(text=text))
    assert len((tmp_path / "events.jsonl").read_text().splitlines()) == 2


def test_a_log_that_cannot_be_written_stops_no_search(tmp_path):
    passed = []
    with EventLog(tmp_path / "gone" / "events.jsonl", passed.append) as event_log:
        event_log(EVENTS[0])
    assert passed == EVENTS[:1]


def test_a_line_that_a_kill_tore_costs_no_other_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"at": "now"}\n{"at": "no')
    for text in ("first", "second"):
        with EventLog(path, lambda event: None) as event_log:
            event_log(Notice(text=text))
    whole, torn, *later = path.read_text().splitlines()
    assert (whole, torn) == ('{"at": "now"}', '{"at": "no')
    assert [json.loads(line)["text"] for line in later] == ["first", "second"]
