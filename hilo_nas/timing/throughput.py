"""Throughput of networks on the target device, relative to a reference network.

These functions run in a worker process. They time the networks and the reference in rounds, each in a random order.
`hilo_nas.measurement.rounds` evaluates the rounds. The images/s of a network are its speed relative to the reference,
times the calibrated speed of the reference. A slowdown of the machine that affects both therefore cancels out.
"""

from __future__ import annotations

import dataclasses
import statistics
import uuid
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

import timm
import torch

from hilo_nas.clock import utc_now
from hilo_nas.errors import ConversionError, UsageError, is_out_of_memory
from hilo_nas.events import Emit, NetworkPrepared, Notice, RoundTimed
from hilo_nas.measurement import LATENCY_PROTOCOL, VERDICTS, Calibration, Condition, Measurement
from hilo_nas.measurement.intervals import interval
from hilo_nas.measurement.latencies import latency_figures
from hilo_nas.measurement.rounds import fast_seconds, ratio, robust_spread
from hilo_nas.measurement.verdicts import judge_calibration, verdict_of
from hilo_nas.study.calibration import calibration_error
from hilo_nas.timing.ready import DEFAULT_SETUP, REFERENCE, TimingSetup, WarmNetwork, WarmNetworks, ready_reference
from hilo_nas.timing.timer import SingleCalls, WarmUp

__all__ = ["calibrate", "measure", "measure_cohort"]

_SECONDS = 2.5
"""Time limit of the rounds in seconds per network. For all networks together, it is multiplied by their number. The
blocks of the reference count too. At least `TimingSetup.min_rounds` rounds run, even if they take longer."""
_PRECISE = 0.015
"""Timing ends early if the half-width of every network's 95 % interval is at most this share of its value."""
_CHECK_EVERY = 4
"""Number of rounds between two checks of the precision."""
_CALIBRATION_S = 3.0
_CALIBRATION_TRIES, _CALIBRATION_PAUSE_S = 3, 0.5
_BRIEF_ROUNDS = 6
"""Number of rounds of a brief timing. Each has a single call per network.

On two shared cores (Intel Xeon, November 2026), brief timings of 31 networks of `litv2_tabular` in groups of eight took
0.35 to 0.47 s per network with their preparation, and full ones 2.8 s. They differed by 8 to 14 % (standard deviation
over three runs), of which 6 to 12 % were an error of the reference that a group shares."""
_LATENCIES, _LATENCIES_S = 200, 1.0
"""Number of single calls to time per network for its latencies, and the limit of their total seconds. A slow network
has fewer calls. Every round has at least one."""
_RIVALS = 2
"""Maximum number of networks of the front that are timed in the same rounds as a candidate."""
_RIVALRY = 0.1
"""Maximum relative difference between the speeds of a rival and the candidate."""
_REFERENCE = "\0"
"""Name of the reference in rounds. Users choose the other names, so one of them may be `REFERENCE`."""


def calibrate(
    condition: Mapping[str, Any],
    *,
    target: str | None = None,
    seconds: float | None = None,
    emit: Emit,
    setup: TimingSetup = DEFAULT_SETUP,
) -> dict[str, Any]:
    """Times the reference network alone and returns a `Calibration` as plain data.

    If the machine is not steady, the timing is repeated up to twice, and the least disturbed attempt counts.

    Args:
        condition: `Condition` as plain data.
        target: Name of the device. Defaults to the first device of the condition's kind.
        seconds: Seconds of one attempt. Defaults to 3.
        emit: Receives a warning if the machine was never steady.
        setup: Functions and durations.

    Raises:
        DeviceError: This machine does not have the device.
        MeasurementError: The reference does not fit into memory at this batch size.
    """
    asked = Condition(**condition)
    warm, reference = ready_reference(asked, target=target, setup=setup)
    tries = []
    for i in range(_CALIBRATION_TRIES):
        calibration = _calibrate_once(warm, reference, asked, _CALIBRATION_S if seconds is None else seconds)
        judgement = judge_calibration(calibration, threads=torch.get_num_threads())
        tries.append((VERDICTS.index(judgement.verdict), i, judgement, calibration))
        if judgement.verdict == "steady":
            break
        if i + 1 < _CALIBRATION_TRIES:
            setup.sleep(_CALIBRATION_PAUSE_S)
    _, _, judgement, calibration = min(tries, key=lambda item: item[:2])
    if judgement.verdict != "steady":
        text = f"the reference was calibrated {len(tries)} times, and the machine was never steady: {judgement.text}"
        emit(Notice(level="warning", text=text))
    return dataclasses.asdict(calibration)


