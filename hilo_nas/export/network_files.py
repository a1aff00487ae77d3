"""Exporter of networks as files of a runtime: a graph with its weights, compared with torch when it is written."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hilo_nas.errors import UsageError
from hilo_nas.export.calibration_images import check_calibration_source, read_calibration_images
from hilo_nas.export.export_options import ExportOptions
from hilo_nas.export.provenance import build_provenance
from hilo_nas.export.source import NetworkSource
from hilo_nas.export.text import printable
from hilo_nas.versions import versions

if TYPE_CHECKING:
    from hilo_nas.models import LITv2  # importing torch is slow

__all__ = ["NetworkFileExporter"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkFileExporter:
    """Writer of a network in float32 or INT8, for one image size and, if torch can export it, any batch size.

    The architecture, the provenance and the outputs of torch for two images are in the metadata of the file.
    """

    name: str
    files: tuple[str, ...]
    libraries: tuple[str, ...]
    """Optional libraries that the format needs."""
    module: str
    """Module with the functions `write(model, path, shape=..., metadata=..., calibration=...)`, which returns a
    `WrittenFile`, and `verify(path)`. It is imported on first use, because it imports torch."""
    suggest: Callable[..., str]
    """Function that returns what the user may do next, from the path of the first file, the image side in pixels, and
    options for its precision."""
    source_type: type[Any] = NetworkSource
    is_int8: bool = False
    """True if the network is quantized to INT8."""
    can_replace: bool = True

    @property
    def options(self) -> frozenset[str]:
        """Names of the options it reads."""
        return frozenset({"weights", "data"} if self.is_int8 else {"weights"})

    def check(self, source: NetworkSource, options: ExportOptions) -> None:
        """Raises a UsageError if a library or the calibration images are missing, or images are below the stride."""
        from hilo_nas.models.convert.libraries import import_library

        faults = []
        if self.is_int8 and (fault := check_calibration_source(source, options, self.name)):
            faults.append(fault)
        if source.preprocessing.img_size < source.arch.stride:
            side = source.preprocessing.img_size
            faults.append(f"img_size must be at least {source.arch.stride}, the network's stride, but got {side}")
        for library in self.libraries:
            try:
                import_library(library, f"format {self.name}")
            except UsageError as error:
                faults.append(str(error))
        if faults:
            raise UsageError("\n".join(faults))

    def write(self, source: NetworkSource, folder: Path, options: ExportOptions) -> list[str]:
        """Writes the files."""
        model, notes = _build_network(source)
        side = source.preprocessing.img_size
        extra: dict[str, Any] = {}
        if self.is_int8:
            extra["calibration"], note = read_calibration_images(source, options)
            notes.append(note)
        written = importlib.import_module(self.module).write(
            model,
            folder / self.files[0],
            shape=(3, side, side),
            metadata={**_describe_network(source), "hilo_nas.precision": "int8" if self.is_int8 else "fp32"},
            **extra,
        )
        if written.float_layers:
            names = ", ".join(written.float_layers)
            notes.append(
                f"too sensitive for INT8, so they stay in float: {names}. Time the file; a search quantizes all"
            )
        if written.hidden_layers:
            names = ", ".join(written.hidden_layers)
            notes.append(f"WARNING: too sensitive for INT8, but quantized because the runtime changed weights: {names}")
        is_dynamic = written.is_dynamic
        takes = "any number of images" if is_dynamic else "one image, because torch cannot export a dynamic batch"
        return [*notes, f"its input `image` takes {takes}, 3 x {side} x {side} in float32; `output` is the logits"]

    def verify(self, source: NetworkSource, folder: Path) -> str:
        """Checks that the file gives torch's outputs on this machine."""
        text: str = importlib.import_module(self.module).verify(folder / self.files[0])
        return text

    def next_step(self, source: NetworkSource, files: Sequence[Path]) -> str:
        """Returns what the user may do next."""
        options = ("--precision", "int8") if self.is_int8 else ()
        return self.suggest(files[0], source.preprocessing.img_size, *options)


def _build_network(source: NetworkSource) -> tuple[LITv2, list[str]]:
    """Returns the network in evaluation mode with its weights, and notes for the user.

    Without a checkpoint, the weights are random, as for a timing.
    """
    import torch

    from hilo_nas.models import build_model, load_checkpoint, randomize_constant_weights

    torch.manual_seed(0)
    model = build_model(source.arch, num_classes=source.num_classes).eval()
    if source.weights is not None:
        load_checkpoint(model, source.weights)
        return model, []
    randomize_constant_weights(model)
    return model, ["WARNING: the weights are random, for timing only. Use --weights CHECKPOINT to export trained ones."]


def _describe_network(source: NetworkSource) -> dict[str, str]:
    """Returns the metadata of a file: architecture, weights, preprocessing, versions, and the trial it comes from."""
    weights = "random"
    if source.weights is not None:
        weights = f"{source.weights.name} sha256:{hashlib.sha256(source.weights.read_bytes()).hexdigest()}"
    metadata = {
        "hilo_nas.name": source.name,
        "hilo_nas.weights": weights,
        "hilo_nas.arch.config": json.dumps(source.arch.to_dict()),
        "hilo_nas.preprocessing": json.dumps(
            {**dataclasses.asdict(source.preprocessing), "crop_pct": source.preprocessing.crop_pct}
        ),
        "hilo_nas.versions": json.dumps(versions()),
    }
    if source.manifest is not None and source.record is not None:
        metadata["hilo_nas.provenance"] = json.dumps(build_provenance(source.manifest, source.record))
    return {name: printable(value) for name, value in metadata.items()}
