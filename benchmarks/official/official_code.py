"""The official LITv2 classifier, built from a checkout that the user has, and this package's with the same weights.

Runs in worker processes. Nothing of the official code is in this package: it is imported from the checkout, with one
stand-in. Its deformable convolution is an extension that has to be compiled and runs on CUDA alone; torchvision's
operator, which computes the same, takes its place on every device.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from benchmarks.official.checkout import CODE
from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import ArchError, UsageError
from hilo_nas.events import Emit
from hilo_nas.models import LITv2, build_model, official_state_dict

__all__ = ["build_official", "build_ours", "check_code"]

_PACKAGES = ("models", "mm_modules")
"""Packages at the top of the official code."""
_NETWORK = "models.litv2"
_STAND_IN = "mm_modules.DCN.modules.deform_conv2d"


def check_code(checkout: str, *, emit: Emit) -> None:
    """Imports the official code, to see that it can be.

    Args:
        checkout: Folder of the checkout.
        emit: Unused; every worker function takes it.

    Raises:
        UsageError: The code, or something that it needs, is not there.
    """
    _load_network(checkout)


def build_official(
    checkout: str, arch: Mapping[str, Any], img_size: int, *, num_classes: int, in_chans: int
) -> nn.Module:
    """Builds the official network of an architecture, with the weights of `build_ours`.

    Args:
        checkout: Folder of the checkout.
        arch: `ArchConfig.to_dict()`; of an architecture that the official code knows.
        img_size: Side of the images in pixels: the official network takes no other.
        num_classes: Classes of the head.
        in_chans: Channels of the image.

    Raises:
        UsageError: The code, or something that it needs, is not there.
        ArchError: The official code has no such network.
    """
    arguments = _arguments_of(ArchConfig.from_dict(arch))
    ends = {"img_size": img_size, "num_classes": num_classes, "in_chans": in_chans}
    network: nn.Module = _load_network(checkout)(**arguments, **ends)
    network.load_state_dict(official_state_dict(build_ours(arch, num_classes=num_classes, in_chans=in_chans)))
    return network


def build_ours(arch: Mapping[str, Any], *, num_classes: int, in_chans: int) -> LITv2:
    """Builds this package's network with weights as a trained one might have them.

    They are the same for every call: random, with sampling offsets of about half a pixel and batch norms whose
    statistics are not those of a fresh network, for a form may have folded them.
    """
    network = build_model(ArchConfig.from_dict(arch), num_classes=num_classes, in_chans=in_chans)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.copy_(_draw(name, value, generator))
    return network


def _draw(name: str, value: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(value.shape, generator=generator)
    if name.endswith("running_var") or (value.dim() == 1 and name.endswith("weight")):
        return 1 + 0.1 * drawn.abs()
    if value.dim() == 1:
        return 0.1 * drawn
    scale: float = (0.5 if "conv_offset" in name else 1.0) / value[0].numel() ** 0.5
    return drawn * scale


def _arguments_of(arch: ArchConfig) -> dict[str, Any]:
    """What the official network is told: one width, one alpha and one ratio stand for those of all stages."""
    arguments = {
        "patch_size": arch.patch_size,
        "embed_dim": arch.embed_dims[0],
        "depths": list(arch.depths),
        "num_heads": list(arch.num_heads),
        "has_msa": [int(kind != "none") for kind in arch.attention],
        "alpha": arch.alpha[-1],
        "local_ws": list(arch.window_size),
        "mlp_ratio": arch.mlp_ratios[0],
        "drop_path_rate": 0.0,
    }
    told = ArchConfig(
        patch_size=arch.patch_size,
        embed_dims=tuple(arch.embed_dims[0] * 2**stage for stage in range(len(arch.embed_dims))),
        depths=arch.depths,
        num_heads=arch.num_heads,
        attention=tuple("none" if kind == "none" else "hilo" for kind in arch.attention),
        alpha=arch.alpha[-1:] * len(arch.alpha),
        window_size=arch.window_size,
        mlp_ratios=arch.mlp_ratios[:1] * len(arch.mlp_ratios),
    )
    if told.key() != arch.key():
        raise ArchError(
            "the official code doubles the width from stage to stage and has one alpha, one ratio and no attention but "
            f"HiLo, but got {arch.to_dict()}"
        )
    return arguments


def _load_network(checkout: str) -> Any:
    """Returns the class of the official network. Its modules stay known to Python, for torch.compile looks them up."""
    root = Path(checkout).resolve() / CODE
    loaded = sys.modules.get(_NETWORK)
    if loaded is None or Path(str(loaded.__file__)).parents[1] != root:
        loaded = _import_network(root)
    return loaded.LITv2


def _import_network(root: Path) -> ModuleType:
    for name in [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]:
        del sys.modules[name]  # another checkout's
    sys.modules.update(_stand_in())
    sys.path.insert(0, str(root))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it imports from where timm no longer wants to be imported from
            return importlib.import_module(_NETWORK)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        way_out = "Is the checkout complete?" if package in _PACKAGES else f"Use pip install {package}."
        raise UsageError(f"the official code in {root} needs {error.name}, which is not there. {way_out}") from error
    except ImportError as error:
        raise UsageError(f"the official code in {root} does not go with what is installed here: {error}") from error
    finally:
        sys.path.remove(str(root))


def _stand_in() -> dict[str, ModuleType]:
    """The module of the deformable convolution and the packages around it, by name."""
    names = _STAND_IN.split(".")
    modules = {".".join(names[: i + 1]): ModuleType(".".join(names[: i + 1])) for i in range(len(names))}
    for name, module in modules.items():
        package, _, last = name.rpartition(".")
        if package:
            setattr(modules[package], last, module)
        if name != _STAND_IN:
            module.__path__ = []
    modules[_STAND_IN].DeformConv2dPack = _DeformConv  # type: ignore[attr-defined]
    return modules


class _DeformConv(nn.Conv2d):
    """A deformable convolution by torchvision's operator, whatever this package's own network uses."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.conv_offset = nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        offset, weight, bias = self.conv_offset(x), self.weight, self.bias
        assert bias is not None
        dtype = x.dtype
        if not offset.dtype == weight.dtype == dtype:
            # Under autocast, where torchvision does the same by itself on CUDA alone.
            x, offset, weight, bias = (value.float() for value in (x, offset, weight, bias))
        y: Tensor = deform_conv2d(x, offset, weight, bias, stride=self.stride, padding=self.padding)
        return y.to(dtype)
