"""`hilo-nas proxy check` with real processes: killed, resumed, and with a repeated report."""

import contextlib
import csv
import io
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from builders import fresh
from fakes import FakeMachine
from procs import wait_for

from benchmarks.tables.__main__ import main as make_table
from hilo_nas.cli import main
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.testing import FakeEvaluator, use_evaluator

SPACE = """
patch_size: [2]
embed_dims: [8]
depths: [[1], [1], [1, 2, 3], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
alpha: [0.5]
window_size: [[1], [1], [2], [1]]
mlp_ratios: [2]
limits: {params_m: 0.5}
defaults: {img_size: 32, batch_size: 4, proxy_img_size: 16, proxy_batch_size: 64, proxy_images: 256}
"""
SETTINGS = "--data digits --device cpu --set proxy.rungs=2 --set timing.seconds=0.3"
OPTIONS = "--networks 3 --long-images 768 --training-free naswot --training-free dss"
RESUME = ["proxy", "check", *f"--study check {SETTINGS} {OPTIONS}".split()]
COMMAND = [*RESUME[:2], "tiny.yaml", *RESUME[2:], "-o", "benchmarks"]
BUDGETS = (128, 256, 768)
HILO_NAS = [sys.executable, "-c", "import sys; from hilo_nas.cli import main; sys.exit(main())"]


def trainings(folder, seed):
    """Every score of a seed, by network and images seen."""
    records = fresh(folder).records if folder.trials_path.is_dir() else []
    return [(record.number, s.images_seen, s.value) for record in records for s in record.scores if s.seed == seed]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A check that was killed in its long trainings, and then went on to its end."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(SPACE)
    folder = StoredStudy(home / "studies" / "check")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setenv("HILO_NAS_STUDIES_DIR", str(home / "studies"))
        patch.setenv("HILO_NAS_CACHE_DIR", str(home / "cache"))
        with subprocess.Popen([*HILO_NAS, *COMMAND], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            wait_for(lambda: trainings(folder, 1) or process.poll() is not None, seconds=240)
            process.kill()
            assert process.wait() == -signal.SIGKILL, process.communicate()[1].decode()
        before = fresh(folder).records
        assert trainings(folder, 1), "it never came to the long trainings"
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            assert main(COMMAND) == 0, err.getvalue()
    return SimpleNamespace(path=home, folder=folder, before=before, out=out.getvalue(), err=err.getvalue())


@pytest.mark.slow
def test_a_killed_check_ends_with_each_training_done_once(home):
    for seed, budgets, count in ((0, BUDGETS[:2], 3), (1, BUDGETS, 3), (2, BUDGETS, 3)):
        found = [(number, images) for number, images, _ in trainings(home.folder, seed)]
        assert found == [(number, images) for number in range(count) for images in budgets]
    records = fresh(home.folder).records
    assert [record.state for record in records] == ["complete"] * 3
    assert [[score.metric for score in record.other_scores] for record in records] == [["naswot", "dss"]] * 3
    assert len(list(home.folder.checkpoints_path.glob("*.pt"))) == 3 + 3 + 3


@pytest.mark.slow
def test_what_was_there_before_the_kill_is_there_after_it(home):
    records = fresh(home.folder).records
    assert home.before[0].scores
    for record, old in zip(records, home.before, strict=True):
        assert record.scores[: len(old.scores)] == old.scores
        assert (record.measurements, record.other_scores) == (old.measurements, old.other_scores)


@pytest.mark.slow
def test_its_report_compares_every_proxy_and_is_in_the_requested_folder(home):
    assert "3 networks; top-1 of the long training from" in home.out
    assert "at least 30 pairs" in home.out  # so few networks recommend no budget
    assert "trial 2, seed 1: top-1" in home.err
    (report,) = (home.path / "benchmarks").glob("proxy-check-cpu-check-*.md")
    assert (
        "hilo-nas proxy check tiny.yaml --study check --data digits --device cpu --set timing.seconds=0.3 "
        "--set proxy.rungs=2 --networks 3 --long-images 768 --training-free naswot --training-free dss\n"
    ) in report.read_text()
    table = report.with_suffix(".csv").read_text().splitlines()
    assert [row["proxy"] for row in csv.DictReader(table)] == [
        "long training, another seed",
        "top1@128",
        "likelihood@128",
        "top1@256",
        "likelihood@256",
        "params",
        "macs",
        "naswot",
        "dss",
        "images_per_s",
    ]
    assert report.with_suffix(".svg").read_text().startswith("<?xml")


@pytest.mark.slow
def test_the_report_is_made_again_from_the_study_alone(home, monkeypatch, capsys):
    monkeypatch.chdir(home.path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(home.path / "studies"))
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(home.path / "cache"))
    before = fresh(home.folder).records
    assert main([*RESUME, "--format", "csv"]) == 0  # the space is the study's
    (table,) = (home.path / "benchmarks").glob("proxy-check-cpu-check-*b4*[0-9].csv")
    assert capsys.readouterr().out == table.read_text()
    assert fresh(home.folder).records == before


