"""Exports for timm's train.py: options that it knows, a model that it builds, and where the figures come from."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import yaml
from builders import (
    TINY,
    build_condition,
    build_data,
    build_manifest,
    build_plan,
    build_record,
    demo_records,
    fresh,
    write_study,
)

import hilo_nas.models  # noqa: F401 - registers litv2, as `device_modules` does for train.py
from hilo_nas.arch.config import PRESETS, ArchConfig
from hilo_nas.errors import ConversionError, StorageError, UsageError
from hilo_nas.export import (
    EXPORTERS,
    ExportOptions,
    NetworkSource,
    Preprocessing,
    export,
    run_timm,
    source_of_trial,
)
from hilo_nas.export.text import printable, shell_line
from hilo_nas.export.timm import TIMM, build_train_options
from hilo_nas.study.local_settings import write_local
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.timing import RECORDED_VARIABLES

# Dest names of options of timm's train.py (timm 1.0) that an export may use. train.py ignores a key that it does not
# know, so a misspelled one would be a wish that is silently dropped.
TRAIN_OPTIONS = {
    "aa",
    "amp",
    "amp_dtype",
    "batch_size",
    "clip_grad",
    "color_jitter",
    "crop_pct",
    "cutmix",
    "device_modules",
    "drop_path",
    "epochs",
    "experiment",
    "hflip",
    "img_size",
    "interpolation",
    "lr",
    "min_lr",
    "mixup",
    "model",
    "model_kwargs",
    "num_classes",
    "opt",
    "opt_betas",
    "opt_eps",
    "remode",
    "reprob",
    "sched",
    "sched_on_updates",
    "smoothing",
    "train_interpolation",
    "warmup_epochs",
    "warmup_lr",
    "weight_decay",
}
# What train.py passes to create_model itself; in model_kwargs it would be given twice.
FORBIDDEN = {
    "num_classes",
    "in_chans",
    "drop_rate",
    "drop_path_rate",
    "drop_block_rate",
    "global_pool",
    "bn_momentum",
    "bn_eps",
}


def export_trial(manifest, record, folder, *, force=False, **options) -> list[Path]:
    return export(TIMM, source_of_trial(manifest, record), folder, ExportOptions(**options), force=force)[0]


def options_of(record=None, *, manifest=None, batch_size=512, epochs=300):
    source = source_of_trial(manifest or build_manifest(), record or build_record(0))
    return build_train_options(source, ExportOptions(batch_size=batch_size, epochs=epochs))


@pytest.fixture
def study(tmp_path):
    return StoredStudy(write_study(tmp_path / "studies", "demo", demo_records()).path)


@pytest.fixture
def exported(study, tmp_path) -> dict[str, dict]:
    """The content of each exported file, by its name."""
    paths = export_trial(fresh(study).manifest, study.record(3), tmp_path / "out")
    return {path.name: yaml.safe_load(path.read_text()) for path in paths if path.suffix != ".py"}


def test_every_option_is_one_that_train_py_knows(exported):
    assert set(exported["train.yaml"]) <= TRAIN_OPTIONS
    assert {"device_modules", "model", "model_kwargs", "num_classes", "lr", "opt"} <= set(exported["train.yaml"])


def test_the_options_name_the_model_and_what_registers_it(exported):
    train = exported["train.yaml"]
    assert train["device_modules"] == ["hilo_nas.models"]
    assert train["model"] == "litv2"
    assert not set(train["model_kwargs"]) & FORBIDDEN
    assert set(train["model_kwargs"]) == {field.name for field in dataclasses.fields(ArchConfig)}
    assert (train["num_classes"], train["img_size"]) == (10, 32)


def test_timm_builds_the_trials_network_from_the_options(exported, study):
    train = exported["train.yaml"]
    model = timm.create_model(
        train["model"],
        num_classes=train["num_classes"],
        drop_rate=0.0,
        drop_path_rate=train["drop_path"],
        in_chans=3,
        **train["model_kwargs"],
    )
    assert model.arch.key() == study.record(3).key
    assert sum(p.numel() for p in model.parameters()) == study.record(3).parameters
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, train["img_size"], train["img_size"])).shape == (1, 10)


def test_the_architecture_is_written_in_its_own_file(exported, study):
    assert ArchConfig.from_dict(exported["arch.yaml"]).key() == study.record(3).key


def test_the_recipe_is_the_papers():
    options = options_of(batch_size=1024)
    expected = {
        "opt": "adamw",
        "opt_betas": [0.9, 0.999],
        "opt_eps": 1e-8,
        "weight_decay": 0.05,
        "sched": "cosine",
        "epochs": 300,
        "warmup_epochs": 20,
        "lr": 1e-3,
        "warmup_lr": 1e-6,
        "min_lr": 1e-5,
        "clip_grad": 5.0,
        "aa": "rand-m9-mstd0.5-mmax9-inc1",
        "color_jitter": 0.4,
        "reprob": 0.25,
        "remode": "pixel",
        "mixup": 0.8,
        "cutmix": 1.0,
        "smoothing": 0.1,
    }
    for name, value in expected.items():
        assert options[name] == (pytest.approx(value) if isinstance(value, float) else value), name


@pytest.mark.parametrize("name", ["lr", "warmup_lr", "min_lr"])
def test_learning_rates_scale_with_the_batch(name):
    rates = {batch: options_of(batch_size=batch)[name] for batch in (128, 512, 2048)}
    assert rates[512] == pytest.approx({"lr": 5e-4, "warmup_lr": 5e-7, "min_lr": 5e-6}[name])
    assert rates[128] == pytest.approx(rates[512] / 4)
    assert rates[2048] == pytest.approx(rates[512] * 4)
    assert options_of(batch_size=128)["batch_size"] == 128


def test_rates_are_numbers_for_every_reader_of_yaml(study, tmp_path):
    """`5e-07` without a dot is text for YAML 1.1, which train.py's reader speaks."""
    export_trial(fresh(study).manifest, study.record(3), tmp_path, batch_size=32)
    train = yaml.safe_load((tmp_path / "train.yaml").read_text())
    assert all(isinstance(train[name], float) for name in ("lr", "warmup_lr", "min_lr", "opt_eps"))


