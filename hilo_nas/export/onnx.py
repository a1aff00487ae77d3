"""Export to an ONNX file, converted by hilo-nas and compared with torch before it is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from hilo_nas.errors import UsageError
from hilo_nas.export.export_options import ExportOptions
from hilo_nas.export.provenance import build_provenance
from hilo_nas.export.source import NetworkSource
from hilo_nas.export.text import printable
from hilo_nas.text.commands import command
from hilo_nas.versions import versions

__all__ = ["ONNX", "OnnxExporter"]


class OnnxExporter:
    """Writer of one ONNX file in float32, for one image size and, if torch can export it, any batch size."""

    name = "onnx"
    source_type = NetworkSource
    files = ("model.onnx",)
    options = frozenset({"weights"})
    can_replace = True

    def check(self, source: NetworkSource, options: ExportOptions) -> None:
        """Raises a UsageError if a library is missing or the images are smaller than the network's stride."""
        from hilo_nas.models.convert.libraries import import_library

        faults = []
        if source.preprocessing.img_size < source.arch.stride:
            side = source.preprocessing.img_size
            faults.append(f"img_size must be at least {source.arch.stride}, the network's stride, but got {side}")
        for library in ("onnx", "onnxscript", "onnxruntime"):
            try:
                import_library(library, "format onnx")
            except UsageError as error:
                faults.append(str(error))
        if faults:
            raise UsageError("\n".join(faults))

    def write(self, source: NetworkSource, folder: Path, options: ExportOptions) -> list[str]:
        """Writes the file, with the architecture and its provenance in the metadata."""
        import torch

        from hilo_nas.models import build_model, fill_zero_weights, load_checkpoint
        from hilo_nas.models.convert import write_onnx

        torch.manual_seed(0)
        model = build_model(source.arch, num_classes=source.num_classes).eval()
        if source.weights is None:
            fill_zero_weights(model)
            weights = "random"
            notes = [
                "WARNING: the weights are random, for timing only. Use --weights CHECKPOINT to export trained ones."
            ]
        else:
            load_checkpoint(model, source.weights)
            weights = f"{source.weights.name} sha256:{hashlib.sha256(source.weights.read_bytes()).hexdigest()}"
            notes = []
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
        side = source.preprocessing.img_size
        is_dynamic = write_onnx(
            model,
            folder / self.files[0],
            shape=(3, side, side),
            metadata={name: printable(value) for name, value in metadata.items()},
        )
        takes = "any number of images" if is_dynamic else "one image, because torch cannot export a dynamic batch"
        return [*notes, f"its input `image` takes {takes}, 3 x {side} x {side} in float32; `output` is the logits"]

    def verify(self, source: NetworkSource, folder: Path) -> str:
        """Checks that ONNX Runtime and torch give the same outputs on this machine."""
        from hilo_nas.models.convert import verify_onnx

        return verify_onnx(folder / self.files[0])

    def next_step(self, source: NetworkSource, files: Sequence[Path]) -> str:
        """Returns the command that times the file."""
        return f"Time it on this machine: {command('measure', f'onnx:{files[0]}', '--runtime', 'onnxruntime')}"


ONNX = OnnxExporter()
