"""Studies that were stored by schema 1 are read with the values that they had, and go on."""

import json
import shutil
from pathlib import Path

import pytest
from builders import build_record, fresh, write_study
from fakes import FakeMachine

from hilo_nas.errors import RecordError
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import SCHEMA_VERSION, TrialRecord
from hilo_nas.study.schema_1 import upgraded, upgraded_manifest
from hilo_nas.study.stored_study import StoredStudy

ASSETS = Path(__file__).parents[1] / "assets" / "schema_1"
# Images/s, half of their 95 % interval and the score, as the version that stored them read them.
FIGURES = {
    "protocol_1": {
        0: (2439.681870901751, 158.81051728793065, 0.3955),
        3: (2013.9186336144487, 37.94077136280765, 0.426),
    },
    "search": {
        0: (1360.2724586310828, 103.86998979719294, 3.075074),
        2: (166.31026872369918, 11.463648386000983, 5.482786),
    },
}
FRONTS = {"protocol_1": [6, 3, 9], "search": [0, 3, 2]}


@pytest.mark.parametrize("name", FIGURES)
def test_its_values_and_its_front_are_what_they_were(name):
    records = StoredStudy(ASSETS / name).records
    found = {r.number: (r.measurement.images_per_s, r.measurement.half_width, r.score.value) for r in records}
    for number, figures in FIGURES[name].items():
        assert found[number] == pytest.approx(figures, rel=1e-12)
    assert [record.number for record in Front.from_records(records).members] == FRONTS[name]
    assert {record.schema_version for record in records} == {SCHEMA_VERSION}


@pytest.mark.parametrize("name", FIGURES)
def test_written_again_it_is_of_this_schema_and_says_the_same(name, tmp_path):
    stored = StoredStudy(ASSETS / name)
    copy = write_study(tmp_path, name, fresh(stored).records, fresh(stored).manifest)
    for path in copy.trials_path.iterdir():
        assert json.loads(path.read_text())["schema_version"] == SCHEMA_VERSION
    assert fresh(copy).records == fresh(stored).records
    assert fresh(copy).manifest == fresh(stored).manifest


def test_its_search_goes_on_and_changes_no_record_of_before(tmp_path):
    shutil.copytree(ASSETS / "search", tmp_path / "s")
    folder = StoredStudy(tmp_path / "s")
    before = fresh(folder).records
    machine = FakeMachine(devices={"cpu": fresh(folder).manifest.device})
    machine.form = before[0].measurement.form
    request = SearchConfig.of(study=folder.path, until_trials=6, remeasure=False)
    run_search(request, lambda event: None, evaluator=machine)
    after = fresh(folder).records
    assert [r.key for r in after[: len(before)]] == [r.key for r in before]
    assert [r.measurement.ratio for r in after[: len(before)]] == [r.measurement.ratio for r in before]
    assert sum(record.is_measured for record in after) == 6


def test_the_number_of_a_gpu_is_in_no_condition_and_no_label():
    record = build_record(0).to_dict()
    fields = {
        **record,
        "schema_version": 1,
        "measurements": [],
        "violations": {"latency_ms@cuda1-b1-32px-fp32": -0.1, "params_m": -1.0},
    }
    assert set(upgraded(fields)["violations"]) == {"latency_ms@cuda-b1-32px-fp32", "params_m"}
    manifest = {
        "schema_version": 1,
        "conditions": [{"device": "cuda:1", "batch_size": 8, "img_size": 32}],
        "calibrations": {"cuda1-b8-32px-fp32": {"reference": "timm:resnet18"}},
        "limits": {"images_per_s@cuda1-b8-32px-fp32": 900.0},
    }
    found = upgraded_manifest(manifest)
    assert found["timings"] == [
        {
            "condition": {"device": "cuda", "batch_size": 8, "img_size": 32},
            "calibration": {"reference": "timm:resnet18"},
        }
    ]
    assert found["limits"] == {"images_per_s@cuda-b8-32px-fp32": 900.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("measurements", 3),
        ("measurements", [{"call_seconds": 3}]),
        ("measurements", ["x"]),
        ("scores", {"a": 1}),
        ("scores", [3]),
        ("imputed", 3),
        ("violations", [1]),
        ("origin", 3),
        ("reason", ["x"]),
        ("state", {}),
    ],
)
def test_a_wrong_value_is_named_and_no_accident(name, value):
    fields = {**build_record(3).to_dict(), "schema_version": 1, "measurements": [], name: value}
    with pytest.raises(RecordError, match=name if name != "measurements" or value == 3 else "measurement"):
        TrialRecord.from_dict(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("conditions:", "condition:"),
        lambda text: text.replace("device: cpu,", "device: 3,"),
        lambda text: text.replace("batch_size: 64", "batch_size: x"),
        lambda text: text.replace("  cpu-b64", "  cpu-b65"),
    ],
)
def test_a_changed_manifest_is_refused(change):
    text = (ASSETS / "search" / "manifest.yaml").read_text()
    assert change(text) != text
    with pytest.raises(RecordError):
        Manifest.from_yaml(change(text))
