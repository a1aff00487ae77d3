"""The studies that are committed stay readable, for they are what users have on their disks."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from builders import fresh
from fakes import FakeMachine

from hilo_nas.cli import main
from hilo_nas.errors import StudyMismatchError
from hilo_nas.measurement import PROTOCOL
from hilo_nas.proxy.kinds.short_training import RECIPE
from hilo_nas.searching import RemeasureRequest, SearchConfig, run_remeasure, run_search
from hilo_nas.searching.configuration.resolve import plan_of
from hilo_nas.searching.sampling.optuna_study import OptunaStudy
from hilo_nas.searching.sampling.samplers import build_sampler
from hilo_nas.space import load_space
from hilo_nas.study.csv_files import render_trials
from hilo_nas.study.front import Front
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.stored_study import STUDIES_VARIABLE, StoredStudy
from hilo_nas.testing import use_evaluator

FOLDER = Path(__file__).parents[1] / "studies"
# Those that the folder's README tells of; others that lie there are a developer's own.
STUDIES = [FOLDER / name for name in re.findall(r"^\* `([^`]+)`:", (FOLDER / "README.md").read_text(), re.MULTILINE)]


def test_the_stored_sample_is_of_the_default_first_rung_and_none_of_it_diverged():
    folder = StoredStudy(FOLDER / "cifar10-sample")
    manifest, records = fresh(folder).manifest, fresh(folder).records
    plan = plan_of(SearchConfig.of(space="litv2_cifar"), load_space("litv2_cifar"))
    assert manifest.plan.budgets == plan.budgets[:1]
    trained = [record.score for record in records if record.state == "complete"]
    assert len(trained) == 100
    assert {score.images_seen for score in trained} == set(manifest.plan.budgets)
    assert min(score.value for score in trained) > 3 / manifest.data.num_classes


def test_there_are_stored_studies():
    assert STUDIES


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_stored_study_is_read_as_it_was_written(path):
    folder = StoredStudy(path)
    manifest, records = fresh(folder).manifest, fresh(folder).records
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest  # newer fields have their defaults, none is lost
    stored, written = (yaml.safe_load(text) for text in (folder.manifest_path.read_text(), manifest.to_yaml()))
    renamed = {"peers": "baselines", "eta": "reduction_factor"}
    stored = {renamed.get(name, name): value for name, value in stored.items()}
    assert _common(stored, written) == stored
    assert 0 < sum(record.is_measured for record in records) <= manifest.trials
    assert {score.plan_hash for record in records for score in record.scores} == {manifest.plan_hash}
    front = [record.number for record in Front.from_records(records).members]
    stored = (path / "front.csv").read_text().splitlines()[1:]
    assert front == [int(line.split(",")[0]) for line in stored]
    assert render_trials(Front.from_records(records)).count("\n") == 1 + len(records)
    assert len(Front.from_records(records).standings) == len(manifest.space.anchors)


def _common(stored, written):
    """What is written now of what was stored then: mappings may have gained entries."""
    if isinstance(stored, dict):
        return {name: _common(value, written[name]) for name, value in stored.items()}
    if isinstance(stored, list):
        return [_common(old, new) for old, new in zip(stored, written, strict=True)]
    return written


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """CIFAR-10's study, made when networks were timed by another protocol, where it may be written to."""
    monkeypatch.setenv(STUDIES_VARIABLE, str(tmp_path))
    shutil.copytree(FOLDER / "cifar10-cpu", tmp_path / "old", ignore=shutil.ignore_patterns(".lock", "study.db*"))
    return StoredStudy(tmp_path / "old")


@pytest.fixture
def machine(copy):
    """The machine that made it, as far as this version's timing goes."""
    machine = FakeMachine(devices={"cpu": fresh(copy).manifest.device})
    with use_evaluator(machine):
        yield machine


def test_a_study_of_an_older_protocol_is_read_in_every_way(copy, capsys):
    assert main(["front", "old"]) == 0
    table = capsys.readouterr().out
    assert "scored networks are on the front" in table
    assert main(["front", "old", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {record["measurements"][0]["protocol"] for record in content["front"]} == {1}
    assert main(["status", "old"]) == 0
    assert "10 of 10 networks measured" in capsys.readouterr().out
    out = copy.path.parent / "out"
    assert main(["export", "old", "--knee", "--format", "timm", "-o", str(out)]) == 0
    assert (out / "arch.yaml").is_file()


def test_a_study_of_an_older_protocol_is_refused_by_a_search_with_the_way_out(copy, machine):
    before = fresh(copy).records
    request = SearchConfig.of(study="old", trials=1)
    with pytest.raises(StudyMismatchError) as caught:
        run_search(request, lambda event: None)
    assert f"  timing protocol: 1 in the study, {PROTOCOL} now" in str(caught.value)
    assert str(caught.value).endswith("hilo-nas remeasure old")
    assert fresh(copy).records == before
    assert machine.measured == machine.scored == []


def test_a_study_of_an_older_protocol_that_was_timed_again_can_be_gone_on_with(copy, machine):
    before = fresh(copy).records
    run_remeasure(RemeasureRequest(study="old"), lambda event: None)
    after = fresh(copy).records
    assert [[m.protocol for m in record.measurements] for record in after] == [[PROTOCOL, 1]] * len(before)
    assert [record.measurements[1:] for record in after] == [record.measurements for record in before]
    assert [record.scores for record in after] == [record.scores for record in before]
    manifest = fresh(copy).manifest
    machine.data["content_hash"] = manifest.data.hash
    request = SearchConfig.of(study="old", data="digits", remeasure=False)
    with pytest.raises(StudyMismatchError, match="proxy recipe: 'adamw-1' in the study, 'adamw-2' now"):
        run_search(request, lambda event: None)
    # Only the recipe of its trainings stood in the way.
    fresh(copy).write_manifest(dataclasses.replace(manifest, plan=dataclasses.replace(manifest.plan, recipe=RECIPE)))
    assert run_search(request, lambda event: None)[1].measured == len(before)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_sampler_proposes_from_the_records_of_a_stored_study(path):
    folder = StoredStudy(path)
    manifest, records = fresh(folder).manifest, fresh(folder).records
    study = OptunaStudy(manifest.space, build_sampler(manifest.sampler, 0), limits=manifest.limits_in_force)
    proposal = study.propose(records)
    assert manifest.space.decode(proposal.params)
    told = [record for record in records if record.is_measured and record.params is not None]
    assert [trial.params for trial in study.trials[:-1]] == [record.params for record in told]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_committed_study_names_no_path_of_the_machine_that_made_it(path):
    for file in path.rglob("*.*"):
        if file.name in ("manifest.yaml", "trials.csv", "front.csv") or file.suffix == ".json":
            text = file.read_text()
            assert not any(f"{root}/" in text for root in ("/home", "/root", "/tmp", "/Users", "/mnt", "/data"))
