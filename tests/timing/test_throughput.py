"""The ruler's rounds on planted networks and a fake clock, then on the CPU at hand; no test asserts a real time."""

import dataclasses
import gc
import json
import types
from random import Random

import pytest
import torch

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ConversionError, DeviceError, MeasurementError, UsageError
from hilo_nas.events import NetworkPrepared, Notice, RoundTimed
from hilo_nas.measurement import (
    LATENCY_PROTOCOL,
    PROTOCOL,
    VERDICTS,
    Calibration,
    Condition,
    Measurement,
    kind_of_device,
)
from hilo_nas.measurement.rounds import fast_seconds
from hilo_nas.measurement.verdicts import MIN_ROUNDS
from hilo_nas.timing import throughput
from hilo_nas.timing.device import check_device, identify_device, list_devices, read_device
from hilo_nas.timing.prepared_network import Prepared
from hilo_nas.timing.ready import REFERENCE as REFERENCE_NAME
from hilo_nas.timing.ready import TimingSetup
from hilo_nas.timing.ruler import Entrant

TINY = ArchConfig(patch_size=2, embed_dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4))
SUBJECT = {"arch": TINY.to_dict()}
REFERENCE = {"timm": "resnet18"}
CONDITION = Condition(batch_size=10, img_size=32)


def ignore(event):
    pass


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Restores torch's settings."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# Planted networks on a fake clock.


def anchored(images_per_s=250.0):
    """A calibration; the reference of `FakeNetworks` takes 0.04 s for a batch of 10."""
    return Calibration(
        reference=REFERENCE_NAME,
        images_per_s=images_per_s,
        images_per_s_spread=1.0,
        call_seconds=(0.04,),
        steady=True,
        device=identify_device("cpu"),
    )


class Calls:
    """Results of `throughput` with a setup, converted to JSON and back as a worker's are."""

    def __init__(self, setup, seconds=None):
        self.setup, self.seconds = setup, seconds

    def calibrate(self, condition=CONDITION, emit=ignore):
        found = throughput.calibrate(condition.to_dict(), seconds=self.seconds, emit=emit, setup=self.setup)
        return Calibration.from_dict(json.loads(json.dumps(found)))

    def measure(self, subject, emit=ignore, calibration=None, condition=CONDITION, **options):
        calibration = dataclasses.asdict(calibration or anchored())
        options = {"seconds_each": self.seconds, "setup": self.setup, **options}
        entrant = Entrant(subject=subject, condition=condition, num_classes=10).to_dict()
        found = throughput.measure(entrant, calibration, emit=emit, **options)
        return Measurement.from_dict(json.loads(json.dumps(found)))

    def measure_cohort(self, subjects, emit=ignore, calibration=None, conditions=None, **options):
        found = self.run_cohort(subjects, emit, calibration, conditions, **options)
        return {name: Measurement.from_dict(item) for name, item in found.items()}

    def run_cohort(self, subjects, emit=ignore, calibration=None, conditions=None, **options):
        conditions = {**dict.fromkeys(subjects, CONDITION), **(conditions or {})}
        entrants = {
            name: Entrant(subject=subject, condition=conditions[name], num_classes=10).to_dict()
            for name, subject in subjects.items()
        }
        calibration = calibration and dataclasses.asdict(calibration)
        options = {"seconds_each": self.seconds, "setup": self.setup, **options}
        return json.loads(json.dumps(throughput.measure_cohort(entrants, calibration, emit=emit, **options)))


