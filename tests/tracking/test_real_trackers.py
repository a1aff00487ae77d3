"""The real libraries, without a network: MLflow on local files, Weights & Biases offline."""

import json

import pytest
from fakes import FakeMachine

import hilo_nas
from hilo_nas.testing import use_evaluator


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    return tmp_path


def search(tracker, trials=3):
    with use_evaluator(FakeMachine()):
        settings = {"study.track": tracker, "study.report": "report.html"}
        return hilo_nas.search("litv2_digits", study="first", trials=trials, device="cpu", settings=settings)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of SQLAlchemy, in MLflow's own store
def test_mlflow_has_a_run_per_study_and_one_per_trial(home, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    uri = f"sqlite:///{home / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    study = search("mlflow")
    search("mlflow", trials=1)
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("hilo-nas").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if run.info.run_name == "first"]
    children = {run.info.run_name: run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    assert len(children) == len([own for own in hilo_nas.load_study("first").records if not own.is_open])
    first = children["trial 0"]
    assert first.data.metrics["images_per_s"] == pytest.approx(study.records[0].measurement.images_per_s)
    assert first.data.metrics["latency_ms_p50"] < first.data.metrics["latency_ms_p95"]
    assert first.data.params["depths"] == "1-1-2-1"
    assert [own.path for own in client.list_artifacts(parent.info.run_id)] == ["report.html"]
    assert "litv2_digits" in parent.data.params["space"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_has_a_run_with_a_step_per_trial(home, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_DIR", str(home))
    study = search("wandb")
    (folder,) = (home / "wandb").glob("offline-run-*")
    assert (folder / "files" / "report.html").stat().st_size > 1e6
    content = next(folder.glob("*.wandb")).read_bytes()
    for record in study.records:
        if not record.is_open:  # values are stored as JSON
            assert json.dumps(record.measurement.images_per_s).encode() in content
            assert json.dumps("-".join(map(str, record.arch.depths))).encode() in content
