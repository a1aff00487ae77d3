"""Wrong input of every kind: a clear message, the right exit code, no traceback, nothing left behind."""

import json

import pytest
from builders import (
    build_failed,
    build_infeasible,
    build_manifest,
    build_record,
    build_score,
    demo_records,
    write_study,
)
from PIL import Image

from hilo_nas.cli import main
from hilo_nas.text.commands import FLAGS

GOOD = """
patch_size: [2]
embed_dims: [8, 16]
depths: [[1], [1], [1, 2], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
window_size: [[1], [1], [2], [1]]
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    return tmp_path


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail, and returns what it said, as one line."""

    def run(*arguments, code):
        assert main(list(arguments)) == code
        err = capsys.readouterr().err
        assert "Traceback" not in err
        return " ".join(err.replace("│", " ").split())

    return run


def no_study_was_made(home):
    return not list(home.glob("studies/*"))


@pytest.mark.parametrize("value", ["0", "-4"])
@pytest.mark.parametrize("option", ["--trials", "--until-trials", "--batch-size", "--proxy-images", "--proxy-img-size"])
def test_counts_below_one_are_refused(refused, home, option, value):
    said = refused("search", option, value, code=2)
    name = next(name for name, flag in FLAGS.items() if flag == option)
    assert f"{name} must be at least 1, but got {value}" in said
    assert no_study_was_made(home)


@pytest.mark.parametrize("option", ["--trials", "--batch-size", "--seed"])
def test_words_for_numbers_are_refused(refused, option):
    assert f"Invalid value for '{option}'" in refused("search", option, "many", code=2)


def test_a_duration_that_is_none_is_refused(refused):
    said = refused("search", "--set", "search.timeout_s=soon", code=2)
    assert "search.timeout_s: a duration must be above 0, such as 90s, 30m or 1h30m, but got 'soon'" in said


def test_an_unknown_option_is_refused(refused):
    assert "No such option: --trails" in refused("search", "--trails", "3", code=2)


def test_an_unknown_device_is_refused(refused, home):
    said = refused("search", "--device", "tpu", code=2)
    assert "device must be cpu, cuda, cuda:N or mps, but got 'tpu'" in said
    assert no_study_was_made(home)


@pytest.mark.slow
def test_a_gpu_that_is_not_there_is_refused(refused, home):
    import torch

    if torch.cuda.device_count() > 99:
        pytest.skip("this machine has it")
    said = refused("search", "--device", "cuda:99", code=2)
    assert "this machine has no device cuda:99" in said
    assert "Use one of" in said
    assert no_study_was_made(home)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.yaml", "", "is empty"),
        ("broken.yaml", "depths: [[1, 2", "is not YAML"),
        ("list.yaml", "- 1\n- 2\n", "must be a mapping of knobs"),
        ("novalues.yaml", GOOD.replace("[8, 16]", "[]"), "line 3: embed_dims has no values"),
        ("heads.yaml", GOOD.replace("head_dim: [8]", "head_dim: [7]"), "7 does not divide"),
        ("window.yaml", GOOD.replace("[[1], [1], [2], [1]]", "[[1], [1], [0], [1]]"), "at least 1, but got 0"),
        ("alpha.yaml", GOOD + "alpha: [0.5, 1.5]\n", "line 8: alpha must be in [0, 1], but got 1.5"),
        ("typo.yaml", GOOD.replace("depths", "depth"), "Did you mean depths?"),
    ],
)
@pytest.mark.parametrize("command", [("space", "check"), ("search",)])
def test_a_faulty_space_is_refused_with_its_line(refused, home, command, name, text, message):
    (home / name).write_text(text)
    assert message in refused(*command, name, code=2)
    assert no_study_was_made(home)


def test_a_space_that_is_not_there_is_refused_with_near_names(refused):
    assert "Did you mean litv2_cifar" in refused("space", "show", "litv2_cifr", code=2)
    assert "no search space file at nowhere.yaml" in refused("search", "nowhere.yaml", code=2)