def _calibrate_once(warm: WarmNetworks, reference: WarmNetwork, condition: Condition, seconds: float) -> Calibration:
    watch = warm.setup.watch(warm.identity)
    is_over = _after(seconds, warm.setup)

    def is_enough(rounds: Mapping[str, Sequence[float]]) -> bool:
        watch.look()
        return is_over(rounds)

    with torch.inference_mode():
        rounds = warm.stopwatch.time_rounds({REFERENCE: reference.entrant}, is_enough=is_enough, random=Random(0))
    state = watch.read()
    return dataclasses.replace(_calibration(warm, reference, condition, rounds[REFERENCE]), device_state=state)


def _calibration(
    warm: WarmNetworks, reference: WarmNetwork, condition: Condition, rounds: Sequence[float]
) -> Calibration:
    return Calibration(
        reference=REFERENCE,
        images_per_s=condition.batch_size / fast_seconds(rounds),
        images_per_s_spread=robust_spread([condition.batch_size / seconds for seconds in rounds]),
        call_seconds=tuple(rounds),
        steady=reference.warm_up.steady,
        device=warm.identity,
    )


def measure(
    entrant: Mapping[str, Any],
    calibration: Mapping[str, Any],
    *,
    target: str | None = None,
    rivals: Mapping[str, Mapping[str, Any]] | None = None,
    seconds_each: float | None = None,
    emit: Emit,
    setup: TimingSetup = DEFAULT_SETUP,
) -> dict[str, Any]:
    """Times one network in the same rounds as the reference and the rivals with a similar speed.

    Args:
        entrant: The network, `{"subject": ..., "condition": ..., "num_classes": ...}` (see `timing.ruler.Entrant`).
        calibration: The study's `Calibration` as plain data.
        target: Name of the device. Defaults to the first device of the condition's kind.
        rivals: Members of the front by key, each `{"subject": ..., "images_per_s": ...}`.
        seconds_each: Maximum seconds per network. The candidate and each rival in its rounds count as one network.
        emit: Receives an event per round.
        setup: Functions and durations.

    Returns:
        A `Measurement` as plain data.

    Raises:
        OutOfMemoryError: The network does not fit into memory. The batch size is never reduced.
        DeviceError: This machine does not have the device.
        MeasurementError: The reference does not fit into memory.
    """
    start = setup.clock()
    asked, num_classes = Condition(**entrant["condition"]), entrant["num_classes"]
    scale = Calibration.from_dict(calibration)
    warm, reference = ready_reference(asked, target=target, setup=setup)
    try:
        with torch.inference_mode():
            networks = {"": warm.ready(entrant["subject"], asked, num_classes)}
            speed = scale.images_per_s * reference.warm_up.call_seconds / networks[""].warm_up.call_seconds
            for key in _rivals_near(speed, rivals or {}):
                try:
                    networks[key] = warm.ready((rivals or {})[key]["subject"], asked, num_classes, keep=True)
                except Exception as error:  # a rival that does not fit must not fail the candidate
                    if not is_out_of_memory(error):
                        raise
            seconds = (_SECONDS if seconds_each is None else seconds_each) * len(networks)
            found = _time(warm, networks, reference, {"": asked}, scale, seconds=seconds, emit=emit)
    finally:
        networks = {}
        warm.release()
    return dataclasses.asdict(dataclasses.replace(found[""], seconds=setup.clock() - start))


