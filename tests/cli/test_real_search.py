"""The main road with real processes: a search that is killed, resumed, refused, read and exported."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from builders import fresh
from procs import is_alive, list_descendants, wait_for

from hilo_nas.cli import main
from hilo_nas.study.stored_study import StoredStudy

SPACE = """
patch_size: [2]
embed_dims: [8, 16]
depths: [[1, 2], [1], [1, 2, 3], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
alpha: [0.0, 0.5, 1.0]
window_size: [[1], [1], [2], [1]]
mlp_ratios: [2]
defaults: {img_size: 32, batch_size: 4, proxy_img_size: 16, proxy_batch_size: 64, proxy_images: 1280, trials: 4}
"""
ENDED = ("complete", "stopped")
HILO_NAS = [sys.executable, "-c", "import sys; from hilo_nas.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a space, a cache and studies."""
    home = tmp_path_factory.mktemp("home")
    (home / "tiny.yaml").write_text(SPACE)
    return home


@pytest.fixture(scope="module")
def environment(home):
    return {**os.environ, "HILO_NAS_STUDIES_DIR": str(home / "studies"), "HILO_NAS_CACHE_DIR": str(home / "cache")}


def start(home, environment, *arguments):
    if arguments[0] == "search":
        arguments = (*arguments, "--set", "timing.seconds=0.3")
    return subprocess.Popen(
        [*HILO_NAS, *arguments], cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(home, environment, *arguments):
    process = start(home, environment, *arguments)
    out, err = process.communicate(timeout=240)
    return process.returncode, out, err


def wait_until(condition, process, what):
    """Waits until the search has come so far, or fails with what it said when it ended before."""
    assert wait_for(lambda: condition() or process.poll() is not None, seconds=120), f"never saw {what}"
    assert process.poll() is None, f"the search ended before {what}: {process.communicate()}"


def latest(folder):
    records = fresh(folder).records if folder.trials_path.is_dir() else []
    return records[-1] if records else None


def kill_when(home, environment, folder, condition, what, *arguments, by=signal.SIGKILL):
    process = start(home, environment, *arguments)
    wait_until(lambda: condition(latest(folder)), process, what)
    children = list_descendants(process.pid)
    process.send_signal(by)
    process.communicate(timeout=60)
    assert children, "there were no workers to leave behind"
    assert wait_for(lambda: not any(map(is_alive, children))), "workers outlived their search"
    return process.returncode


@pytest.fixture(scope="module")
def killed(home, environment):
    """A study of four networks whose search was killed in mid-timing, in mid-training and by SIGTERM."""
    folder = StoredStudy(home / "studies" / "killed")
    going_on = ("search", "--study", "killed")

    def is_timing(number):
        return lambda record: (
            record and record.number >= number and record.state == "running" and not record.measurements
        )

    def is_training(number):
        return lambda record: record and record.number >= number and record.state == "running" and record.measurements

    kill_when(
        home,
        environment,
        folder,
        is_timing(1),
        "timing",
        "search",
        "tiny.yaml",
        "--data",
        "digits",
        "--study",
        "killed",
        "--set",
        "search.sampler=random",  # which times a network in its trial, not before
    )
    cut_timing = latest(folder)
    kill_when(home, environment, folder, is_training(cut_timing.number + 1), "training", *going_on)
    cut_training = latest(folder)
    code = kill_when(
        home, environment, folder, is_training(cut_training.number + 1), "training", *going_on, by=signal.SIGTERM
    )
    assert code == 130
    code, out, err = finish(home, environment, *going_on)
    assert (code, err) == (0, "")
    return folder, cut_timing, cut_training, out


@pytest.mark.slow
def test_a_killed_search_ends_with_its_total_and_no_network_finished_twice(killed):
    folder, _, _, out = killed
    records = fresh(folder).records
    assert [record.number for record in records] == list(range(len(records)))
    ended = [record.key for record in records if record.state in ENDED]
    assert len(ended) == len(set(ended)) == 4
    assert {record.state for record in records} <= {*ENDED, "failed"}
    assert all(record.is_interrupted for record in records if record.state == "failed")
    assert "4 of 4 networks measured, all done" in out


@pytest.mark.slow
def test_what_a_kill_cut_off_was_tried_again_and_its_speed_not_paid_for_twice(killed):
    folder, cut_timing, cut_training, _ = killed
    records = fresh(folder).records
    for cut in (cut_timing, cut_training):
        assert records[cut.number].key == cut.key
        assert records[cut.number].state in ENDED
    # The front may have been timed again since, and a resume may have renewed the calibration: the rounds stay.
    kept = {measurement.call_seconds for measurement in records[cut_training.number].measurements}
    assert kept >= {measurement.call_seconds for measurement in cut_training.measurements}


@pytest.mark.slow
def test_the_study_holds_no_local_path_and_its_tables_are_written(killed, home):
    folder = killed[0]
    for name in ("manifest.yaml", "trials.csv", "front.csv", "trials/0000.json"):
        assert str(home) not in (folder.path / name).read_text()
    lines = (folder.path / "trials.csv").read_text().splitlines()
    assert lines[0].startswith("number,state,key,")
    assert len(lines) == 1 + len(fresh(folder).records)
    manifest = yaml.safe_load((folder.path / "manifest.yaml").read_text())
    assert manifest["data"]["name"] == "digits"
    (timing,) = manifest["timings"]
    assert timing["calibration"]["device"]["torch"] == manifest["training_device"]["torch"]


def without_timings(record):
    return dataclasses.replace(record, measurements=())


def rounds_of(record):
    """What was timed; images/s may change with the calibration, which a resume may renew."""
    return [(measurement.call_seconds, measurement.reference_seconds) for measurement in record.measurements]


@pytest.mark.slow
def test_until_trials_is_a_total_that_is_safe_to_repeat(killed, home, environment):
    folder = killed[0]
    before = fresh(folder).records
    code, out, _ = finish(home, environment, "search", "--study", "killed", "--until-trials", "4")
    assert code == 0
    # On a busy machine, contended timings are repeated; nothing else is done again.
    assert [without_timings(record) for record in fresh(folder).records] == [without_timings(r) for r in before]
    assert "4 of 4 networks measured, all done" in out


@pytest.mark.slow
def test_more_trials_come_on_top(killed, home, environment):
    folder = killed[0]
    code, out, _ = finish(home, environment, "search", "--study", str(folder.path), "--trials", "1")
    assert code == 0
    assert "5 of 5 networks measured" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "fields"),
    [
        (("--batch-size", "8"), ["timing.batch_size: 4 in the study, 8 now"]),
        (("--proxy-images", "64", "--precision", "bf16"), ["proxy.images: 1280 in", "timing.precision: 'fp32' in"]),
        (
            ("--set", "search.sampler=tpe", "--seed", "3"),
            ["search.sampler: 'random' in the study, 'tpe' now", "search.seed: 0 in the study, 3 now"],
        ),
        (("litv2_digits",), ["space: 'tiny ("]),
    ],
)
def test_going_on_under_other_conditions_is_refused_with_both_values(killed, home, environment, options, fields):
    before = fresh(killed[0]).records
    code, _, err = finish(home, environment, "search", *options, "--study", "killed", "--trials", "1")
    assert code == 1
    assert "Leave out the settings that differ" in err
    assert all(field in err for field in fields)
    assert fresh(killed[0]).records == before


