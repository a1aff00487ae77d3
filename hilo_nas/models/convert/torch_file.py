"""Torch packages for deployment: the graph of a network in `torch.export`'s format, which needs no code of hilo-nas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hilo_nas.errors import UsageError
from hilo_nas.models.convert.capture import without_torchvision
from hilo_nas.models.convert.file_check import CHECK, FileCheck, Images, WrittenFile, capture_for_file
from hilo_nas.models.convert.libraries import refusals

__all__ = ["verify", "write"]


def write(model: nn.Module, path: Path, *, shape: tuple[int, int, int], metadata: Mapping[str, str]) -> WrittenFile:
    """Writes a network to one file in float32 that `torch.export.load` reads.

    Args:
        model: Network to export; not changed.
        path: .pt2 file to write, in an existing folder.
        shape: Shape of an image, (C, H, W).
        metadata: Additional metadata, which `torch.export.load(path, extra_files=...)` returns.

    Returns:
        What the file accepts and contains.

    Raises:
        UsageError: The version of torch is too old.
        ConversionError: The network cannot be captured.
    """
    program, check = capture_for_file(model, shape)
    program = without_torchvision(program)
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # it contains paths of this machine
    with refusals("torch must be able to write the network", "Use another format."), torch.no_grad():
        torch.export.save(program, path, extra_files={**metadata, CHECK: check.to_text()})
    return WrittenFile(is_dynamic=check.is_dynamic)


def verify(path: Path) -> str:
    """Checks that the file gives the outputs of torch that are stored in it.

    Returns:
        Message with the largest difference.

    Raises:
        UsageError: The file does not exist, or is not from `write`.
        ConversionError: The outputs differ, or torch cannot load the file.
    """
    if not path.is_file():
        raise UsageError(f"a torch package must exist, but there is no file {path}")
    extra = {CHECK: ""}
    with refusals(f"torch {torch.__version__} must be able to load {path}", "Export it again."):
        module = torch.export.load(path, extra_files=extra).module()

    def run(images: Images) -> Tensor:
        with torch.inference_mode():
            output: Tensor = module(torch.from_numpy(images))
        return output

    check = FileCheck.from_text(extra[CHECK] or None, str(path))
    return check.compare(run, str(path), f"torch {torch.__version__}")