@pytest.mark.parametrize("option", ["--img-size", "--proxy-img-size"])
def test_images_smaller_than_the_stride_are_refused(refused, home, option):
    said = refused("search", option, "8", code=2)
    assert "must be at least 16 for patch_size 2 (eight patches per side), but got 8" in said
    assert no_study_was_made(home)


def test_a_search_without_images_says_what_data_it_takes(refused, home):
    assert "--data" in refused("search", "litv2_cifar", "--device", "cpu", code=2)
    assert no_study_was_made(home)


def images(folder, classes, count=6):
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 20), (i * 40, 90, 10)).save(folder / name / f"{i}.png")


@pytest.mark.slow
def test_data_that_is_not_there_is_refused(refused, home):
    said = refused("search", "--data", "nowhere/train", code=1)
    assert "nowhere/train" in said
    assert no_study_was_made(home)


@pytest.mark.slow
def test_data_of_one_class_is_refused(refused, home):
    images(home / "data", ["only"])
    assert "class" in refused("search", "--data", "data", code=1)
    assert no_study_was_made(home)


def write_function(home, body):
    (home / "scans.py").write_text("def load():\n" + "".join(f"    {line}\n" for line in body.splitlines()))


@pytest.mark.slow
def test_a_function_that_is_not_there_is_refused_with_the_nearest_name(refused, home):
    write_function(home, "pass")
    assert "there is no file scan.py. Did you mean scans.py?" in refused("search", "--data", "scan.py:load", code=2)
    assert "has no function 'laod'. Did you mean load?" in refused("search", "--data", "scans.py:laod", code=2)
    assert no_study_was_made(home)


@pytest.mark.slow
def test_an_error_of_a_function_of_images_is_reported_with_its_place(refused, home):
    write_function(home, "yield b'', 'a'\nraise LookupError('the disk is gone')")
    said = refused("search", "--data", "scans:load", code=1)
    assert "scans:load raised LookupError: the disk is gone (scans.py, line 3)" in said
    assert no_study_was_made(home)


@pytest.mark.slow
def test_what_a_function_of_images_gives_is_checked(refused, home):
    write_function(home, "return [('cat.png', 'cat')]")
    said = refused("search", "--data", "scans.py:load", code=1)
    assert "item 0 of scans.py:load: image must be a PIL image" in said
    assert "but is 'cat.png' (str)" in said
    assert no_study_was_made(home)


def test_a_group_that_is_no_regular_expression_is_refused_with_the_position(refused, home):
    said = refused("search", "--set", "data.group_by=patient(", code=2)
    assert "data.group_by must be a regular expression, but got 'patient('" in said
    assert "at position 7" in said
    assert no_study_was_made(home)


def test_groups_without_a_split_are_refused(refused, home):
    said = refused("search", "--data", "digits", "--set", "data.val_source=d", "--set", "data.group_by=p", code=2)
    assert "either data.group_by or data.val_source, not both" in said
    assert no_study_was_made(home)


@pytest.mark.slow
def test_groups_that_leave_a_class_on_one_side_are_refused_with_the_class(refused, home):
    images(home / "data", ["a", "b"])
    said = refused("search", "--data", "data", "--set", "data.group_by=^[^/]+", code=1)
    assert "the 6 of 'a'" in said
    assert "data.group_by" in said
    assert no_study_was_made(home)


@pytest.mark.slow
def test_a_broken_image_is_named(refused, home):
    images(home / "data", ["a", "b"])
    (home / "data" / "b" / "3.png").write_bytes(b"\x89PNG not at all")
    assert "b/3.png" in refused("search", "--data", "data", code=1)
    assert no_study_was_made(home)


@pytest.mark.parametrize("command", [("status",), ("front",), ("search", "--study")])
def test_an_unknown_study_is_refused_with_near_names(refused, home, command):
    write_study(home / "studies", "my-gpu", demo_records())
    assert "Did you mean my-gpu?" in refused(*command, "my-gqu", code=2)


