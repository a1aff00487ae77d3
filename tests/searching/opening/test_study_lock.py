"""The lock of a study: a second search is refused early, and what is no running study is none of its business."""

import os
import subprocess
import sys

import pytest
from builders import demo_records, write_study

import hilo_nas
from hilo_nas.errors import StorageError, StudyLockedError
from hilo_nas.searching.opening.study_lock import check_unlocked, locked

CHILD = """
import sys
from hilo_nas.cli import main
print(main(["search", "--study", "demo", *sys.argv[1:]]), *({"torch", "timm", "optuna", "scipy"} & set(sys.modules)))
"""


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, "demo", demo_records())


def test_a_study_in_use_is_refused_by_name_and_by_folder(study):
    with locked(study):
        for name in ("demo", study.path, str(study.path)):
            with pytest.raises(StudyLockedError, match="study demo is locked, because another search is running in it"):
                check_unlocked(name)
    check_unlocked("demo")


def test_the_check_keeps_no_lock(study):
    check_unlocked("demo")
    with locked(study):
        pass


def test_a_study_that_does_not_exist_is_skipped_and_not_made(tmp_path):
    check_unlocked("none")
    assert not list(tmp_path.iterdir())


def test_no_lock_is_taken_through_a_link(study, tmp_path):
    (tmp_path / "mine").write_text("mine")
    study.lock_path.symlink_to(tmp_path / "mine")
    with pytest.raises(StorageError, match="must be a file, but is a link"):
        check_unlocked("demo")
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_python_api_refuses_before_it_plans(study):
    with locked(study), pytest.raises(StudyLockedError):
        hilo_nas.search(study="demo", hours=1.0)


@pytest.mark.parametrize("options", [[], ["--trials", "3"], ["--hours", "1"]])
def test_a_second_search_is_refused_before_it_imports_what_is_slow(study, tmp_path, options):
    with locked(study):
        child = [sys.executable, "-c", CHILD, *options]
        done = subprocess.run(child, capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.split() == ["1"]
    assert "is locked" in done.stderr
