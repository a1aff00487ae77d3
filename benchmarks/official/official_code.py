"""Official LITv2 classifier from the user's checkout, and this package's LITv2 with the same weights.

The functions run in worker processes. This package contains no official code. It is imported from the checkout, with
one replacement: the official deformable convolution is a compiled extension for CUDA only. torchvision's operator
computes the same and replaces it on all devices.
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
"""Top-level packages of the official code."""
_NETWORK = "models.litv2"
_REPLACED = "mm_modules.DCN.modules.deform_conv2d"


def check_code(checkout: str, *, emit: Emit) -> None:
    """Checks that the official code can be imported.

    Args:
        checkout: Folder of the checkout.
        emit: Not used, but required of worker functions.

    Raises:
        UsageError: The official code or a package that it needs is missing.
    """
    _load_network(checkout)


def build_official(
    checkout: str, arch: Mapping[str, Any], img_size: int, *, num_classes: int, in_chans: int
) -> nn.Module:
    """Returns the official network of an architecture, with the weights of `build_ours`.

    Args:
        checkout: Folder of the checkout.
        arch: `ArchConfig.to_dict()` of an architecture that the official code supports.
        img_size: Side of the images in pixels. The official network accepts only this size.
        num_classes: Number of classes.
        in_chans: Number of channels of the images.

    Raises:
        UsageError: The official code or a package that it needs is missing.
        ArchError: The official code does not support the architecture.
    """
    arguments = _arguments_of(ArchConfig.from_dict(arch))
    ends = {"img_size": img_size, "num_classes": num_classes, "in_chans": in_chans}
    network: nn.Module = _load_network(checkout)(**arguments, **ends)
    network.load_state_dict(official_state_dict(build_ours(arch, num_classes=num_classes, in_chans=in_chans)))
    return network


def build_ours(arch: Mapping[str, Any], *, num_classes: int, in_chans: int) -> LITv2:
    """Returns this package's network with random weights that resemble trained ones.

    The weights are the same in every call. Sampling offsets are about half a pixel. Batch norms have statistics unlike
    those of a new network, so that errors in folding them are visible.
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
    """Returns the arguments of the official network. It has a single width, alpha and MLP ratio for all stages.

    Raises:
        ArchError: The official code does not support the architecture.
    """
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
    supported = ArchConfig(
        patch_size=arch.patch_size,
        embed_dims=tuple(arch.embed_dims[0] * 2**stage for stage in range(len(arch.embed_dims))),
        depths=arch.depths,
        num_heads=arch.num_heads,
        attention=tuple("none" if kind == "none" else "hilo" for kind in arch.attention),
        alpha=arch.alpha[-1:] * len(arch.alpha),
        window_size=arch.window_size,
        mlp_ratios=arch.mlp_ratios[:1] * len(arch.mlp_ratios),
    )
    if supported.key() != arch.key():
        raise ArchError(
            "an architecture for the official code must double the width at each stage and have one alpha, one MLP "
            f"ratio and only HiLo attention, but got {arch.to_dict()}"
        )
    return arguments


def _load_network(checkout: str) -> Any:
    """Returns the class of the official network. Its modules stay in `sys.modules`; torch.compile needs them there."""
    root = Path(checkout).resolve() / CODE
    loaded = sys.modules.get(_NETWORK)
    if loaded is None or Path(str(loaded.__file__)).parents[1] != root:
        loaded = _import_network(root)
    return loaded.LITv2


def _import_network(root: Path) -> ModuleType:
    for name in [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]:
        del sys.modules[name]  # from another checkout
    sys.modules.update(_build_replacements())
    sys.path.insert(0, str(root))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the code uses deprecated import paths of timm
            return importlib.import_module(_NETWORK)
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        advice = "Use a complete checkout." if package in _PACKAGES else f"Use pip install {package}."
        raise UsageError(f"the official code in {root} needs {error.name}, which is missing. {advice}") from error
    except ImportError as error:
        raise UsageError(
            f"the official code in {root} must be compatible with the installed packages, but: {error}"
        ) from error
    finally:
        sys.path.remove(str(root))


def _build_replacements() -> dict[str, ModuleType]:
    """Returns the replacement modules of the deformable convolution and its parent packages, by name."""
    names = _REPLACED.split(".")
    modules = {".".join(names[: i + 1]): ModuleType(".".join(names[: i + 1])) for i in range(len(names))}
    for name, module in modules.items():
        package, _, last = name.rpartition(".")
        if package:
            setattr(modules[package], last, module)
        if name != _REPLACED:
            module.__path__ = []
    modules[_REPLACED].DeformConv2dPack = _DeformConv  # type: ignore[attr-defined]
    return modules


class _DeformConv(nn.Conv2d):
    """Deformable convolution with torchvision's operator, regardless of the operator in this package's network."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, padding: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding)
        self.conv_offset = nn.Conv2d(in_channels, 2 * kernel_size**2, kernel_size, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        offset, weight, bias = self.conv_offset(x), self.weight, self.bias
        assert bias is not None
        dtype = x.dtype
        if not offset.dtype == weight.dtype == dtype:
            # Autocast: torchvision casts to float by itself, but only on CUDA.
            x, offset, weight, bias = (value.float() for value in (x, offset, weight, bias))
        y: Tensor = deform_conv2d(x, offset, weight, bias, stride=self.stride, padding=self.padding)
        return y.to(dtype)
