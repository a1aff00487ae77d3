"""Exports as ONNX: of a trial or an architecture's file, with trained or random weights, verified when written."""

import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import TINY, demo_records, fresh, write_study

import hilo_nas
from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ConversionError, NotFoundError, UsageError
from hilo_nas.export import EXPORTERS, ExportOptions, export, load_source, source_of_trial
from hilo_nas.export.timm import TIMM
from hilo_nas.models import LITv2, build_model, load_checkpoint, load_model, randomize_constant_weights
from hilo_nas.models.convert import onnx_file
from hilo_nas.study.stored_study import StoredStudy

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ONNX = EXPORTERS["onnx"]


def build_trained() -> LITv2:
    torch.manual_seed(5)
    model = build_model(TINY, num_classes=10).eval()
    randomize_constant_weights(model)
    return model


@pytest.fixture
def trained() -> LITv2:
    return build_trained()


def save_arch(folder: Path) -> Path:
    (folder / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    return folder / "arch.yaml"


@pytest.fixture
def arch_file(tmp_path):
    return save_arch(tmp_path)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, list[str]]:
    """The file of an architecture with a checkpoint of timm's train.py, and what was said; writing takes seconds."""
    folder = tmp_path_factory.mktemp("deploy")
    save_checkpoint(build_trained(), folder / "last.pth.tar", "timm")
    source = load_source(save_arch(folder), num_classes=10, img_size=32, weights=folder / "last.pth.tar")
    (path,), notes = export(ONNX, source, folder / "out", ExportOptions())
    return path, notes