@pytest.mark.slow
def test_other_networks_are_refused(home, monkeypatch, capsys):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(home.path / "studies"))
    assert main(["proxy", "check", "litv2_digits", "--data", "digits", "--study", "check"]) == 1
    assert "study check" in capsys.readouterr().err


@pytest.mark.slow
def test_a_table_of_some_of_them_goes_on_in_the_study_and_says_how_far_they_came(home, monkeypatch, capsys):
    monkeypatch.chdir(home.path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(home.path / "studies"))
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(home.path / "cache"))
    before = fresh(home.folder).records
    options = f"--study check {SETTINGS} --networks 2 --set study.checkpoint_mib=0"
    assert make_table(["tiny.yaml", *options.split()]) == 0
    scored = [[images for _, images, _ in trainings(home.folder, 0)].count(images) for images in BUDGETS[:2]]
    assert scored == [3, 3]
    top1 = [top1 for number, images, top1 in trainings(home.folder, 0) if images == 256 and number < 2]
    out = " ".join(capsys.readouterr().out.split())
    assert f"after 256 images: 2 networks, top1 from {min(top1):.3g} to {max(top1):.3g}" in out
    assert "after 768 images" not in out  # so far come other seeds alone
    assert "2 of 2 networks timed and trained" in out
    assert fresh(home.folder).records == before
    assert not list(home.folder.checkpoints_path.iterdir())


@pytest.mark.slow
def test_a_table_copies_its_trainings_and_is_timed_and_timed_again(home, monkeypatch):
    monkeypatch.chdir(home.path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(home.path / "studies"))
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(home.path / "cache"))
    folder = StoredStudy(home.path / "studies" / "anew")
    options = f"--study anew {SETTINGS} --networks 2 --set study.reuse=check"
    assert make_table(options.split()) == 0  # the space is that of the study reused
    there, here = fresh(home.folder).records[:2], fresh(folder).records
    assert [record.key for record in here] == [record.key for record in there]
    for old, new in zip(there, here, strict=True):
        assert new.scores == tuple(score for score in old.scores if score.images_seen <= 256)
        assert (new.state, new.origin) == ("complete", f"reuse:check/{old.number}")
        assert new.measurement.measured_at > old.measurement.measured_at
    assert main(["remeasure", "anew", "--all", "--seconds", "0.3"]) == 0
    again = fresh(folder).records
    assert [len(record.measurements) for record in again] == [2, 2]
    assert make_table(options.split()) == 0  # with nothing left to do it writes the table of the new timings
    with open(folder.path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["images_per_s"]) for row in rows] == [record.measurement.images_per_s for record in again]


def test_a_stopped_check_ends_with_130_and_says_that_all_is_kept(tmp_path, monkeypatch, capsys):
    def stop(task):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with use_evaluator(lambda logs, **options: FakeEvaluator(stop)):
        assert main(["proxy", "check", "litv2_digits", "--data", "digits", "--study", "new"]) == 130
    assert capsys.readouterr().err == "stopped; everything finished is kept\n"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--networks", "1"], "networks must be at least 2"),
        (["--training-free", "luck"], "naswot, zico, dss, but got luck"),
        (["--target", "nowhere"], "no study 'nowhere'"),
    ],
)
def test_what_cannot_be_checked_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys, options, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    arguments = ["proxy", "check", "litv2_digits", "--data", "digits", "--study", "new", *options]
    assert main(arguments) in (1, 2)
    assert text in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()


def test_a_picture_that_cannot_be_drawn_is_reported_and_stops_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["proxy", "check", "litv2_none", "--data", "digits", "--study", "new", "-o", "out"]) == 2
    told = capsys.readouterr().err
    assert "pip install 'hilo-nas[plot]'" in told
    assert "litv2_none" in told  # the fault is the space's, not the picture's


def test_settings_of_a_search_alone_are_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "search.yaml").write_text(
        "search: {trials: 40, sampler: gp, seed: 0}\nproxy: {reduction_factor: 2.0}\n"
    )
    options = ["--config", "search.yaml", "--study", "new", "--networks", "3", "--set", "study.reuse=nowhere"]
    with use_evaluator(FakeMachine()):
        assert main(["proxy", "check", "litv2_digits", *options]) == 0
    warned = " ".join(capsys.readouterr().err.split())
    assert (": proxy.reduction_factor, search.sampler, search.trials, study.reuse") in warned
