"""Plain values for tests: hypothesis strategies and builders whose every field can be said by keyword.

Import it as `from builders import build_record` (pyproject puts `tests/` on the path).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import ArchConfig
from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.measurement import VERDICTS, Calibration, Condition, DeviceIdentity, Measurement, ProxyPlan, ProxyScore
from hilo_nas.measurement.rounds import ratio
from hilo_nas.space import SearchSpace, load_space
from hilo_nas.study.manifest import DataIdentity, Manifest
from hilo_nas.study.records import Subject, TrialRecord, write_record
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.transitions import interrupt
from hilo_nas.text.one_line import one_line

TINY = ArchConfig(
    embed_dims=(16, 32, 64, 128), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8), alpha=(0.5,) * 4, patch_size=2
)
"""The anchor of `litv2_digits`: inside that space, built in milliseconds."""

NOW = "2026-07-01T12:00:00+00:00"
VERSIONS = {"hilo_nas": "0.1.0", "torch": "2.9.0", "timm": "1.0.22"}


@functools.cache
def digits() -> SearchSpace:
    """The space `litv2_digits`, read once."""
    return load_space("litv2_digits")


def build_arch(i: int = 0, **fields: Any) -> ArchConfig:
    """An architecture of `litv2_digits`; each `i` from 0 to 31 is another network. `fields` replace its values."""
    depths = (1 + i % 2, 1 + i // 2 % 2, 1 + i // 4 % 4, 1 + i // 16 % 2)
    return dataclasses.replace(TINY, **{"depths": depths, **fields})


def build_device(**fields: Any) -> DeviceIdentity:
    """A CPU that never was."""
    values = {"kind": "cpu", "model": "Test CPU (2 cores)", "driver": "6.1", "torch": "2.9.0", "serial": "host-1"}
    return DeviceIdentity(**{**values, **fields})


def build_condition(**fields: Any) -> Condition:
    """CPU, batch 32, 32 px, fp32."""
    return Condition(**{"device": "cpu", "batch_size": 32, "img_size": 32, **fields})


def build_measurement(images_per_s: float = 1000.0, **fields: Any) -> Measurement:
    """A measurement of that speed; its samples agree with it. Spread and interval may be given in images/s."""
    reference = fields.pop("reference_images_per_s", 256.0)
    for end in ("spread", "low", "high"):
        if f"images_per_s_{end}" in fields:
            given = fields.pop(f"images_per_s_{end}")
            fields[f"ratio_{end}"] = None if given is None else given / reference
    condition = fields.get("condition", build_condition())
    call = condition.batch_size / images_per_s
    values: dict[str, Any] = {
        "condition": condition,
        "device": build_device(),
        "ratio": images_per_s / reference,
        "ratio_spread": images_per_s / reference / 100,
        "reference_images_per_s": reference,
        "images_per_s_raw": images_per_s * 0.98,
        "latency_ms_p50": 1000 * call,
        "latency_ms_p95": 1100 * call,
        "latency_ms_p99": 1200 * call,
        "memory_mib": 123.5,
        "call_seconds": (call, call, call),
        "reference_seconds": (condition.batch_size / 256,) * 3,
        "latency_seconds": (call, 1.1 * call, 1.2 * call),
        "steady": True,
        "warmup_calls": 5,
        "seconds": 2.5,
        "form": "litv2/1 dcn=torchvision",
        "threads": 2,
        "environment": {"OMP_NUM_THREADS": "2"},
        "versions": dict(VERSIONS),
        "measured_at": NOW,
    }
    return Measurement(**{**values, **fields})


def build_score(value: float = 0.5, **fields: Any) -> ProxyScore:
    """A score on 400 held-out images; its plan is that of `build_manifest` unless said otherwise.

    What guessing would score is told where the score lies clear of it, as reading a study would tell it.
    """
    values: dict[str, Any] = {
        "plan_hash": build_plan().hash(build_data().hash),
        "metric": "top1",
        "value": value,
        "standard_error": (max(value * (1 - value), 0.0) / 400) ** 0.5,
        "loss": 1.25,
        "n_val": 400,
        "chance": 0.1 if value > 0.2 else None,
        "images_seen": 3008,
        "seconds": 7.5,
        "seed": 0,
        "micro_batch_size": 64,
        "device": "cpu",
        "versions": dict(VERSIONS),
        "scored_at": NOW,
    }
    return ProxyScore(**{**values, **fields})


def build_record(
    number: int = 0,
    images_per_s: float | None = 1000.0,
    value: float | None = 0.5,
    *,
    arch: ArchConfig | None = None,
    state: str = "complete",
    **fields: Any,
) -> TrialRecord:
    """A trial of `build_arch(number)` unless `arch` is given; a speed or score of None was not taken."""
    arch = arch or build_arch(number)
    is_litv2 = fields.get("subject", Subject(arch=arch)).is_litv2
    baseline = {} if is_litv2 else {"plan_hash": build_plan().baseline_hash(build_data().hash)}
    values: dict[str, Any] = {
        "number": number,
        "subject": Subject(arch=arch),
        "state": TrialState(state),
        "parameters": count_params(arch, num_classes=10),
        "macs": count_macs(arch, 32, num_classes=10) if arch.stride <= 32 else None,
        "measurements": () if images_per_s is None else (build_measurement(images_per_s),),
        "scores": () if value is None else (build_score(value, **baseline),),
        "started_at": NOW,
        "finished_at": NOW,
        "seconds": 10.0,
    }
    return TrialRecord(**{**values, **fields})


def build_failed(number: int, reason: str = "the worker died", **fields: Any) -> TrialRecord:
    """A trial that failed before it was measured."""
    return build_record(number, None, None, state="failed", reason=reason, **fields)


def build_interrupted(number: int, **fields: Any) -> TrialRecord:
    """A trial that was interrupted before it was measured."""
    return interrupt(build_record(number, None, None, state="running", **fields))


def build_infeasible(
    number: int,
    images_per_s: float | None = 10.0,
    reason: str = "images_per_s >= 900 is a limit, but got 10",
    **fields: Any,
) -> TrialRecord:
    """A trial that was measured (unless the speed is None) and broke a limit."""
    return build_record(number, images_per_s, None, state="infeasible", reason=reason, **fields)


def build_data(**fields: Any) -> DataIdentity:
    """The digits, as a manifest names them."""
    return DataIdentity(**{"name": "digits", "hash": "0123456789abcdef", "num_classes": 10, "n_images": 1797, **fields})


def build_plan(**fields: Any) -> ProxyPlan:
    """3,000 images at 32 px, batch 64."""
    return ProxyPlan(**{"img_size": 32, "batch_size": 64, "images": 3000, "hflip": False, **fields})


def build_calibration(images_per_s: float = 256.0, **fields: Any) -> Calibration:
    """The reference's speed on the device of `build_device`."""
    values: dict[str, Any] = {
        "reference": "timm:resnet18",
        "images_per_s": images_per_s,
        "images_per_s_spread": 2.0,
        "call_seconds": (0.1,),
        "steady": True,
        "device": build_device(),
    }
    return Calibration(**{**values, **fields})


