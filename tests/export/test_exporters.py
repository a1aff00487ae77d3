"""Every exporter keeps the promises of the interface, and a new one is a file and a line."""

import pytest
from builders import TINY, demo_records, fresh, write_study
from toy_exporter import ToyExporter

from hilo_nas.errors import UsageError
from hilo_nas.export import (
    EXPORTERS,
    ExportOptions,
    NetworkSource,
    Preprocessing,
    StudySource,
    export,
    find_exporter,
    register_exporter,
    source_of_study,
    source_of_trial,
)
from hilo_nas.export.network_files import NetworkFileExporter
from hilo_nas.study.local_settings import write_local
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.testing import check_exporter

pytestmark = pytest.mark.usefixtures("quick_databases")


SLOW = ("onnx", "onnx-int8", "openvino-int8")


@pytest.fixture
def sources(tmp_path):
    folder = StoredStudy(write_study(tmp_path / "studies", "demo", demo_records()).path)
    trial = source_of_trial(fresh(folder).manifest, folder.record(0), folder=folder)
    return {NetworkSource: trial, StudySource: source_of_study(folder)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in EXPORTERS]
)
def test_an_exporter_of_the_package_keeps_the_promises(name, sources, tmp_path):
    for library in getattr(EXPORTERS[name], "libraries", ()):
        pytest.importorskip(library)
    exporter = EXPORTERS[name]
    options = ExportOptions(data="digits" if "data" in exporter.options else None)
    check_exporter(exporter, sources[exporter.source_type], tmp_path / "files", options)


@pytest.mark.parametrize("name", ["onnx-int8", "openvino-int8"])
def test_a_quantized_format_needs_images(name, sources):
    with pytest.raises(UsageError, match=f"format {name} needs images for its calibration. Set --data to those of the"):
        EXPORTERS[name].check(sources[NetworkSource], ExportOptions())


def test_a_quantized_format_says_why_images_of_the_study_are_not_used(sources, tmp_path):
    source, exporter = sources[NetworkSource], EXPORTERS["openvino-int8"]
    source.folder.local_path.write_text("data: digits\n")
    with pytest.raises(UsageError, match=r"local\.yaml of study demo is not used: it was not"):
        exporter.check(source, ExportOptions())
    (tmp_path / "mine.py").write_text("def load():\n    raise AssertionError\n")
    write_local(source.folder.local_path, {"data.source": f"{tmp_path}/mine.py:load"})
    with pytest.raises(
        UsageError,
        match=r"but the export runs no function of the study that you do not name: \S+mine.py:load. Set --data to",
    ):
        exporter.check(source, ExportOptions())


HIDING = NetworkFileExporter(
    name="hiding", files=("a.txt",), libraries=(), module="hiding_writer", suggest=lambda *_: "", is_int8=True
)


def test_a_quantized_file_names_its_images_and_the_layers_that_should_be_in_float(sources, tmp_path):
    notes = HIDING.write(sources[NetworkSource], tmp_path, ExportOptions(data="digits"))
    assert "quantized to INT8 with 300 calibration images of digits" in notes
    assert "too sensitive for INT8, so they stay in float: head.fc. Time the file; a search quantizes all" in notes
    changed = "too sensitive for INT8, but quantized because the runtime changed weights: layers.2.blocks.0.mlp.fc1"
    assert f"WARNING: {changed}" in notes


def test_a_quantized_file_says_that_images_of_the_study_may_be_held_out(sources, tmp_path):
    source = sources[NetworkSource]
    write_local(source.folder.local_path, {"data.source": "digits"})
    notes = HIDING.write(source, tmp_path, ExportOptions())
    used = "quantized to INT8 with 300 calibration images of digits"
    assert f"{used}, which may include images held out by the study" in notes


def test_a_toy_is_added_by_a_file_and_a_line(sources, tmp_path):
    register_exporter(ToyExporter())
    try:
        check_exporter(find_exporter("toy"), sources[NetworkSource], tmp_path / "files")
        assert list(EXPORTERS)[-1] == "toy"
        with pytest.raises(ValueError, match="'toy'"):
            register_exporter(ToyExporter())
    finally:
        del EXPORTERS["toy"]
    with pytest.raises(UsageError, match=r"format must be one of timm, onnx, .*, torch-package, optuna, but got 'toy'"):
        find_exporter("toy")


class Litterer(ToyExporter):
    def write(self, source, folder, options):
        (folder / "more.txt").write_text("litter")
        return super().write(source, folder, options)


class Misnamed(ToyExporter):
    name = "Toy Format"


class Credulous(ToyExporter):
    def verify(self, source, folder):
        return "verified: it is there"


class Silent(ToyExporter):
    def next_step(self, source, files):
        return ""


class Telltale(ToyExporter):
    def write(self, source, folder, options):
        (folder / "toy.txt").write_text(f"written in {folder}")
        return []

    def verify(self, source, folder):
        return "verified: it is there"


@pytest.mark.parametrize(
    ("exporter", "promise"),
    [
        (Misnamed(), "Toy Format"),
        (Litterer(), r"more\.txt"),
        (Credulous(), "verify"),
        (Silent(), "next_step"),
        (Telltale(), r"toy\.txt"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_broken_promise_is_named(exporter, promise, sources, tmp_path):
    with pytest.raises(AssertionError, match=promise):
        check_exporter(exporter, sources[NetworkSource], tmp_path / "files")


def test_a_source_of_the_wrong_kind_is_refused(sources, tmp_path):
    with pytest.raises(UsageError, match=r"format toy exports one network: .* but got study demo"):
        export(ToyExporter(), sources[StudySource], tmp_path / "out", ExportOptions())
    with pytest.raises(UsageError, match="format optuna exports a whole study, but got cf9a: a trial"):
        export(
            EXPORTERS["optuna"],
            NetworkSource(arch=TINY, num_classes=10, preprocessing=Preprocessing(img_size=32), name="cf9a: a trial"),
            tmp_path / "out",
            ExportOptions(),
        )
    assert not (tmp_path / "out").exists()


def test_the_only_file_of_a_format_may_be_named(sources, tmp_path):
    source = sources[NetworkSource]
    (named,), _ = export(ToyExporter(), source, tmp_path / "here" / "net.txt", ExportOptions())
    assert named == tmp_path / "here" / "net.txt"
    (tmp_path / "folder.txt").mkdir()
    (inside,), _ = export(ToyExporter(), source, tmp_path / "folder.txt", ExportOptions())
    assert inside == tmp_path / "folder.txt" / "toy.txt"
