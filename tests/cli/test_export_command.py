"""`hilo-nas export`: says what it chose, takes a study or an architecture, and refuses what does not go together."""

from pathlib import Path

import pytest
import yaml
from builders import TINY, build_measurement, build_record, demo_records, write_study
from toy_exporter import ToyExporter

from hilo_nas.cli import main
from hilo_nas.export import EXPORTERS, register_exporter

pytestmark = pytest.mark.usefixtures("quick_databases")


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    write_study(tmp_path / "studies", "demo", demo_records())


def test_it_says_which_trial_it_chose_and_its_figures(capsys):
    assert main(["export", "demo", "--knee", "-o", "out dir"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "trial 3 of study demo: 900 ± 36 images/s on Test CPU (2 cores) (cpu-b32-32px-fp32, " in lines[0]
    assert "top-1 75.0 %" in lines[0]
    assert "hilo-nas export 'out dir/arch.yaml' --format onnx" in lines[-1]
    assert main(["export", "demo", "--trial", "2", "-o", "out dir"]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["export", "demo", "--trial", "2", "-o", "out dir", "--force"]) == 0
    assert yaml.safe_load(Path("out dir/provenance.yaml").read_text())["trial"] == 2


BUSY = {"cores": 2, "others_cores": 1.0, "quietest": {"others_cores": 1.0}}


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"device_state": BUSY, "verdict": "steady"}, "(cpu-b32-32px-fp32, contended), "),
        ({"verdict": None}, "(cpu-b32-32px-fp32, steady), "),
        ({"verdict": None, "protocol": 1}, "(cpu-b32-32px-fp32), "),
    ],
    ids=["contended", "judged", "protocol-1"],
)
def test_the_verdict_on_the_machine_comes_from_the_stored_rounds(fields, told, capsys, tmp_path):
    record = build_record(0, measurements=(build_measurement(**fields),))
    write_study(tmp_path / "studies", "judged", [record])
    assert main(["export", "judged", "--knee", "-o", "out"]) == 0
    assert told in capsys.readouterr().out.splitlines()[0]


def test_a_limit_that_is_nearly_kept_surely_is_not_rounded_up_to_it(capsys, tmp_path):
    ends = {"latency_ms_p95_low": 49.0, "latency_ms_p95_high": 51.0}
    timing = build_measurement(640.0, latency_ms_p95=50.0, **ends)
    write_study(tmp_path / "studies", "near", [build_record(0, measurements=(timing,))])
    assert main(["export", "near", "--max-latency-ms", "50.8445", "-o", "out"]) == 0
    assert "warning: trial 0 meets latency_ms <= 50.8445 with a probability of 94.9% only" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["demo", "--knee", "--format", "tflite"],
            "torch-package, optuna, but got 'tflite'",
        ),
        (["demo", "--knee", "--weights", "a.pt"], "torch-package, but got timm"),
        (["demo", "--knee", "--format", "onnx", "--epochs", "9"], "format timm, but got onnx"),
        (["demo", "--knee", "--format", "optuna"], "format optuna exports the whole study"),
        (["arch.yaml", "--format", "optuna"], "format optuna exports a whole study, but got"),
        (["demo", "--knee", "--num-classes", "64"], "num_classes and the size of images"),
        (["arch.yaml", "--knee", "--format", "onnx"], "but got the file arch.yaml"),
        (["arch.yaml"], "format timm needs a trial of a study"),
        (["lacking.yaml", "--format", "onnx"], "there is no file lacking.yaml"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, message, capsys, tmp_path):
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    assert main(["export", *arguments, "-o", "out"]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def test_a_whole_study_becomes_one_file_of_optuna_that_is_never_replaced(capsys):
    assert main(["export", "demo", "--format", "optuna", "-o", "files/demo.db"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["study demo: 7 trials", "wrote files/demo.db"]
    assert "verified: Optuna reads 7 trials" in lines[2]
    assert lines[3] == "Open the dashboard: optuna-dashboard sqlite:///files/demo.db"
    before = Path("files/demo.db").read_bytes()
    assert main(["export", "demo", "--format", "optuna", "-o", "files/demo.db", "--force"]) == 2
    assert "with -o" in capsys.readouterr().err
    assert Path("files/demo.db").read_bytes() == before
    assert [path.name for path in Path("files").iterdir()] == ["demo.db"]


def test_the_help_names_every_format_of_this_package(capsys):
    assert main(["export", "--help"]) == 0
    assert f"One of: {', '.join(EXPORTERS)}." in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def toy():
    register_exporter(ToyExporter())
    yield
    del EXPORTERS["toy"]


@pytest.mark.usefixtures("toy")
def test_a_format_that_was_registered_is_one_of_the_command_line(capsys):
    assert main(["export", "demo", "--knee", "--format", "toy", "-o", "net.txt"]) == 0
    assert "Read it: cat net.txt" in capsys.readouterr().out
    assert Path("net.txt").read_text() == demo_records()[3].key


@pytest.mark.slow
def test_an_architecture_becomes_onnx_without_a_study(capsys, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    assert main(["export", "arch.yaml@32", "--format", "onnx", "--num-classes", "4", "-o", "out"]) == 0
    out = capsys.readouterr().out
    assert "WARNING: the weights are random" in out
    assert "wrote out/model.onnx" in out
    assert "verified: onnxruntime" in out