def _rivals_near(images_per_s: float, rivals: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the keys of the rivals whose speed is close to the candidate's, closest first, at most `_RIVALS`."""
    apart = {key: abs(rival["images_per_s"] / images_per_s - 1) for key, rival in rivals.items()}
    return sorted((key for key in apart if apart[key] <= _RIVALRY), key=apart.__getitem__)[:_RIVALS]


def measure_cohort(
    entrants: Mapping[str, Mapping[str, Any]],
    calibration: Mapping[str, Any] | None = None,
    *,
    target: str | None = None,
    reference: str | Mapping[str, Any] = REFERENCE,
    seconds_each: float | None = None,
    is_brief: bool = False,
    emit: Emit,
    setup: TimingSetup = DEFAULT_SETUP,
) -> dict[str, Any]:
    """Times several networks in the same rounds. All are in memory at once.

    Args:
        entrants: Networks by name, each in the format of `measure`. All must have the same device, batch size and image
            size. Memory layout, compilation, precision and runtime may differ.
        calibration: `Calibration` that sets the scale of images/s. None uses the reference's speed in these rounds.
        target: Name of the device. Defaults to the first device of the conditions' kind.
        reference: The reference network. Defaults to the reference of all studies.
        seconds_each: Maximum seconds per network.
        is_brief: True for a few rounds only, regardless of `seconds_each`. The speeds suffice to choose the networks
            that are worth a full timing (`Measurement.is_preliminary`).
        emit: Receives an event per network and per round.
        setup: Functions and durations.

    Returns:
        A `Measurement` as plain data per name, all with the same `cohort`. If a network cannot run under its condition,
        its value is `{"error": {"kind": ..., "message": ...}}`. The kind is the name of a class in `hilo_nas.errors`.

    Raises:
        OutOfMemoryError: The networks do not fit into memory together.
        DeviceError: This machine does not have the device.
        MeasurementError: The reference does not fit into memory.
    """
    start = setup.clock()
    conditions = {name: Condition(**entrant["condition"]) for name, entrant in entrants.items()}
    warm, reference_network = ready_reference(next(iter(conditions.values())), reference, target=target, setup=setup)
    scale = None if calibration is None else Calibration.from_dict(calibration)
    try:
        with torch.inference_mode():
            networks, failed = {}, {}
            for i, (name, entrant) in enumerate(entrants.items()):
                try:
                    subject, classes = entrant["subject"], entrant["num_classes"]
                    networks[name] = warm.ready(subject, conditions[name], classes, is_brief=is_brief)
                except (UsageError, ConversionError) as error:
                    del conditions[name]
                    failed[name] = {"error": {"kind": type(error).__name__, "message": str(error)}}
                else:
                    emit(NetworkPrepared(name=name, done=i + 1, total=len(entrants)))
            seconds = (_SECONDS if seconds_each is None else seconds_each) * len(networks)
            found = {}
            if networks:
                found = _time(
                    warm,
                    networks,
                    reference_network,
                    conditions,
                    scale,
                    seconds=seconds,
                    is_brief=is_brief,
                    emit=emit,
                )
                share_s = (setup.clock() - start) / len(networks)
                found = {
                    name: dataclasses.replace(own, seconds=share_s, is_preliminary=is_brief)
                    for name, own in found.items()
                }
    finally:
        networks = {}
        warm.release()
    return {name: dataclasses.asdict(measurement) for name, measurement in found.items()} | failed


def _time(
    warm: WarmNetworks,
    networks: Mapping[str, WarmNetwork],
    reference: WarmNetwork,
    conditions: Mapping[str, Condition],
    scale: Calibration | None,
    *,
    seconds: float,
    is_brief: bool = False,
    emit: Emit,
) -> dict[str, Measurement]:
    """Returns a measurement of each network in `conditions`. Other `networks` (rivals) are only timed alongside."""
    clock = warm.setup.clock
    start = clock()
    singles = {
        name: SingleCalls(per_round=1, wanted=1, at_most_s=0.0)
        if is_brief
        else _single_calls(networks[name].warm_up, reference.warm_up, warm.setup.min_rounds)
        for name in conditions
    }
    most = _BRIEF_ROUNDS if is_brief else None
    rounds, state = _time_rounds(warm, networks, reference, conditions, singles, seconds, most, emit)
    own = rounds.pop(_REFERENCE)
    cohort = uuid.uuid4().hex[:12]
    if scale is None:
        scale = _calibration(warm, reference, next(iter(conditions.values())), own)
    shared = clock() - start
    found = {}
    for name, condition in conditions.items():
        start = clock()
        network = networks[name]
        found[name] = Measurement(
            condition=condition,
            device=warm.identity,
            **summarize(
                rounds[name],
                own,
                singles[name].found,
                batch_size=condition.batch_size,
            ),
            reference_images_per_s=scale.images_per_s,
            latency_protocol=LATENCY_PROTOCOL,
            calibration_error=calibration_error(scale, threads=torch.get_num_threads()),
            memory_mib=network.prepared.read_memory_mib(),
            steady=network.warm_up.steady,
            warmup_calls=network.warm_up.calls,
            seconds=shared / len(conditions) + clock() - start,
            form=network.prepared.form,
            threads=torch.get_num_threads(),
            environment=warm.environment(),
            versions={"torch": torch.__version__, "timm": timm.__version__},
            measured_at=utc_now(),
            cohort=cohort,
            beside={rival: rounds[rival] for rival in rounds if rival not in conditions},
            device_state=state,
        )
        judgement = verdict_of(found[name])
        assert judgement is not None, "rounds of this protocol are judged"
        found[name] = dataclasses.replace(found[name], verdict=judgement.verdict)
    return found


def _single_calls(own: WarmUp, reference: WarmUp, min_rounds: int) -> SingleCalls:
    """Returns the plan of a network's single calls.

    They are spread so that the minimum number of rounds can contain all of them. In each round, they take no longer
    than the blocks of the network and the reference.
    """
    blocks_s = sum(network.calls_per_block * network.call_seconds for network in (own, reference))
    per_round = min(-(-_LATENCIES // min_rounds), int(blocks_s / own.call_seconds))
    return SingleCalls(per_round=max(per_round, 1), wanted=_LATENCIES, at_most_s=_LATENCIES_S)


def _time_rounds(
    warm: WarmNetworks,
    networks: Mapping[str, WarmNetwork],
    reference: WarmNetwork,
    conditions: Mapping[str, Condition],
    singles: Mapping[str, SingleCalls],
    seconds: float,
    max_rounds: int | None,
    emit: Emit,
) -> tuple[dict[str, tuple[float, ...]], dict[str, Any]]:
    """Returns the seconds per call of the networks and the reference for each round, and the state of the device."""
    entrants = {_REFERENCE: reference.entrant, **{name: network.entrant for name, network in networks.items()}}
    round_s = sum(
        calls * network.warm_up.call_seconds
        for (_, calls), network in zip(entrants.values(), (reference, *networks.values()), strict=True)
    )
    min_rounds = warm.setup.min_rounds
    expected = max_rounds or max(round(seconds / round_s), min_rounds)
    name, condition = next(iter(conditions.items()))
    is_over = _after(seconds, warm.setup)

    def is_enough(rounds: Mapping[str, Sequence[float]]) -> bool:
        watch.look()
        done = len(rounds[name])
        speed = condition.batch_size / rounds[name][-1]
        emit(RoundTimed(condition=condition.label(), round=done, rounds=max(expected, done), images_per_s=speed))
        if max_rounds is not None:
            return done >= max_rounds
        if done < min_rounds:
            return False
        if is_over(rounds):
            return True
        return done % _CHECK_EVERY == 0 and all(own.is_enough for own in singles.values()) and _is_precise(rounds)

    watch = warm.setup.watch(warm.identity)
    rounds = warm.stopwatch.time_rounds(entrants, is_enough=is_enough, random=Random(), singles=singles)
    return rounds, watch.read()


def _after(seconds: float, setup: TimingSetup) -> Callable[[Mapping[str, Sequence[float]]], bool]:
    """Returns a function that is True after a number of seconds, but not before the minimum number of rounds."""
    start = setup.clock()
    return lambda rounds: setup.clock() - start >= seconds and len(next(iter(rounds.values()))) >= setup.min_rounds


def _is_precise(rounds: Mapping[str, Sequence[float]]) -> bool:
    reference = rounds[_REFERENCE]
    for name, own in rounds.items():
        if name != _REFERENCE:
            low, high = interval(own, reference)
            if high - low > 2 * _PRECISE * ratio(own, reference):
                return False
    return True


def summarize(
    own: Sequence[float],
    reference: Sequence[float],
    singles: Sequence[tuple[int, float]],
    *,
    batch_size: int,
) -> dict[str, Any]:
    """Returns the fields of a `Measurement` that are computed from its samples.

    Args:
        own: Seconds per call of the network, one value per round.
        reference: Seconds per call of the reference, in the same rounds.
        singles: Round and seconds of each single call.
        batch_size: Number of images per call.
    """
    ratios = [theirs / ours for ours, theirs in zip(own, reference, strict=True)]
    low, high = interval(own, reference)
    rounds, latency = tuple(i for i, _ in singles), tuple(seconds for _, seconds in singles)
    return {
        "ratio": ratio(own, reference),
        "ratio_low": low,
        "ratio_high": high,
        "ratio_spread": robust_spread(ratios),
        "images_per_s_raw": batch_size / statistics.median(own),
        **latency_figures(latency, rounds, own, reference),
        "call_seconds": tuple(own),
        "reference_seconds": tuple(reference),
        "latency_seconds": latency,
        "latency_rounds": rounds,
    }