class FakeNetworks(Calls):
    """Stands in for `prepare`, the clock and the device: a subject says how long its calls take and what befalls them.

    A subject is `{"name": ..., "seconds": ...}`; `noise` is the greatest share that chance adds to a call, `disturbed`
    the share of calls that take twice as long, `fits` whether there is memory for it, `refusal` why it cannot run.
    """

    def __init__(self):
        self.now = 0.0
        self.prepared, self.order = [], []
        self.reference = {"name": "reference", "seconds": 0.04}
        self.device_state, self.watched = {}, []  # what the device says of itself, and the kinds that were watched
        self.device_states = []  # what it says the next times, in this order
        self.random = Random(1)
        setup = TimingSetup(prepare=self.prepare, clock=lambda: self.now, sleep=self.sleep, watch=self.watch)
        super().__init__(setup)

    def prepare(self, subject, condition, *, num_classes, target):
        planted = {
            "noise": 0.0,
            "disturbed": 0.0,
            "fits": True,
            "refusal": "",
            **(self.reference if "timm" in subject else subject),
        }
        self.prepared.append(planted["name"])
        self.now += 1.0  # building takes its time
        if not planted["fits"]:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        if planted["refusal"]:
            raise UsageError(planted["refusal"])

        def call():
            self.order.append(planted["name"])
            seconds = planted["seconds"] * (1 + self.random.uniform(0, planted["noise"]))
            self.now += seconds * (2 if self.random.random() < planted["disturbed"] else 1)

        return Prepared(call=call, form=f"form of {planted['name']}", read_memory_mib=lambda: 12.5)

    def sleep(self, seconds):
        self.now += seconds

    def watch(self, identity):
        self.watched.append(identity.kind)
        began = self.now

        def read():
            assert self.now > began  # it watched while the rounds were timed
            return self.device_states.pop(0) if self.device_states else self.device_state

        return types.SimpleNamespace(look=lambda: None, read=read)


@pytest.fixture
def fake():
    gc.freeze()  # each timing ends with a collection, which would visit all objects of torch
    yield FakeNetworks()
    gc.unfreeze()


def planted(name="own", seconds=0.02, **fields):
    return {"name": name, "seconds": seconds, **fields}


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.03, 4.0])
def test_a_planted_slow_network_comes_out_slower_by_its_factor(fake, factor):
    found = fake.measure(planted(seconds=0.04 * factor))
    assert found.images_per_s == pytest.approx(250.0 / factor)
    assert found.images_per_s_low == pytest.approx(found.images_per_s) == pytest.approx(found.images_per_s_high)
    assert found.images_per_s_raw == pytest.approx(250.0 / factor)
    assert found.ratio == pytest.approx(1 / factor)


def test_a_planted_slow_network_comes_out_slower_beside_a_noisy_neighbour(fake):
    fake.reference = planted("reference", 0.04, disturbed=0.4)
    found = fake.measure_cohort(
        {"fast": planted("fast", 0.02, disturbed=0.5), "slow": planted("slow", 0.024, disturbed=0.3)},
        calibration=anchored(),
        seconds_each=8.0,
    )
    assert found["fast"].images_per_s / found["slow"].images_per_s == pytest.approx(1.2)
    assert found["fast"].images_per_s == pytest.approx(500.0)
    assert {item.verdict for item in found.values()} == {"bursty"}


def test_images_per_s_hang_on_the_reference_as_calibrated_and_not_on_the_devices_mood(fake):
    fake.reference = planted("reference", 0.08)  # everything takes twice the time today
    found = fake.measure(planted(seconds=0.04))
    assert found.images_per_s == pytest.approx(500.0)
    assert found.images_per_s_raw == pytest.approx(250.0)


SLOW_S = 0.1
"""Seconds of a call for which the fewest rounds use up the time for latencies, so that only the precision of the speeds
decides when the timing ends."""


def test_timing_goes_on_until_there_are_as_many_latencies_as_wanted(fake):
    found = fake.measure(planted(seconds=0.002))
    assert len(found.latency_seconds) == len(found.latency_rounds) >= 200
    assert set(found.latency_rounds) == set(range(len(found.call_seconds)))
    assert found.latency_protocol == LATENCY_PROTOCOL
    assert found.latency_ms_p95_low <= found.latency_ms_p95 <= found.latency_ms_p95_high
    assert found.calibration_error >= 0.02