def build_manifest(name: str = "demo", *, space: SearchSpace | None = None, **fields: Any) -> Manifest:
    """The manifest of a study of `litv2_digits` on the device of `build_device`."""
    conditions = fields.get("conditions", (build_condition(),))
    device = fields.pop("device", build_device())
    values: dict[str, Any] = {
        "space": space or digits(),
        "conditions": conditions,
        "calibrations": {condition.label(): build_calibration(device=device) for condition in conditions},
        "data": build_data(),
        "plan": build_plan(),
        "sampler": "gp",
        "seed": 0,
        "trials": 12,
        "versions": dict(VERSIONS),
        "created_at": NOW,
    }
    return Manifest(name=name, **{**values, **fields})


def write_study(
    studies_dir: Path, name: str = "demo", records: Sequence[TrialRecord] = (), manifest: Manifest | None = None
) -> StoredStudy:
    """Writes a stored study (manifest and records) and returns it; nothing of it is loaded yet."""
    study = StoredStudy(studies_dir / name)
    study.trials_path.mkdir(parents=True)
    study.write_manifest(manifest or build_manifest(name))
    for record in records:
        write_record(study.trials_path, record)
    return fresh(study)


def fresh(study: StoredStudy) -> StoredStudy:
    """The study as another process would open it now: its files are read again."""
    return StoredStudy(study.path)