@pytest.mark.parametrize(("name", "rate"), [("litv2_small", 0.2), ("litv2_medium", 0.3), ("litv2_base", 0.5)])
def test_drop_path_is_the_papers_at_its_sizes(name, rate):
    assert options_of(build_record(0, arch=PRESETS[name]))["drop_path"] == pytest.approx(rate, abs=0.001)


def test_drop_path_grows_with_the_network_and_then_no_more():
    small = PRESETS["litv2_small"]
    archs = [dataclasses.replace(small, depths=(2, 2, depth, 2)) for depth in (1, 3, 6, 12, 18, 60, 90)]
    rates = [options_of(build_record(0, arch=arch))["drop_path"] for arch in [TINY, *archs]]
    assert rates == sorted(rates)
    assert rates[0] < 0.01
    assert rates[-1] == rates[-2] == 0.5


@pytest.mark.parametrize(("epochs", "warmup"), [(300, 20), (40, 20), (10, 5), (1, 0)])
def test_a_short_training_warms_up_for_at_most_half_of_it(epochs, warmup):
    options = options_of(epochs=epochs)
    assert (options["epochs"], options["warmup_epochs"]) == (epochs, warmup)


def test_images_are_prepared_as_the_study_saw_them():
    digits = options_of()
    assert (digits["img_size"], digits["crop_pct"], digits["hflip"]) == (32, 1.0, 0.0)
    photographs = build_manifest(
        conditions=(build_condition(img_size=224),), plan=build_plan(hflip=True), data=build_data(num_classes=1000)
    )
    options = options_of(manifest=photographs)
    assert (options["img_size"], options["crop_pct"], options["hflip"]) == (224, 0.875, 0.5)
    assert options["num_classes"] == 1000


def test_provenance_says_where_every_figure_comes_from(exported, study):
    found, manifest, record = exported["provenance.yaml"], fresh(study).manifest, study.record(3)
    assert (found["study"], found["trial"], found["key"]) == ("demo", 3, record.key)
    assert found["space"] == {"name": "litv2_digits", "hash": manifest.space.hash()}
    assert (found["params"], found["macs"]) == (record.parameters, record.macs)
    measured = found["measured"]
    assert (measured["images_per_s"], measured["images_per_s_spread"]) == (900.0, 9.0)
    assert measured["device"] == dataclasses.asdict(manifest.device)
    assert measured["condition"] == manifest.objective.to_dict()
    assert measured["form"] == record.measurement.form
    assert measured["versions"]["torch"] == "2.9.0"
    assert found["proxy"]["value"] == 0.75
    assert found["proxy"]["plan"]["hash"] == manifest.plan_hash
    assert found["proxy"]["data"]["hash"] == manifest.data.hash
    assert found["versions"] == manifest.versions