def test_a_slow_networks_latencies_are_as_many_as_fit_and_no_fewer_than_its_rounds(fake):
    found = fake.measure(planted(seconds=0.5))
    assert MIN_ROUNDS <= len(found.latency_seconds) < 200
    assert set(found.latency_rounds) == set(range(len(found.call_seconds)))


def test_the_rounds_of_a_timing_have_random_orders(fake):
    orders = []

    def note(event):
        if isinstance(event, RoundTimed):
            orders.append(tuple(fake.order[-4:]))

    fake.measure_cohort({name: planted(name, SLOW_S) for name in ("a", "b", "c")}, emit=note)
    assert len(orders) == MIN_ROUNDS
    assert all(sorted(drawn) == ["a", "b", "c", "reference"] for drawn in orders)
    assert len(set(orders)) > 3


def test_timing_ends_as_soon_as_it_is_precise(fake):
    events = []
    found = fake.measure(planted(seconds=SLOW_S, noise=0.01), emit=events.append)
    assert len(found.call_seconds) == MIN_ROUNDS
    told = [event for event in events if isinstance(event, RoundTimed)]
    assert [event.round for event in told] == list(range(1, MIN_ROUNDS + 1))
    assert {event.rounds for event in told} == {18}  # of 0.14 s, in 2.5 s
    assert told[0].condition == CONDITION.label()
    assert told[0].images_per_s == pytest.approx(10 / found.call_seconds[0])


def test_timing_goes_on_while_it_is_not_precise(fake):
    found = fake.measure(planted(noise=0.3))
    assert len(found.call_seconds) > MIN_ROUNDS


def test_precision_is_looked_at_every_few_rounds_only(fake):
    rounds = set()
    for _ in range(12):
        found = fake.measure_cohort({"own": planted(seconds=SLOW_S, noise=0.2)}, seconds_each=100.0)["own"]
        rounds.add(len(found.call_seconds))
    assert max(rounds) > MIN_ROUNDS
    assert {count % 4 for count in rounds} == {0}


@pytest.mark.parametrize("count", [1, 3])
def test_timing_ends_at_its_cap_however_imprecise(fake, count):
    subjects = {f"network {i}": planted(f"network {i}", 0.05, noise=1.0) for i in range(count)}
    fake.reference = planted("reference", 0.05, noise=1.0)
    began = []

    def note(event):
        if isinstance(event, RoundTimed):
            began.append(fake.now)

    found = fake.measure_cohort(subjects, emit=note, seconds_each=5.0)
    longest_round = 2 * 0.05 * (count + 1)
    assert 5.0 * count <= began[-1] - began[0] + longest_round
    assert began[-1] - began[0] <= 5.0 * count + longest_round
    assert {len(item.call_seconds) for item in found.values()} == {len(began)}


def test_a_brief_timing_has_six_rounds_with_a_single_call_each_and_two_calls_of_warm_up(fake):
    subjects = {name: planted(name, seconds=0.001) for name in ("own", "other")}
    found = fake.measure_cohort(subjects, is_brief=True, seconds_each=100.0)
    for timing in found.values():
        assert timing.is_preliminary
        assert len(timing.call_seconds) == len(timing.latency_seconds) == 6
        assert timing.warmup_calls == 1
    assert found["own"].seconds == pytest.approx(fake.now / 2, rel=0.5)


def test_long_calls_have_the_rounds_that_an_interval_takes(fake):
    found = fake.measure(planted(seconds=30.0))
    assert len(found.call_seconds) == MIN_ROUNDS
    assert found.images_per_s == pytest.approx(10 / 30)


def test_short_calls_are_timed_in_blocks(fake):
    found = fake.measure(planted(seconds=0.001))
    assert found.call_seconds == pytest.approx((0.001,) * len(found.call_seconds))
    assert fake.order.count("own") >= 20 * MIN_ROUNDS