@pytest.mark.slow
def test_other_data_is_refused(killed, home, environment):
    from PIL import Image

    for name in ("a", "b"):
        (home / "images" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (16, 16), (i * 50, 0, 100)).save(home / "images" / name / f"{name}{i}.png")
    code, _, err = finish(home, environment, "search", "--study", "killed", "--data", "images", "--trials", "1")
    assert code == 1
    assert "data.source: 'digits (" in err


@pytest.mark.slow
def test_another_torch_is_refused(killed, home, environment):
    copy = home / "studies" / "moved"
    shutil.copytree(killed[0].path, copy)
    text = (copy / "manifest.yaml").read_text()
    stored = yaml.safe_load(text)["timings"][0]["calibration"]["device"]["torch"]
    (copy / "manifest.yaml").write_text(text.replace(stored, "1.0.0"))
    code, _, err = finish(home, environment, "search", "--study", "moved", "--trials", "1")
    assert code == 1
    assert f"device torch: '1.0.0' in the study, '{stored}' now" in err


@pytest.mark.slow
def test_a_study_in_use_is_locked_for_writers_and_open_for_readers(killed, home, environment):
    folder = killed[0]
    total = sum(record.is_measured for record in fresh(folder).records)
    process = start(home, environment, "search", "--study", "killed", "--trials", "1")
    wait_until(lambda: latest(folder).state == "running", process, "a trial")
    code, _, err = finish(home, environment, "search", "--study", "killed")
    assert (code, "is locked" in err) == (1, True)
    assert finish(home, environment, "front", "killed")[0] == 0
    assert finish(home, environment, "status", "killed")[0] == 0
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert sum(record.is_measured for record in fresh(folder).records) == total + 1


@pytest.mark.slow
def test_ctrl_c_stops_with_130_and_keeps_everything_finished(killed, home, environment):
    folder = killed[0]
    finished = [record for record in fresh(folder).records if record.state in ENDED]
    process = start(home, environment, "search", "--study", "killed", "--trials", "2")
    wait_until(lambda: latest(folder).state == "running", process, "a trial")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "finished trials are kept" in err
    assert "Traceback" not in err
    records = fresh(folder).records
    kept = [record for record in records if record.state in ENDED][: len(finished)]
    assert [without_timings(record) for record in kept] == [without_timings(record) for record in finished]
    assert [rounds_of(record) for record in kept] == [rounds_of(record) for record in finished]
    assert "running" not in {record.state for record in records}