def test_exported_files_hold_no_local_path(study, tmp_path):
    write_local(study.local_path, {"data": "/data/secret"})
    for path in export_trial(fresh(study).manifest, study.record(3), tmp_path / "out"):
        if path.suffix == ".py":
            continue
        text = path.read_text()
        assert str(tmp_path) not in text
        assert str(Path.home()) not in text
        assert not re.search(r"(^|[\s\"'=])(/\w|~/|[A-Za-z]:\\)", text, re.MULTILINE)


def test_exported_files_name_no_host_and_no_process_of_others(study, tmp_path):
    record = study.record(3)
    busy = {"others_cores": 1.5, "steal_cores": 0.0, "throttled_cores": 0.0}
    state = {
        **busy,
        "cores": 2,
        "quietest": busy,
        "with": [{"pid": 424242, "name": "secret-job", "cores": 1.5}],
        "other_processes": [424242],
        "host": "secret-host",
    }
    measurement = dataclasses.replace(record.measurement, device_state=state)
    record = dataclasses.replace(record, measurements=(measurement,))
    text = "".join(path.read_text() for path in export_trial(fresh(study).manifest, record, tmp_path / "out"))
    assert "424242" not in text
    assert "secret" not in text


def test_every_file_says_in_its_head_what_it_is(study, tmp_path):
    record = study.record(3)
    for path in export_trial(fresh(study).manifest, record, tmp_path / "out"):
        if path.suffix in (".py", ".json"):
            continue
        head = path.read_text().split("\n")[:2]
        assert head[0] == f"# {record.key}: trial 3 of study demo"
        assert head[1] == "# 900 ± 36 images/s on Test CPU (2 cores) (cpu-b32-32px-fp32)"


def test_a_head_shows_a_high_speed_as_the_command_line_does(tmp_path):
    folder = write_study(tmp_path, "fast", [build_record(0, 12194.0)])
    path = export_trial(fresh(folder).manifest, StoredStudy(folder.path).record(0), tmp_path / "out")[0]
    assert path.read_text().split("\n")[1].startswith("# 12,194 ± ")


def test_an_export_is_replaced_only_by_force_and_other_files_are_left_alone(study, tmp_path):
    manifest, folder = fresh(study).manifest, tmp_path / "a" / "b"
    paths = export_trial(manifest, study.record(3), folder)
    (folder / "mine.txt").write_text("mine")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match=r"found files: .*train\.yaml.* --force"):
        export_trial(manifest, study.record(2), folder)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    export_trial(manifest, study.record(2), folder, force=True)
    assert sorted(folder.iterdir()) == sorted([*paths, folder / "mine.txt"])
    assert yaml.safe_load((folder / "provenance.yaml").read_text())["trial"] == 2
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_link_is_replaced_by_force_and_what_it_names_is_left_alone(study, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "arch.yaml").symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match=r"found files: \S*arch\.yaml\."):
        export_trial(fresh(study).manifest, study.record(3), tmp_path / "out")
    export_trial(fresh(study).manifest, study.record(3), tmp_path / "out", force=True)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_in_the_place_of_a_file_is_never_removed(study, tmp_path, force):
    (tmp_path / "out" / "arch.yaml").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"found folders: .*arch\.yaml\. Choose .* -o"):
        export_trial(fresh(study).manifest, study.record(3), tmp_path / "out", force=force)


@pytest.mark.parametrize("form", ["litv2/2 compiled", "litv2/2 compiled frozen weights/2"])
def test_the_environment_freezes_the_weights_of_a_network_that_was_timed_so(study, tmp_path, form):
    record = study.record(3)
    record = dataclasses.replace(record, measurements=(dataclasses.replace(record.measurement, form=form),))
    paths = {path.name: path for path in export_trial(fresh(study).manifest, record, tmp_path / "out")}
    lines = paths["timing.env"].read_text().splitlines()
    assert ("TORCHINDUCTOR_FREEZING=1" in lines) == ("frozen" in form)