def test_rivals_near_in_speed_are_timed_beside_and_others_are_not(fake):
    rivals = {
        "far": {"subject": planted("far", 0.03), "images_per_s": 333.0},
        "near": {"subject": planted("near", 0.021), "images_per_s": 476.0},
        "nearer": {"subject": planted("nearer", 0.0195), "images_per_s": 513.0},
        "third": {"subject": planted("third", 0.0217), "images_per_s": 460.0},
    }
    found = fake.measure(planted(seconds=0.02), rivals=rivals)
    assert set(found.beside) == {"near", "nearer"}
    for key, seconds in (("near", 0.021), ("nearer", 0.0195)):
        assert found.beside[key] == pytest.approx((seconds,) * len(found.call_seconds))
    assert "far" not in fake.prepared
    assert "third" not in fake.prepared
    assert found.images_per_s == pytest.approx(500.0)


def test_a_candidate_without_near_rivals_is_timed_alone(fake):
    far = {"far": {"subject": planted("far"), "images_per_s": 1000.0}}
    assert fake.measure(planted(seconds=0.02), rivals=far).beside == {}
    assert fake.measure(planted(seconds=0.02), rivals={}).beside == {}


def test_a_rival_that_does_not_fit_does_not_fail_the_candidate(fake):
    rivals = {
        "big": {"subject": planted("big", 0.02, fits=False), "images_per_s": 500.0},
        "small": {"subject": planted("small", 0.021), "images_per_s": 476.0},
    }
    found = fake.measure(planted(seconds=0.02), rivals=rivals)
    assert set(found.beside) == {"small"}
    assert found.images_per_s == pytest.approx(500.0)


def test_a_candidate_that_does_not_fit_is_told_as_it_is(fake):
    with pytest.raises(RuntimeError, match="CUDA out of memory"):
        fake.measure(planted(fits=False))
    assert fake.measure(planted(seconds=0.02)).images_per_s == pytest.approx(
        500.0
    )  # the next one is as well off as ever


def test_the_members_of_a_cohort_pair_up_round_by_round(fake):
    events = []
    found = fake.measure_cohort(
        {"one": planted("one", 0.02, noise=0.1), "two": planted("two", 0.03, noise=0.1)},
        emit=events.append,
        calibration=anchored(),
    )
    one, two = found.values()
    assert list(found) == ["one", "two"]
    assert one.cohort == two.cohort != ""
    assert one.reference_seconds == two.reference_seconds
    assert len(one.call_seconds) == len(two.call_seconds) == len(one.reference_seconds)
    assert one.beside == two.beside == {}
    assert (one.form, two.form) == ("form of one", "form of two")
    prepared = [event for event in events if isinstance(event, NetworkPrepared)]
    assert prepared == [NetworkPrepared(name=name, done=i, total=2) for i, name in ((1, "one"), (2, "two"))]
    assert sum(isinstance(event, RoundTimed) for event in events) == len(one.call_seconds)


def test_a_network_that_cannot_run_so_is_told_apart_and_the_others_are_timed(fake):
    events = []
    refusal = "timm has no model 'x'"
    subjects = {"x": planted("x", refusal=refusal), "own": planted()}
    found = fake.run_cohort(subjects, calibration=anchored(), emit=events.append)
    assert found["x"] == {"error": {"kind": "UsageError", "message": refusal}}
    assert Measurement.from_dict(found["own"]).images_per_s == pytest.approx(500.0)
    assert [event for event in events if isinstance(event, NetworkPrepared)] == [
        NetworkPrepared(name="own", done=2, total=2)
    ]


def test_a_cohort_of_which_nothing_can_run_takes_no_rounds(fake):
    found = fake.run_cohort({"own": planted(refusal="no")})
    assert found == {"own": {"error": {"kind": "UsageError", "message": "no"}}}


def test_each_timing_is_a_cohort_of_its_own(fake):
    assert len({fake.measure(planted()).cohort for _ in range(3)}) == 3


