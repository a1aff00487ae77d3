"""The studies that are committed stay readable, for they are what users have on their disks."""

import re
from pathlib import Path

import pytest

from hilo_nas.report import build_trials_frame, compare_anchors
from hilo_nas.search.samplers import build_sampler
from hilo_nas.search.storage import Memory
from hilo_nas.study import StudyFolder, front_of

FOLDER = Path(__file__).parents[1] / "studies"
# Those that the folder's README tells of; others that lie there are a developer's own.
STUDIES = [FOLDER / name for name in re.findall(r"^\* `([^`]+)`:", (FOLDER / "README.md").read_text(), re.MULTILINE)]


def test_there_are_stored_studies():
    assert STUDIES


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_stored_study_is_read_as_it_was_written(path):
    folder = StudyFolder(path)
    manifest, records = folder.load_manifest(), folder.load_records()
    assert manifest.to_yaml() == folder.manifest_path.read_text()
    assert sum(record.is_measured for record in records) == manifest.trials
    assert {score.plan_hash for record in records for score in record.scores} == {manifest.plan_hash}
    front = [record.number for record in front_of(records)]
    stored = (path / "front.csv").read_text().splitlines()[1:]
    assert front == [int(line.split(",")[0]) for line in stored]
    assert len(build_trials_frame(records)) == len(records)
    assert len(compare_anchors(records)) == len(manifest.space.anchors)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_the_samplers_memory_of_a_stored_study_can_be_rebuilt(path, tmp_path):
    folder = StudyFolder(path)
    manifest, records = folder.load_manifest(), folder.load_records()
    memory = Memory(tmp_path / "study.db", manifest.space, build_sampler(manifest.sampler, 0), records)
    try:
        assert memory.rebuilt
        trial = memory.ask(records[0].params)
        assert trial.number == len(records)
    finally:
        memory.close()


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_a_committed_study_names_no_path_of_the_machine_that_made_it(path):
    for file in path.rglob("*.*"):
        if file.name in ("manifest.yaml", "trials.csv", "front.csv") or file.suffix == ".json":
            text = file.read_text()
            assert not any(f"{root}/" in text for root in ("/home", "/root", "/tmp", "/Users", "/mnt", "/data"))