HOSTILE = "x\ntouch STOLEN\r\u2028$(touch STOLEN)`touch STOLEN`"


def test_characters_that_act_become_escapes_that_python_reads_back():
    assert printable("a\nb\x85\u2028\u202ec é") == r"a\x0ab\x85\u2028\u202ec é"
    assert printable(HOSTILE).encode().decode("unicode_escape") == HOSTILE


def test_texts_of_a_strangers_record_stay_comments_and_values(study, tmp_path):
    record = study.record(3)
    device = dataclasses.replace(record.measurement.device, model=HOSTILE)
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",
        "MKL_NUM_THREADS": "$(touch STOLEN) `touch STOLEN`; touch STOLEN 'x' \"y\"",
        "OMP_NUM_THREADS": HOSTILE,
        "OMP_TOOL_LIBRARIES": "touch.so",
        "MALLOC_TRACE": "touch",
        "LD_PRELOAD": "touch.so",
        "BAD;touch STOLEN;X": "1",
        HOSTILE.upper(): "1",
        "cudnn.benchmark": HOSTILE,
    }
    measurement = dataclasses.replace(record.measurement, device=device, environment=environment)
    record = dataclasses.replace(record, measurements=(measurement,))
    paths = {path.name: path for path in export_trial(fresh(study).manifest, record, tmp_path / "out")}
    for name in ("train.yaml", "arch.yaml", "timing.env"):
        head = paths[name].read_bytes().decode().split("\n")
        assert head[1].startswith("# 900 ± 36 images/s on x\\x0atouch STOLEN")
        assert "touch" not in "".join(line for line in head if not line.startswith(("#", "MKL_NUM_THREADS=")))
    assert yaml.safe_load(paths["arch.yaml"].read_text()) == record.subject.arch.to_dict()
    script = f'cd {tmp_path} && . out/timing.env && printf \'%s|%s\' "$OMP_WAIT_POLICY" "$MKL_NUM_THREADS"'
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == f"PASSIVE|{environment['MKL_NUM_THREADS']}"
    assert not done.stderr
    assert not (tmp_path / "STOLEN").exists()


def test_a_training_is_called_by_a_name_that_is_no_path():
    manifest = dataclasses.replace(build_manifest(), name="../../elsewhere/x")
    assert options_of(manifest=manifest)["experiment"].startswith("_.._elsewhere_x-")


@pytest.mark.parametrize("name", RECORDED_VARIABLES)
def test_all_variables_that_are_recorded_are_exported(name):
    assert shell_line(name, "a b") == f"{name}='a b'\n"