def test_a_cohort_without_a_calibration_is_anchored_by_its_own_rounds(fake):
    fake.reference = planted("reference", 0.05, noise=0.05)
    found = fake.measure_cohort({"own": planted("own", 0.02, noise=0.05)})["own"]
    assert found.images_per_s == pytest.approx(10 / fast_seconds(found.call_seconds))
    anchored_apart = fake.measure_cohort({"own": planted("own", 0.02)}, calibration=anchored(1.0))["own"]
    assert anchored_apart.images_per_s == pytest.approx(2.5, rel=0.03)


def test_another_reference_may_be_the_anchor(fake):
    found = fake.measure_cohort({"own": planted("own", SLOW_S)}, reference=planted("mine", 0.03))["own"]
    assert found.reference_seconds == pytest.approx((0.03,) * MIN_ROUNDS)
    assert "reference" not in fake.prepared


def test_the_reference_itself_may_be_timed_under_its_own_name(fake):
    found = fake.measure_cohort({REFERENCE_NAME: REFERENCE, "own": planted("own", 0.02)}, calibration=anchored())
    assert found[REFERENCE_NAME].images_per_s == pytest.approx(250.0)
    assert found["own"].images_per_s == pytest.approx(500.0)


def test_the_reference_and_the_front_stay_ready_between_timings(fake):
    front = {name: {"subject": planted(name, 0.02), "images_per_s": 500.0} for name in ("a", "b")}
    fake.measure(planted("first"), rivals=front)
    fake.measure(planted("second"), rivals=front)
    fake.measure(planted("first"))
    assert fake.prepared == ["reference", "first", "a", "b", "second", "first"]
    fake.measure(planted("a", 0.02))  # ready already, and so it stays
    fake.measure(planted("third"), rivals=front)
    assert fake.prepared[6:] == ["third"]


def test_only_a_few_networks_stay_ready_and_the_reference_is_always_among_them(fake):
    names = [f"rival {i}" for i in range(7)]
    for name in names:
        fake.measure(planted("own"), rivals={name: {"subject": planted(name, 0.02), "images_per_s": 500.0}})
    fake.prepared.clear()
    fake.measure(planted("own"), rivals={names[-1]: {"subject": planted(names[-1], 0.02), "images_per_s": 500.0}})
    assert fake.prepared == ["own"]
    fake.measure(planted("own"), rivals={names[0]: {"subject": planted(names[0], 0.02), "images_per_s": 500.0}})
    assert fake.prepared == ["own", "own", names[0]]


def test_other_threads_are_another_bench(fake):
    found = [fake.measure(planted(), condition=dataclasses.replace(CONDITION, threads=n)).threads for n in (1, 2, 1)]
    assert found == [1, 2, 1]
    assert fake.prepared == ["reference", "own"] * 3


def test_a_calibration_is_the_references_speed(fake):
    fake.reference = planted("reference", 0.04, noise=0.02)
    events = []
    found = fake.calibrate(emit=events.append)
    assert found.images_per_s == pytest.approx(10 / fast_seconds(found.call_seconds))
    assert found.images_per_s == pytest.approx(250.0, rel=0.02)
    assert (found.reference, found.protocol, found.steady) == (REFERENCE_NAME, PROTOCOL, True)
    assert len(found.call_seconds) * 0.04 == pytest.approx(3.0, rel=0.1)
    assert events == []


def test_a_calibration_on_a_disturbed_machine_tells_the_user_what_to_do(fake):
    fake.reference = planted("reference", 0.04, disturbed=0.4)
    events = []
    found = fake.calibrate(emit=events.append)
    assert found.images_per_s == pytest.approx(250.0)
    (notice,) = events
    assert isinstance(notice, Notice)
    assert notice.level == "warning"
    assert "other work disturbed" in notice.text
    assert "quiet machine" in notice.text


def test_a_calibration_names_the_cores_that_others_kept_busy(fake):
    fake.reference = planted("reference", 0.04, disturbed=0.4)
    fake.device_state = {"others_cores": 1.52}
    events = []
    fake.calibrate(emit=events.append)
    assert "other work (1.5 cores) disturbed" in events[0].text