def metadata_of(path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def save_checkpoint(model, path, kind):
    weights = model.state_dict()
    if kind == "safetensors":
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_file(weights, path)
    elif kind == "timm":
        torch.save({"epoch": 3, "arch": "litv2", "state_dict": weights, "optimizer": {"state": {}}}, path)
    else:
        torch.save(weights, path)


@pytest.mark.parametrize("kind", ["timm", "plain", "safetensors"])
def test_checkpoints_of_each_kind_are_loaded(kind, trained, tmp_path):
    checkpoint = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth.tar")
    save_checkpoint(trained, checkpoint, kind)
    model = build_model(TINY, num_classes=10)
    load_checkpoint(model, checkpoint)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.slow
def test_an_architecture_with_a_checkpoint_gives_its_outputs_for_any_batch(exported, trained):
    path, notes = exported
    assert not [note for note in notes if "random" in note]
    assert "takes any number of images, 3 x 32 x 32" in notes[0]
    assert "verified: onnxruntime" in notes[-1]
    session = onnxruntime.InferenceSession(path)
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            expected = trained(images)
        found = session.run(None, {"image": images.numpy()})[0]
        assert np.abs(found - expected.numpy()).max() <= 1e-4 * expected.abs().max()
    metadata = metadata_of(path)
    assert metadata["hilo_nas.weights"].startswith("last.pth.tar sha256:")
    assert ArchConfig.from_dict(json.loads(metadata["hilo_nas.arch.config"])) == TINY
    assert str(path.parent) not in json.dumps(metadata)


@pytest.mark.slow
def test_a_file_holds_no_path_of_this_machine(exported):
    content = exported[0].read_bytes()
    places = (hilo_nas.__file__, torch.__file__, tempfile.gettempdir())
    assert not [
        place for place in places if str(Path(place).parent if place.endswith(".py") else place).encode() in content
    ]
    assert b"stack_trace" not in content


@pytest.mark.slow
def test_a_trial_carries_its_provenance_and_random_weights_are_said_loudly(tmp_path):
    study = StoredStudy(write_study(tmp_path / "studies", "demo", demo_records()).path)
    source = source_of_trial(fresh(study).manifest, study.record(3))
    (path,), notes = export(ONNX, source, tmp_path / "out", ExportOptions())
    assert notes[0].startswith("WARNING: the weights are random")
    metadata = metadata_of(path)
    assert metadata["hilo_nas.weights"] == "random"
    assert json.loads(metadata["hilo_nas.provenance"])["trial"] == 3
    assert "trial 3 of study demo" in metadata["hilo_nas.name"]
    before = path.read_bytes()
    with pytest.raises(UsageError, match=r"found files: .*model\.onnx\. Use --force"):
        export(ONNX, source, tmp_path / "out", ExportOptions())
    assert path.read_bytes() == before


def test_sizes_come_from_the_train_yaml_next_to_the_file_or_are_said_to_be_assumed(tmp_path):
    study = StoredStudy(write_study(tmp_path / "studies", "demo", demo_records()).path)
    export(TIMM, source_of_trial(fresh(study).manifest, study.record(3)), tmp_path / "out", ExportOptions())
    source = load_source(tmp_path / "out" / "arch.yaml")
    assert (source.num_classes, source.preprocessing.img_size) == (10, 32)
    assert f"num_classes 10 (from {tmp_path / 'out' / 'train.yaml'})" in source.assumed
    given = load_source(tmp_path / "out" / "arch.yaml", num_classes=7, img_size=64)
    assert (given.num_classes, given.preprocessing.img_size, given.assumed) == (7, 64, "")
    (tmp_path / "out" / "train.yaml").unlink()
    alone = load_source(tmp_path / "out" / "arch.yaml")
    assert alone.assumed == "Assumed: num_classes 1000 (the default), img_size 224 (the default)."


def test_what_cannot_be_exported_is_refused(arch_file, trained, tmp_path):
    with pytest.raises(NotFoundError, match="there is no file"):
        load_source(tmp_path / "lacking.yaml")
    with pytest.raises(NotFoundError, match=r"weights must be a checkpoint file, but there is no file .*lacking"):
        load_source(arch_file, weights=tmp_path / "lacking.pt")
    with pytest.raises(UsageError, match="num_classes must be at least 1, but got 0"):
        load_source(arch_file, num_classes=0)
    with pytest.raises(UsageError, match=r"img_size must be at least \d+, the network's stride, but got 4"):
        export(ONNX, load_source(arch_file, img_size=4), tmp_path / "out", ExportOptions())
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(UsageError, match=r"text\.pt"):
        export(ONNX, load_source(arch_file, weights=tmp_path / "text.pt"), tmp_path / "out", ExportOptions())
    torch.save(trained.state_dict(), tmp_path / "ten.pt")
    source = load_source(arch_file, num_classes=3, img_size=32, weights=tmp_path / "ten.pt")
    with pytest.raises(UsageError, match=r"(?s)ten\.pt.*size mismatch for head"):
        export(ONNX, source, tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out" / "model.onnx").exists()


def test_a_checkpoint_cannot_run_code(arch_file, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "stolen"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(UsageError, match=r"evil\.pt"):
        export(ONNX, load_source(arch_file, weights=tmp_path / "evil.pt"), tmp_path / "out", ExportOptions())
    assert not (tmp_path / "stolen").exists()


def test_a_missing_extra_is_named(arch_file, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UsageError, match=r"format onnx needs onnxscript.*pip install 'hilo-nas\[onnx\]'"):
        export(ONNX, load_source(arch_file), tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()


class Unlike(torch.nn.Module):
    """Gives other outputs once it is captured."""

    def forward(self, x):
        return x.mean((2, 3)) + 1 if torch.compiler.is_compiling() else x.mean((2, 3))


def test_a_file_that_gives_other_outputs_is_never_written(tmp_path):
    with pytest.raises(ConversionError, match=r"largest .*onnxruntime \d"):
        onnx_file.write(Unlike(), tmp_path / "model.onnx", shape=(3, 32, 32), metadata={})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_was_changed_or_is_another_tools_does_not_pass(exported, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(exported[0].read_bytes())
    assert f"onnxruntime {onnxruntime.__version__}" in onnx_file.verify(path)
    model = onnx.load(path)
    head = next(weight for weight in model.graph.initializer if len(weight.dims) == 2 and 10 in weight.dims)
    head.CopyFrom(onnx.numpy_helper.from_array(2 * onnx.numpy_helper.to_array(head), head.name))
    onnx.save(model, path)
    with pytest.raises(ConversionError, match=r"model\.onnx"):
        onnx_file.verify(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(UsageError, match=r"model\.onnx.*hilo_nas\.check"):
        onnx_file.verify(path)


@pytest.mark.parametrize("prepared", [False, True])
def test_a_winner_is_loaded_with_its_checkpoint(trained, prepared, tmp_path):
    study = StoredStudy(write_study(tmp_path / "studies", "demo", demo_records()).path)
    export(TIMM, source_of_trial(fresh(study).manifest, study.record(3)), tmp_path / "out", ExportOptions())
    torch.manual_seed(6)
    model = build_model(study.record(3).subject.arch, num_classes=10).eval()
    save_checkpoint(model, tmp_path / "last.pth.tar", "timm")
    loaded = load_model(tmp_path / "out", tmp_path / "last.pth.tar", prepared=prepared)
    assert ("batchnorms=folded" in loaded.form) is prepared
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(loaded(images), model(images), atol=1e-4)
    with pytest.raises(NotFoundError, match=r"train\.yaml"):
        load_model(tmp_path)


def test_a_train_yaml_that_is_no_file_is_passed_over_and_one_of_huge_sizes_is_refused(arch_file):
    beside = arch_file.with_name("train.yaml")
    os.mkfifo(beside)
    assert "num_classes 1000 (the default)" in load_source(arch_file).assumed
    beside.unlink()
    options = {"num_classes": 10**12, "img_size": True, "model_kwargs": TINY.to_dict()}
    beside.write_text(yaml.safe_dump(options), encoding="utf-8")
    with pytest.raises(UsageError, match="num_classes must be at most 1,000,000, but got 1000000000000"):
        load_source(arch_file)
    assert load_source(arch_file, num_classes=10).preprocessing.img_size == 224


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"num_classes": 10**12}, r"train\.yaml.* num_classes .*1,000,000"),
        ({"num_classes": None}, r"train\.yaml.* num_classes"),
        ({"model_kwargs": [1]}, r"train\.yaml.* model_kwargs"),
        ({"model_kwargs": {**TINY.to_dict(), "depths": [1, 1, 10**9, 1]}}, "depths must be at most 1,000"),
    ],
)
def test_a_train_yaml_without_bounds_builds_no_network(tmp_path, change, fault):
    options = {"model": "litv2", "num_classes": 10, "model_kwargs": TINY.to_dict(), **change}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(options), encoding="utf-8")
    with pytest.raises(UsageError, match=fault):
        load_model(tmp_path)
