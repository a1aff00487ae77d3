"""`hilo-nas proxy check` with real processes: killed, stopped, gone on with, and its report made again without them."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from hilo_nas.cli import main
from hilo_nas.study import StudyFolder

SPACE = """
patch_size: [2]
embed_dims: [8]
depths: [[1], [1], [1, 2, 3], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
alpha: [0.5]
window_size: [[1], [1], [2], [1]]
mlp_ratios: [2]
defaults: {img_size: 32, batch_size: 4, proxy_img_size: 16, proxy_batch_size: 64, proxy_images: 256}
"""
CHECK = "tiny.yaml --data digits --study check --device cpu --networks 3 --rungs 2 --long-images 768 --second-seed 2"
COMMAND = ["proxy", "check", *CHECK.split(), "--seconds", "0.3", "--jobs", "1"]
BUDGETS = (128, 256, 768)
HILO_NAS = [sys.executable, "-c", "import sys; from hilo_nas.cli import main; sys.exit(main())"]


def trainings(folder, seed):
    """Every score of a seed, by network and images seen."""
    records = folder.load_records() if folder.trials_path.is_dir() else []
    return [(record.number, s.images_seen, s.proxy_top1) for record in records for s in record.scores if s.seed == seed]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A check that was killed in the proxy's trainings, stopped in the long ones, and then went on to its end."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(SPACE)
    folder = StudyFolder(home / "studies" / "check")
    environment = {
        **os.environ,
        "HILO_NAS_STUDIES_DIR": str(home / "studies"),
        "HILO_NAS_CACHE_DIR": str(home / "cache"),
    }

    def run(until=None, by=None):
        with subprocess.Popen(
            [*HILO_NAS, *COMMAND], cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                deadline = time.monotonic() + 240
                while until is not None and not until():
                    assert process.poll() is None, f"it ended too early: {process.communicate()}"
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                if by is not None:
                    process.send_signal(by)
                out, err = process.communicate(timeout=240)
            finally:
                process.kill()
        return process.returncode, out, err

    assert run(lambda: trainings(folder, 0), signal.SIGKILL)[0] == -signal.SIGKILL
    before = folder.load_records()
    code, _, err = run(lambda: trainings(folder, 1), signal.SIGTERM)
    assert (code, "everything finished is kept" in err) == (130, True)
    (home / "before.json").write_text(json.dumps([[r.key, [s.proxy_top1 for s in r.scores]] for r in before]))
    code, out, err = run()
    assert code == 0, err
    (home / "out.txt").write_text(out)
    (home / "err.txt").write_text(err)
    return home


def test_a_killed_check_ends_with_each_training_done_once(home):
    folder = StudyFolder(home / "studies" / "check")
    for seed, budgets, count in ((0, BUDGETS[:2], 3), (1, BUDGETS, 3), (2, BUDGETS, 2)):
        found = [(number, images) for number, images, _ in trainings(folder, seed)]
        assert found == [(number, images) for number in range(count) for images in budgets]
    records = folder.load_records()
    assert [record.state for record in records] == ["complete"] * 3
    assert {tuple(score.metric for score in record.other_scores) for record in records} == {("naswot", "zico", "dss")}
    for record, (key, top1s) in zip(records, json.loads((home / "before.json").read_text()), strict=True):
        assert record.key == key
        assert [score.proxy_top1 for score in record.scores][: len(top1s)] == top1s
    assert not list(folder.checkpoints_path.iterdir())


def test_what_was_cut_off_has_the_scores_of_a_training_in_one_piece(home):
    from hilo_nas.bench.table import list_swept
    from hilo_nas.proxy.data import describe_data
    from hilo_nas.proxy.train import run_training
    from hilo_nas.search.request import SearchRequest
    from hilo_nas.space import load_space

    folder = StudyFolder(home / "studies" / "check")
    network = list_swept(load_space(str(home / "tiny.yaml")), SearchRequest(), 3)[0]
    data = describe_data(
        source="digits",
        img_size=16,
        cache_dir=str(home / "cache"),
        val_data=None,
        group_by=None,
        emit=lambda event: None,
    )
    whole = run_training(
        emit=lambda event: None,
        subject=network.subject.to_dict(),
        plan=folder.load_manifest().plan.to_dict(),
        data=data,
        seed=1,
        device="cpu",
        until=768,
    )
    assert (0, 768, whole["proxy_top1"]) in trainings(folder, 1)


def test_its_report_compares_every_proxy_and_lies_in_the_benchmarks(home):
    out, err = (home / "out.txt").read_text(), (home / "err.txt").read_text()
    assert "3 networks; top-1 of the long training from" in out
    assert "nothing can be said of a budget" in out  # of so few networks
    assert "trial 2, seed 1: top-1" in err
    (report,) = (home / "benchmarks").glob("proxy-check-cpu-*.md")
    assert (
        "hilo-nas proxy check tiny.yaml --data digits --study check --networks 3 --long-images 768"
        in report.read_text()
    )
    table = report.with_suffix(".csv").read_text().splitlines()
    assert [row["proxy"] for row in csv.DictReader(table)] == [
        "long training, another seed",
        "top1@128",
        "top1@256",
        "params",
        "macs",
        "naswot",
        "zico",
        "dss",
        "images_per_s",
    ]
    assert report.with_suffix(".svg").read_text().startswith("<?xml")


def test_the_report_is_made_again_from_the_study_alone(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(home / "studies"))
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(home / "cache"))
    before = StudyFolder(home / "studies" / "check").load_records()
    assert main([*COMMAND, "--format", "csv", "--no-save"]) == 0
    (table,) = (home / "benchmarks").glob("proxy-check-cpu-*b4*[0-9].csv")
    assert capsys.readouterr().out == table.read_text()
    assert StudyFolder(home / "studies" / "check").load_records() == before


def test_other_networks_are_refused(home, monkeypatch, capsys):
    monkeypatch.chdir(home)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(home / "studies"))
    assert main(["proxy", "check", "litv2_digits", "--data", "digits", "--study", "check", "--no-save"]) == 1
    assert "holds others" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--networks", "1"], "networks must be at least 2"),
        (["--training-free", "luck"], "training_free must be of naswot, zico, dss, but got luck"),
        (["--target", "nowhere"], "no study 'nowhere'"),
    ],
)
def test_what_cannot_be_checked_is_refused_before_anything_is_made(tmp_path, monkeypatch, capsys, options, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    arguments = ["proxy", "check", "litv2_digits", "--data", "digits", "--study", "new", "--no-save", *options]
    assert main(arguments) in (1, 2)
    assert text in capsys.readouterr().err
    assert not (tmp_path / "studies").exists()


def test_a_picture_that_cannot_be_drawn_is_told_before_anything_is_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["proxy", "check", "litv2_digits", "--data", "digits", "--study", "new"]) == 2
    assert "pip install 'hilo-nas[plot]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