BUSY = {"cores": 2, "others_cores": 1.0, "with": [{"pid": 7, "name": "python", "cores": 1.0}]}
QUIET = {"cores": 2, "others_cores": 0.02, "with": []}


def loaded(others_cores=1.0, **fields):
    """What a device says of two cores of which others used so many all the time."""
    return {**BUSY, "others_cores": others_cores, "quietest": {"others_cores": others_cores}, **fields}


def test_a_calibration_waits_for_a_quieter_moment_and_says_nothing_of_the_disturbed_ones(fake):
    fake.device_states = [loaded(), loaded(0.02)]
    condition = dataclasses.replace(CONDITION, threads=2)
    events = []
    found = fake.calibrate(condition, emit=events.append)
    assert (found.device_state["others_cores"], events, fake.watched) == (0.02, [], ["cpu", "cpu"])


def test_a_calibration_that_finds_no_quiet_moment_takes_the_least_disturbed_and_says_so(fake):
    fake.device_states = [loaded(1.4), {"throttle_reasons": ["hardware slowdown"]}, loaded(0.9)]
    condition = dataclasses.replace(CONDITION, threads=2)
    events = []
    found = fake.calibrate(condition, emit=events.append)
    assert found.device_state == {"throttle_reasons": ["hardware slowdown"]}
    (notice,) = events
    assert notice.text.startswith("the reference was calibrated 3 times, and the machine was never steady")


def test_a_timing_whose_cores_others_used_is_contended_however_even_its_rounds(fake):
    fake.device_state = loaded()
    found = fake.measure(planted(), condition=dataclasses.replace(CONDITION, threads=2))
    assert found.verdict == "contended"
    assert found.half_width > 0.3 * found.images_per_s


def test_what_the_device_said_is_kept_and_heard(fake):
    fake.device_state = {"throttle_reasons": ["hardware thermal slowdown"], "temperature_c": [60, 91]}
    found = fake.measure(planted())
    assert found.device_state == fake.device_state
    assert found.verdict == "throttled"
    fake.device_state = {"throttle_reasons": ["software power cap"]}
    assert fake.measure(planted()).verdict == "steady"
    assert fake.watched == ["cpu", "cpu"]


def test_a_network_that_warms_up_restlessly_says_so(fake):
    fake.reference = planted("reference", 0.04, disturbed=0.5)
    assert fake.measure(planted()).steady
    assert not fake.measure(planted(seconds=0.5, disturbed=0.5)).steady


def test_a_reference_that_no_longer_fits_condemns_no_network(fake):
    fake.reference = planted("reference", 0.04, fits=False)
    with pytest.raises(MeasurementError, match="the reference network"):
        fake.measure(planted())
    fake.reference = planted("reference", 0.04)
    assert fake.measure(planted()).images_per_s == pytest.approx(500.0)


# Networks on the CPU at hand.


class Short(Calls):
    """A few short rounds; how long they take says nothing."""

    def __init__(self):
        super().__init__(TimingSetup(warm_up_s=0.05, min_block_s=0.002, min_rounds=3), seconds=0.01)

    def measured(self, subject=SUBJECT, emit=ignore, **condition):
        """A calibration and a measurement, on the device itself."""
        asked = Condition(batch_size=2, img_size=32, **condition)
        calibration = self.calibrate(asked)
        return self.measure(subject, emit=emit, calibration=calibration, condition=asked), calibration


@pytest.fixture
def short():
    return Short()


