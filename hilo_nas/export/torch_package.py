"""Export to a torch package, which any program with torch can load without hilo-nas."""

from __future__ import annotations

from hilo_nas.export.network_files import NetworkFileExporter

__all__ = ["TORCH_PACKAGE"]

TORCH_PACKAGE = NetworkFileExporter(
    name="torch-package",
    files=("model.pt2",),
    libraries=(),
    module="hilo_nas.models.convert.torch_file",
    suggest=lambda path, _: f"Load it in Python: torch.export.load({str(path)!r}).module()",
)