def build_cohort(
    speeds: Mapping[str, float],
    *,
    cohort: str = "cohort-1",
    condition: Condition | None = None,
    rounds: int = 16,
    own_noise: float = 0.002,
    **fields: Any,
) -> dict[str, Measurement]:
    """Measurements of networks that shared their rounds, by key: each round has a slowness of its own that all feel.

    Args:
        speeds: Images per second by key.
        cohort: What the measurements call it.
        condition: That of `build_condition` unless given.
        rounds: How many.
        own_noise: Relative standard deviation of what each network feels alone.
        fields: Of every measurement.
    """
    condition = condition or build_condition()
    random = Random(cohort)
    slowness = [1 + abs(random.gauss(0, 0.1)) for _ in range(rounds)]
    found = {}
    for key, images_per_s in speeds.items():
        call = condition.batch_size / images_per_s
        calls = [call * slow * (1 + random.gauss(0, own_noise)) for slow in slowness]
        reference = tuple(condition.batch_size / 256 * slow for slow in slowness)
        luck = ratio(calls, reference) / (images_per_s / 256)
        found[key] = build_measurement(
            images_per_s,
            condition=condition,
            cohort=cohort,
            call_seconds=tuple(seconds * luck for seconds in calls),
            reference_seconds=reference,
            images_per_s_low=images_per_s * 0.97,
            images_per_s_high=images_per_s * 1.03,
            verdict="steady",
            **fields,
        )
    return found


def demo_records() -> list[TrialRecord]:
    """Seven trials: an anchor that is beaten, a front of 2, 3 and 4 (the knee is 3), an infeasible and a failed one."""
    return [
        build_record(0, 800.0, 0.60, origin="anchor:litv2_tiny", arch=TINY),
        build_record(1, 700.0, 0.55),
        build_record(2, 500.0, 0.80),
        build_record(3, 900.0, 0.75),
        build_record(4, 1000.0, 0.50, arch=build_arch(8)),
        build_infeasible(5),
        build_failed(6),
    ]


# Strategies.


KINDS = (*["none", "hilo"] * 4, *ATTENTION_KINDS)
"""Every kind of attention; about half of the draws are of the two that LITv2 has."""


@st.composite
def archs(draw: st.DrawFn, *, max_width: int = 24, max_depth: int = 2, kinds: Sequence[str] = KINDS) -> ArchConfig:
    """Valid architectures: free widths, any kind of attention anywhere, dead knobs spelled in many ways."""
    stages = []
    for _ in range(4):
        heads = draw(st.integers(1, 4))
        kind = draw(st.sampled_from(list(kinds)))
        width = heads * draw(st.integers(1, max(1, max_width // heads)))
        stages.append(
            {
                "embed_dims": width,
                "depths": draw(st.integers(1, max_depth)),
                "num_heads": heads if kind != "none" else draw(st.integers(1, 9)),
                "attention": kind,
                "alpha": draw(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.6, 0.9, 1.0]) | st.floats(0, 1)),
                "window_size": draw(st.integers(1, 4)),
                "mlp_ratios": draw(st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.0]) | st.floats(1, 4)),
            }
        )
    fields = {name: tuple(stage[name] for stage in stages) for name in stages[0]}
    return ArchConfig(patch_size=draw(st.sampled_from([1, 2, 3, 4])), **fields)


