"""Stored times of the parts of networks."""

import dataclasses

import pytest
from builders import build_condition, build_device

from hilo_nas.arch.cost import PARTS
from hilo_nas.study.stage_times import PartTimes, StageTimes, fault_of_parts, load_stage_times

TIMES = PartTimes(
    condition=build_condition(fused=True).label(),
    device=build_device(),
    measured_at="2026-11-28T10:00:00Z",
    verdict="steady",
    seconds={part: 0.001 * (i + 1) for i, part in enumerate(PARTS)},
)


def test_times_come_back_as_they_were_written(tmp_path):
    stored = StageTimes(networks={"abc": TIMES})
    stored.write(tmp_path / "stages.json")
    assert load_stage_times(tmp_path / "stages.json") == stored


@pytest.mark.parametrize("text", ["", "{", "[]", '{"networks": {"a": 1}}', "[" * 5000])
def test_a_damaged_file_counts_as_none(tmp_path, text):
    (tmp_path / "stages.json").write_text(text)
    assert load_stage_times(tmp_path / "stages.json") == StageTimes()
    assert load_stage_times(tmp_path / "missing.json") == StageTimes()


def test_shares_add_up_in_the_order_of_the_parts():
    assert list(TIMES.shares) == list(PARTS)
    assert sum(TIMES.shares.values()) == pytest.approx(1)
    assert TIMES.shares["head"] == pytest.approx(6 / 21)


def test_times_fit_their_own_condition_and_device_only():
    objective = build_condition(fused=True)
    assert TIMES.fits(objective, build_device(serial="another of the same model"))
    assert not TIMES.fits(dataclasses.replace(objective, batch_size=1), build_device())
    assert not TIMES.fits(objective, build_device(torch="3.0.0"))
    assert not dataclasses.replace(TIMES, seconds={"head": 1.0}).fits(objective, build_device())


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"runtime": "onnxruntime", "fused": False}, "onnxruntime"),
        ({"fused": False}, "inference form"),
        ({"fused": False, "precision": "amp-bf16"}, "inference form"),
        ({"compile": True}, "torch.compile"),
        ({"precision": "amp-bf16"}, "autocast"),
    ],
)
def test_some_conditions_have_no_parts(changes, part):
    assert part in fault_of_parts(build_condition(**{"fused": True, **changes}))
    assert fault_of_parts(build_condition(fused=True)) is None