def test_a_new_studys_folder_must_be_one_that_a_command_line_can_name(refused, home):
    said = refused("search", "litv2_digits", "--study", "a/-b", code=2)
    assert "after the path of its parent folder, but got 'a/-b'" in said
    assert no_study_was_made(home)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        ("99", "study demo has no trial 99: its trials are 0 to 6"),
        ("5", "trial 5 of study demo is infeasible (images_per_s >= 900 is a limit, but got 10)"),
        ("6", "trial 6 of study demo is failed (the worker died)"),
    ],
)
def test_a_trial_that_cannot_be_exported_says_why(refused, home, number, message):
    write_study(home / "studies", "demo", demo_records())
    said = refused("export", "demo", "--trial", number, "-o", "out", code=2)
    assert message in said
    assert not (home / "out").exists()


def test_a_stopped_trial_is_not_exported_and_the_message_says_how_to_train_it(refused, home):
    reason = "others did better after 1,024 of 3,008 images"
    rung = (build_score(0.9, images_seen=1024),)
    stopped = build_record(7, 2000.0, state="stopped", reason=reason, scores=rung)
    write_study(home / "studies", "demo", [*demo_records(), stopped])
    said = refused("export", "demo", "--trial", "7", "-o", "out", code=2)
    assert f"trial 7 of study demo was stopped after 1,024 images ({reason}). Trials on the front: 4, 3, 2." in said
    assert "--set study.reuse=demo --set proxy.reduction_factor=0" in said
    assert not (home / "out").exists()


def test_an_export_needs_one_way_of_choosing_and_a_known_format(refused, home):
    write_study(home / "studies", "demo", demo_records())
    assert "exactly one of a trial" in refused("export", "demo", "-o", "out", code=2)
    assert "exactly one of a trial" in refused("export", "demo", "--knee", "--trial", "2", "-o", "out", code=2)
    assert "format must be one of timm" in refused("export", "demo", "--knee", "--format", "caffe", "-o", "o", code=2)


def test_a_speed_that_no_trial_reaches_is_refused_with_the_fastest(refused, home):
    write_study(home / "studies", "demo", demo_records())
    said = refused("export", "demo", "--min-images-per-s", "1e9", "-o", "out", code=2)
    assert "the best, trial 4, has images_per_s 1000" in said


def test_a_study_without_a_scored_network_has_no_knee(refused, home):
    write_study(home / "studies", "demo", [build_failed(0), build_infeasible(1)])
    assert "no complete trial yet" in refused("export", "demo", "--knee", "-o", "out", code=2)


@pytest.mark.parametrize("part", ["manifest", "record"])
def test_a_study_of_a_newer_version_is_refused_and_left_alone(refused, home, part):
    folder = write_study(home / "studies", "demo", [build_record(0)])
    path = folder.manifest_path if part == "manifest" else folder.trials_path / "0000.json"
    text = path.read_text().replace("schema_version: 2", "schema_version: 99")
    path.write_text(text.replace('"schema_version": 2', '"schema_version": 99'))
    before = path.read_text()
    for command in (("front", "demo"), ("status", "demo"), ("search", "--study", "demo")):
        said = refused(*command, code=1)
        assert "Upgrade hilo-nas" in said
    assert path.read_text() == before


def test_a_torn_record_is_named(refused, home):
    folder = write_study(home / "studies", "demo", [build_record(0), build_record(1)])
    path = folder.trials_path / "0001.json"
    path.write_text(path.read_text()[:200])
    assert "0001.json: it is not complete JSON" in refused("front", "demo", code=1)


def test_a_studies_folder_that_cannot_be_written_is_an_error_before_anything_is_spent(refused, home):
    (home / "studies").write_text("a file where the folder should be")
    said = refused("search", code=1)
    assert "plain files and folders, but in studies/litv2_digits" in said
    assert "Move them away" in said


def test_a_refused_search_deletes_nothing_that_was_there(refused, home):
    folder = home / "studies" / "litv2_digits"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    refused("search", "--img-size", "8", code=2)
    assert (folder / "notes.txt").read_text() == "mine"