_positive = st.floats(1e-6, 1e9, allow_nan=False)
_text = st.text(max_size=12).map(one_line)
"""Texts as a search stores them: each on one line."""
_versions = st.dictionaries(_text, _text, max_size=3)
_seconds = st.lists(_positive, min_size=1, max_size=4).map(tuple)

conditions = st.builds(
    Condition,
    device=st.sampled_from(["cpu", "cuda", "mps"]),
    batch_size=st.integers(1, 4096),
    img_size=st.integers(1, 1024),
    precision=st.sampled_from(["fp32", "bf16", "fp16", "amp-bf16", "amp-fp16"]),
    channels_last=st.booleans(),
    compile=st.booleans(),
    threads=st.none() | st.integers(1, 64),
    env=st.sampled_from(["tuned", "default"]),
    fused=st.booleans(),
)
devices = st.builds(DeviceIdentity, kind=_text, model=_text, driver=_text, torch=_text, serial=_text)
_rounds = st.lists(_positive, min_size=3, max_size=3).map(tuple)
measurements = st.builds(
    Measurement,
    condition=conditions,
    device=devices,
    ratio=_positive,
    ratio_spread=_positive,
    reference_images_per_s=_positive,
    images_per_s_raw=_positive,
    latency_ms_p50=_positive,
    latency_ms_p95=_positive,
    latency_ms_p99=_positive,
    memory_mib=st.none() | _positive,
    call_seconds=_rounds,
    reference_seconds=_rounds,
    latency_seconds=_seconds,
    steady=st.booleans(),
    warmup_calls=st.integers(0, 1000),
    seconds=_positive,
    form=_text,
    threads=st.integers(1, 64),
    environment=_versions,
    versions=_versions,
    measured_at=_text,
    ratio_low=st.none() | _positive,
    ratio_high=st.none() | _positive,
    verdict=st.none() | st.sampled_from(VERDICTS),
    cohort=_text,
    beside=st.dictionaries(_text, _rounds, max_size=2),
    device_state=st.dictionaries(_text, _positive | st.lists(_text, max_size=2), max_size=2),
)
scores = st.builds(
    ProxyScore,
    plan_hash=_text,
    metric=st.sampled_from(["top1", "balanced"]),
    value=st.floats(0, 1),
    standard_error=st.floats(0, 1),
    loss=st.none() | _positive,
    n_val=st.integers(1, 10**6),
    images_seen=st.integers(1, 10**9),
    seconds=_positive,
    seed=st.integers(0, 2**32),
    micro_batch_size=st.integers(1, 4096),
    device=_text,
    versions=_versions,
    scored_at=_text,
    seeds=st.integers(1, 9),
)
records = st.builds(
    TrialRecord,
    number=st.integers(0, 10**6),
    subject=st.one_of(archs().map(lambda arch: Subject(arch=arch)), _text.map(lambda name: Subject(timm=name))),
    state=st.sampled_from(TrialState),
    params=st.none() | st.dictionaries(_text, st.integers(0, 20), max_size=4),
    origin=_text,
    reason=st.none() | _text,
    parameters=st.none() | st.integers(0, 10**12),
    macs=st.none() | st.integers(0, 10**15),
    violations=st.dictionaries(_text, st.floats(-10, 10), max_size=3),
    imputed=st.dictionaries(_text, st.floats(-10, 10), max_size=2),
    sampler_memory=st.dictionaries(_text, st.integers() | _text, max_size=2),
    measurements=st.lists(measurements, max_size=2).map(tuple),
    scores=st.lists(scores, max_size=2).map(tuple),
    other_scores=st.lists(scores, max_size=1).map(tuple),
    started_at=st.none() | _text,
    finished_at=st.none() | _text,
    seconds=st.floats(0, 1e6),
)
"""Trial records of every kind, for round trips."""