def test_the_config_is_a_model_for_timm(exported, study, tmp_path):
    model = timm.create_model(f"local-dir:{tmp_path / 'out'}")
    assert model.arch.key() == study.record(3).key
    assert model.num_classes == 10
    config = timm.data.resolve_model_data_config(model)
    assert (tuple(config["input_size"]), config["crop_pct"]) == ((3, 32, 32), 1.0)
    assert (config["mean"], config["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


@pytest.mark.parametrize("file", ["train.yaml", "config.json", "arch.yaml"])
def test_files_that_build_another_network_do_not_pass(exported, study, tmp_path, file):
    source = source_of_trial(fresh(study).manifest, study.record(3))
    path = tmp_path / "out" / file
    text = path.read_text()
    path.write_text(
        text.replace("num_classes: 10", "num_classes: 11").replace('"num_classes": 10', '"num_classes": 11')
    )
    if file == "arch.yaml":
        path.write_text(yaml.safe_dump(TINY.to_dict()))
    assert path.read_text() != text
    with pytest.raises(ConversionError, match=rf"{file} must .*Export it again"):
        TIMM.verify(source, tmp_path / "out")


def test_what_fails_to_verify_never_reaches_its_place(study, tmp_path):
    class Liar(type(TIMM)):
        def verify(self, source, folder):
            raise ConversionError("it is another network")

    source = source_of_trial(fresh(study).manifest, study.record(3))
    with pytest.raises(ConversionError):
        export(Liar(), source, tmp_path / "out", ExportOptions())
    assert not list((tmp_path / "out").iterdir())


def test_all_faults_of_an_export_are_reported_at_once():
    source = NetworkSource(arch=TINY, num_classes=10, preprocessing=Preprocessing(img_size=32), name="a file")
    with pytest.raises(UsageError) as caught:
        TIMM.check(source, ExportOptions(batch_size=0, epochs=0))
    assert len(str(caught.value).splitlines()) == 3


SCRIPT = """
import sys
from helper import NAME
print(NAME, *sys.argv[1:], sys.modules["timm"].is_model("litv2"))
"""


@pytest.mark.slow
def test_the_launcher_runs_a_script_that_knows_the_network(study, tmp_path):
    export_trial(fresh(study).manifest, study.record(3), tmp_path / "out")
    scripts = tmp_path / "timm repository"
    scripts.mkdir()
    (scripts / "helper.py").write_text("NAME = 'found'")
    (scripts / "validate.py").write_text(SCRIPT)
    out = (tmp_path / "out").resolve()
    launch = [sys.executable, str(out / "run_timm.py")]
    launch += [str(scripts / "validate.py"), "-b", "2"]
    done = subprocess.run(launch, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["found", "--model", f"local-dir:{out}", "--img-size", "32", "-b", "2", "True"]


@pytest.mark.parametrize(
    ("script", "given", "added"),
    [
        ("train.py", ["--data-dir", "d"], ["-c", "train.yaml"]),
        ("train.py", ["-c", "mine.yaml"], []),
        ("benchmark.py", ["--img-size", "64"], ["--model", "local-dir:"]),
        ("avg_checkpoints.py", ["--input", "d"], []),
        ("validate.py", ["--model=litv2_small"], []),
        ("onnx_export.py", ["-m", "litv2_small", "out.onnx"], []),
    ],
)
def test_the_launcher_names_the_network_unless_the_arguments_do(script, given, added, monkeypatch, tmp_path):
    (tmp_path / script).write_text("import sys\nsys.told = sys.argv")
    monkeypatch.setattr(sys, "argv", ["run_timm.py"])
    monkeypatch.setattr(sys, "path", ["where the launcher lies", *sys.path])
    monkeypatch.setattr(sys, "told", None, raising=False)
    run_timm.main([str(tmp_path / script), *given])
    folder = str(Path(run_timm.__file__).parent)
    expected = [name.replace("train.yaml", f"{folder}/train.yaml").replace("dir:", f"dir:{folder}") for name in added]
    assert sys.told == [str(tmp_path / script), *expected, *given]
    assert sys.path[0] == str(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["lacking.py"]])
def test_the_launcher_names_a_script_that_is_missing(arguments):
    with pytest.raises(SystemExit, match="SCRIPT must be a script of timm's repository, but got no"):
        run_timm.main(arguments)


def test_an_architecture_without_a_trial_is_refused(tmp_path):
    source = NetworkSource(arch=TINY, num_classes=10, preprocessing=Preprocessing(img_size=32), name="a file")
    with pytest.raises(UsageError, match=r"format timm needs a trial of a study.* but got a file"):
        export(TIMM, source, tmp_path, ExportOptions())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "value"), [("batch_size", 0), ("batch_size", -1), ("epochs", 0)])
def test_a_training_of_nothing_is_refused(study, tmp_path, name, value):
    with pytest.raises(UsageError, match=f"{name} must be at least 1, but got {value}"):
        export_trial(fresh(study).manifest, study.record(3), tmp_path / "out", **{name: value})
    assert not (tmp_path / "out").exists()


def test_an_odd_batch_is_refused_for_mixup_pairs_images(study, tmp_path):
    with pytest.raises(
        UsageError, match="batch_size must be even because mixup pairs the images of a batch, but got 33"
    ):
        export_trial(fresh(study).manifest, study.record(3), tmp_path / "out", batch_size=33)


def test_a_folder_that_cannot_be_made_is_refused(study, tmp_path):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises((UsageError, StorageError), match=r"cannot make the folder .*Choose another with -o"):
            export_trial(fresh(study).manifest, study.record(3), folder)


def test_the_formats_are_named():
    assert list(EXPORTERS) == ["timm", "onnx", "onnx-int8", "openvino", "openvino-int8", "torch-package", "optuna"]