def test_trials_without_a_manifest_are_neither_adopted_nor_deleted(refused, home):
    folder = write_study(home / "studies", "litv2_digits", [build_record(0)])
    folder.manifest_path.unlink()
    said = refused("search", "litv2_digits", "--study", "litv2_digits", code=1)
    assert "holds a study, but its manifest.yaml is missing. Repair the study: hilo-nas repair" in said
    assert (folder.trials_path / "0000.json").is_file()


def test_an_anchor_that_is_too_coarse_for_the_images_is_named(refused, home):
    anchor = "anchors: {coarse: {preset: litv2_small, outside: true}}\n"
    (home / "space.yaml").write_text(GOOD + anchor)
    said = refused("search", "space.yaml", "--data", "digits", "--img-size", "16", code=2)
    assert "must be at least 32 for anchor coarse" in said


@pytest.mark.slow
def test_a_refused_search_writes_no_tables(refused, home):
    folder = write_study(home / "studies", "demo", [build_record(0)])
    refused("search", "--study", "demo", "--seed", "9", code=1)
    assert not (folder.path / "trials.csv").exists()


def test_a_tampered_manifest_is_refused(refused, home):
    folder = write_study(home / "studies", "demo", [build_record(0)], build_manifest("demo"))
    text = folder.manifest_path.read_text()
    folder.manifest_path.write_text(text.replace("val_images: 4000", "val_images: 9000"))
    assert "the plan was changed" in refused("search", "--study", "demo", code=1)


def test_debug_shows_the_traceback(home):
    from hilo_nas.errors import NotFoundError

    with pytest.raises(NotFoundError):
        main(["--debug", "status", "nothing"])


def test_an_empty_cache_is_listed_and_a_wrong_name_refused(refused, home, capsys):
    assert main(["cache", "list"]) == 0
    assert capsys.readouterr().out.startswith("0 sets in ")
    assert "ghost" in refused("cache", "clear", "ghost", code=2)


def test_reading_works_in_every_format_where_nothing_can_be_written(home, capsys, monkeypatch):
    folder = write_study(home / "studies", "demo", demo_records())
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")}
    assert main(["front", "demo"]) == 0
    table = capsys.readouterr().out
    assert "demo: 3 of 5 scored networks are on the front" in table
    assert "trial 3 beats litv2_tiny (trial 0): 1.12 x its images/s, +15.0 ± 6.4 points of proxy top-1" in table
    assert main(["front", str(folder.path), "--format", "csv"]) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["number", "4", "3", "2"]
    assert main(["front", "demo", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [record["number"] for record in content["front"]] == [4, 3, 2]
    assert content["anchors"][0]["verdict"] == "beaten"
    assert main(["status", "demo", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["states"] == {"complete": 5, "infeasible": 1, "failed": 1}
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*")} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--proxy", "flops"),
            "proxy must be one of training, params, macs, images_per_s, naswot, zico, dss, none, or",
        ),
        (("--proxy", "naswot", "--set", "proxy.rungs=2"), "proxy.rungs has no effect with proxy naswot"),
        (
            ("--proxy", "params", "--set", "proxy.confirm=2"),
            "proxy.confirm has no effect with proxy params",
        ),
        (("--proxy", "nowhere.py:score"), "there is no file nowhere.py"),
        (("--proxy", "nowhere:score"), "there is no module nowhere"),
    ],
)
def test_a_proxy_that_cannot_be_is_refused(refused, home, arguments, message):
    assert message in refused("search", *arguments, code=2)
    assert no_study_was_made(home)


@pytest.mark.slow
def test_a_proxy_whose_file_cannot_be_imported_is_refused_before_a_study_is_made(refused, home):
    (home / "mine.py").write_text("import nowhere_at_all\n")
    said = refused("search", "--device", "cpu", "--proxy", "mine.py:score", code=2)
    assert "mine.py:score cannot be imported: ModuleNotFoundError: No module named 'nowhere_at_all'" in said
    assert no_study_was_made(home)