@pytest.mark.slow
def test_an_exported_trial_builds_the_same_network_in_timm(killed, home, environment):
    import timm

    import hilo_nas.models  # noqa: F401
    from hilo_nas.arch.config import ArchConfig

    code, out, _ = finish(home, environment, "export", "killed", "--knee", "--format", "timm", "-o", "out")
    assert code == 0
    options = yaml.safe_load((home / "out" / "train.yaml").read_text())
    model = timm.create_model(options["model"], num_classes=options["num_classes"], **options["model_kwargs"])
    provenance = yaml.safe_load((home / "out" / "provenance.yaml").read_text())
    assert model.arch.key() == provenance["key"]
    assert ArchConfig.from_dict(yaml.safe_load((home / "out" / "arch.yaml").read_text())).key() == provenance["key"]
    assert sum(weight.numel() for weight in model.parameters()) == provenance["params"]
    assert "wrote out/train.yaml" in out
    assert "hilo_nas.models.prepare_for_inference" in out


@pytest.mark.slow
def test_a_dry_run_says_what_it_would_cost_and_makes_no_study(home, environment):
    code, out, err = finish(
        home,
        environment,
        "search",
        "tiny.yaml",
        "--data",
        "digits",
        "--study",
        "dry",
        "--dry-run",
        "--set",
        "search.timeout_s=1h",
    )
    assert (code, err) == (0, "")
    assert "per trial (median of 3 networks" in out
    assert "4 trials: about" in out
    assert "within the timeout" in out
    assert "disk:" in out
    assert not (home / "studies" / "dry").exists()


@pytest.mark.slow
def test_a_dry_run_of_a_stored_study_prices_what_is_left_of_it(killed, environment, monkeypatch, capsys):
    for name in ("HILO_NAS_STUDIES_DIR", "HILO_NAS_CACHE_DIR"):
        monkeypatch.setenv(name, environment[name])
    before = fresh(killed[0]).records
    assert main(["search", "--study", "killed", "--trials", "7", "--dry-run"]) == 0
    assert "7 trials: about" in capsys.readouterr().out
    assert fresh(killed[0]).records == before


@pytest.mark.slow
def test_a_batch_at_which_the_reference_does_not_fit_is_an_error_and_makes_no_study(home, environment):
    code, _, err = finish(
        home, environment, "search", "tiny.yaml", "--data", "digits", "--study", "big", "--batch-size", "100000000"
    )
    assert code == 1
    assert "the reference network (timm:resnet18) must fit into memory" in err
    assert "Use a smaller --batch-size" in err
    assert not (home / "studies" / "big").exists()


@pytest.mark.slow
def test_the_records_are_json_that_other_tools_read(killed):
    content = json.loads((killed[0].trials_path / "0000.json").read_text())
    measurement = content["measurements"][0]
    assert len(measurement["reference_seconds"]) == len(measurement["call_seconds"])
    assert 0 < measurement["ratio_low"] <= measurement["ratio_high"]
    assert measurement["environment"]["OMP_WAIT_POLICY"] == "PASSIVE"
    assert measurement["form"].startswith("litv2/")
    seen = [score["images_seen"] for score in content["scores"]]
    assert seen == sorted(seen)
    assert seen[-1] == 1280  # an anchor is trained fully


@pytest.mark.slow
def test_the_same_commands_in_this_process_return_their_codes(killed, monkeypatch, capsys):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(killed[0].path.parent))
    assert main(["status", "killed"]) == 0
    assert "networks measured" in capsys.readouterr().out


@pytest.mark.long
def test_networks_of_timm_are_compared_with_where_they_can_run(home, environment):
    baselines = ("--set", "search.baselines=timm:test_resnet,timm:inception_v3")
    code, out, err = finish(
        home,
        environment,
        "search",
        "tiny.yaml",
        "--data",
        "digits",
        "--study",
        "baselines",
        "--until-trials",
        "1",
        *baselines,
    )
    assert (code, err) == (0, "")
    good, bad, own = StoredStudy(home / "studies" / "baselines").records
    assert (good.key, good.state, good.score.images_seen) == ("timm:test_resnet", "complete", 1280)
    assert (bad.key, bad.state) == ("timm:inception_v3", "failed")  # its kernels are larger than what is left of 32 px
    assert good.parameters > 1e5
    assert good.measurement.cohort == own.measurement.cohort
    assert "timm:inception_v3 is excluded from the comparison" in out
    assert "1 of 1 networks measured, all done" in out
    assert " timm:test_resnet (trial 0): " in out