def test_a_measurement_holds_its_samples_and_its_conditions(short):
    events = []
    found, calibration = short.measured(emit=events.append, threads=1)
    assert found.protocol == PROTOCOL == 2
    assert found.threads == 1
    assert len(found.reference_seconds) == len(found.call_seconds) >= 3
    assert min(found.call_seconds) > 0
    assert len(found.latency_seconds) == len(found.latency_rounds) >= 3
    assert found.latency_ms_p50 <= found.latency_ms_p95 <= found.latency_ms_p99
    assert found.images_per_s == pytest.approx(
        calibration.images_per_s * fast_seconds(found.reference_seconds) / fast_seconds(found.call_seconds)
    )
    assert found.images_per_s_low <= found.images_per_s_high
    assert found.verdict in VERDICTS
    assert found.memory_mib > 0
    assert found.form.startswith("litv2/")
    assert found.device == identify_device("cpu")
    assert found.environment["float32_matmul_precision"] == "highest"
    assert found.versions["torch"] == torch.__version__
    assert [type(event) for event in events].count(RoundTimed) == len(found.call_seconds)


@pytest.mark.slow
def test_a_network_of_timm_is_measured_by_the_same_ruler(short):
    found, _ = short.measured({"timm": "test_resnet.r160_in1k"})
    assert found.form.startswith("timm/")
    assert found.images_per_s > 0


def test_a_single_layer_is_measured_beside_a_layer(short):
    subject = {"layer": "timing.layers:Mixer", "arguments": {"dim": 8}}
    wide = {"layer": "timing.layers:Mixer", "arguments": {"dim": 16}}
    condition = Condition(batch_size=2, img_size=4)
    found = short.measure_cohort({"wide": wide}, conditions={"wide": condition}, reference=subject)["wide"]
    assert found.images_per_s > 0
    assert found.memory_mib >= 4 * (16 * 16 + 2 * 4 * 4 * 16) / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "amp-bf16", "amp-fp16"])
def test_every_precision_is_timed_in_the_networks_form(short, precision):
    found, _ = short.measured(precision=precision)
    assert found.condition.precision == precision
    assert found.form == "litv2/2 merging=gather"


def test_forms_of_one_network_are_timed_side_by_side(short):
    plain = Condition(batch_size=2, img_size=32)
    conditions = {
        "plain": plain,
        "channels last": dataclasses.replace(plain, channels_last=True),
        "fused": dataclasses.replace(plain, fused=True),
        "both": dataclasses.replace(plain, fused=True, channels_last=True),
    }
    subject = {"timm": "test_resnet.r160_in1k"}
    found = short.measure_cohort(dict.fromkeys(conditions, subject), conditions=conditions)
    assert {item.cohort for item in found.values()} == {found["plain"].cohort}
    assert {len(item.call_seconds) for item in found.values()} == {len(found["plain"].call_seconds)}
    assert {name: item.condition for name, item in found.items()} == conditions
    assert found["both"].condition.label() == "cpu-b2-32px-fp32-nhwc-fused"
    folded = [name for name, item in found.items() if item.form.endswith(" folded")]
    assert folded == ["fused", "both"]


def test_offsets_are_not_zero_while_timing():
    from hilo_nas.timing.prepared_network import _build

    with torch.inference_mode():
        model = _build(SUBJECT, 10, 32)
    offsets = [weight for name, weight in model.named_parameters() if "conv_offset.weight" in name]
    assert offsets
    assert all(weight.detach().any() for weight in offsets)
    assert not model.training


def test_a_reference_that_does_not_fit_is_named_with_the_way_out(fake):
    fake.reference = planted("reference", 0.04, fits=False)
    with pytest.raises(MeasurementError, match=r"batch_size 10 at 32 px does not on cpu\. Use a smaller --batch-size"):
        fake.calibrate()


def test_a_name_that_timm_does_not_know_is_refused_with_those_that_are_near(short):
    with pytest.raises(UsageError, match=r"no model 'resnet_18'\. Use .*resnet18"):
        short.measured({"timm": "resnet_18"})


def test_an_unequal_form_is_refused(short):
    subject = {"layer": "timing.layers:Lying", "arguments": {"dim": 8}}
    with pytest.raises(ConversionError, match=r"Lying .*timing\.fused=false"):
        short.measured(subject, fused=True)


