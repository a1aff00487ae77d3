"""Export as an ONNX file: the tool's own conversion, verified against torch before it is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from hilo_nas.errors import UsageError
from hilo_nas.export.exporter import ExportOptions
from hilo_nas.export.provenance import build_provenance
from hilo_nas.export.source import NetworkSource
from hilo_nas.export.text import printable
from hilo_nas.text.commands import command
from hilo_nas.versions import versions

__all__ = ["ONNX", "OnnxExporter"]


class OnnxExporter:
    """Writes a network as one ONNX file in float32, for images of one size and any number of them."""

    name = "onnx"
    source_type = NetworkSource
    files = ("model.onnx",)
    options = frozenset({"weights"})
    can_replace = True

    def check(self, source: NetworkSource, options: ExportOptions) -> None:
        """Raises a UsageError where the extra is not installed, or the images are smaller than the stride."""
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
        """Writes the file; the architecture and where its figures come from stand in its metadata."""
        import torch

        from hilo_nas.models import build_model, fill_zero_weights, load_checkpoint
        from hilo_nas.models.convert import write_onnx

        torch.manual_seed(0)
        model = build_model(source.arch, num_classes=source.num_classes).eval()
        if source.weights is None:
            fill_zero_weights(model)
            weights = "random"
            notes = ["WARNING: the weights are random, for timing only. Use --weights CHECKPOINT for trained ones."]
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
        takes = "any number of images" if is_dynamic else "one image, because torch could not capture a free batch"
        return [*notes, f"its input `image` takes {takes}, 3 x {side} x {side} in float32; `output` is the logits"]

    def verify(self, source: NetworkSource, folder: Path) -> str:
        """Checks that ONNX Runtime gives torch's outputs here."""
        from hilo_nas.models.convert import verify_onnx

        return verify_onnx(folder / self.files[0])

    def next_step(self, source: NetworkSource, files: Sequence[Path]) -> str:
        """Returns how to time the file."""
        return f"Time it here: {command('measure', f'onnx:{files[0]}', '--runtime', 'onnxruntime')}"


ONNX = OnnxExporter()