@pytest.mark.slow
def test_a_compiled_network_is_timed_as_another_form(short):
    found, _ = short.measured({"layer": "timing.layers:Mixer", "arguments": {"dim": 8}}, compile=True)
    assert found.form.endswith(" compiled frozen weights/2")
    assert found.memory_mib > 0


# The device.


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(device):
    if device in list_devices():
        pytest.skip("this machine has it")
    with pytest.raises(DeviceError, match=rf"no device {device}.*Use one of .*cpu"):
        check_device(device)
    with pytest.raises(DeviceError, match=rf"no device {device}"):
        throughput.calibrate(Condition(device=kind_of_device(device)).to_dict(), target=device, emit=ignore)


def test_identity_compares_what_matters_and_records_the_rest():
    identity = identify_device("cpu")
    assert identity.kind == "cpu"
    assert identity.differences(dataclasses.replace(identity, serial="another")) == {}
    changed = dataclasses.replace(identity, torch="1.0", driver="2")
    assert identity.differences(changed) == {"driver": (identity.driver, "2"), "torch": (identity.torch, "1.0")}


def test_the_class_of_the_host_is_compared_where_both_identities_know_it():
    cpu = identify_device("cpu")
    assert cpu.host is None  # its model says it
    old = dataclasses.replace(cpu, kind="cuda")
    here, there = (dataclasses.replace(old, host=f"A CPU, {cores} cores") for cores in (8, 16))
    assert here.differences(there) == {"host": ("A CPU, 8 cores", "A CPU, 16 cores")}
    assert here.differences(old) == old.differences(there) == here.differences(here) == {}


def test_the_device_at_hand_is_the_fastest_kind():
    found = read_device(None, emit=ignore)
    assert found["device"] == list_devices()[0]


# On a GPU.


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "amp-bf16", "fp16"])
def test_a_gpu_is_timed_with_its_own_memory_and_identity(short, precision):
    found, _ = short.measured(device="cuda", precision=precision)
    assert found.device.kind == "cuda"
    assert found.memory_mib > 0
    assert found.images_per_s > 0


@pytest.mark.gpu
def test_a_network_that_does_not_fit_a_gpu_is_out_of_memory(short):
    asked = Condition(device="cuda", batch_size=2, img_size=32)
    calibration = short.calibrate(asked)
    wide = ArchConfig(patch_size=2, embed_dims=(512, 1024, 2048, 4096), depths=(1, 1, 2, 2), num_heads=(8, 16, 32, 64))
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2**29 / total)  # half a GiB; the weights alone take more
    try:
        with pytest.raises(torch.OutOfMemoryError):
            short.measure({"arch": wide.to_dict()}, calibration=calibration, condition=asked)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert short.measure(SUBJECT, calibration=calibration, condition=asked).images_per_s > 0


@pytest.mark.gpu
def test_replays_of_a_graph_are_timed_beside_plain_calls(short):
    plain = Condition(device="cuda", batch_size=1, img_size=32)
    conditions = {"plain": plain, "graph": dataclasses.replace(plain, cuda_graph=True)}
    found = short.measure_cohort(dict.fromkeys(conditions, SUBJECT), conditions=conditions)
    assert found["graph"].form == f"{found['plain'].form} graph"
    assert found["graph"].cohort == found["plain"].cohort
    # A replay allocates nothing, but what the graph holds is memory all the same.
    assert found["graph"].memory_mib == pytest.approx(found["plain"].memory_mib, rel=0.25)


@pytest.mark.gpu
def test_a_gpu_tells_its_clock_and_heat_while_it_is_timed(short):
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    found, _ = short.measured(device="cuda")
    assert {"sm_clock_mhz", "temperature_c", "power_w", "throttle_reasons", "other_processes"} <= set(
        found.device_state
    )
    assert {"cores", "others_cores"} <= set(found.device_state)  # the CPU launches what the GPU does
    assert all(mhz > 0 for mhz in found.device_state["sm_clock_mhz"])
