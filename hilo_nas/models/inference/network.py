"""LITv2 in its inference form. The module also stores the training form and keeps both consistent."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from hilo_nas.errors import DeviceError, InferenceFormError
from hilo_nas.models.blocks import PatchEmbed, Stage
from hilo_nas.models.inference.fused_blocks import FusedPatchEmbed, FusedStage
from hilo_nas.models.inference.operator_choice import choose_operators
from hilo_nas.models.inference.packed import is_traced
from hilo_nas.models.litv2 import LITv2
from hilo_nas.models.precisions import DTYPES

__all__ = ["PreparedLITv2"]

_SHARED_WORDS = ("patches=product", "merging=gather", "batchnorms=folded", "projections=joint")
"""Optimizations that every network prepared for inference has, as parts of its attribute `form`."""
_NO_TRAINING = (
    "a network prepared for inference cannot be trained and has no gradients. Train its training form, "
    "network.training_form(), then prepare that form. If you train only layers after it, call it under torch.no_grad()."
)


class _Untrainable(nn.Module):
    """A module that is always in evaluation mode and has no gradients."""

    def train(self, mode: bool = True) -> Self:
        """Keeps the network in evaluation mode.

        Raises:
            InferenceFormError: `mode` is True.
        """
        if mode:
            raise InferenceFormError(_NO_TRAINING)
        super().train(False)
        return self

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Keeps the weights without gradients.

        Raises:
            InferenceFormError: `requires_grad` is True.
        """
        if requires_grad:
            raise InferenceFormError(_NO_TRAINING)
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Does nothing, because there is no backward pass.

        Raises:
            InferenceFormError: `enable` is True.
        """
        if enable:
            raise InferenceFormError(_NO_TRAINING)


class PreparedLITv2(_Untrainable, LITv2):
    """LITv2 in its inference form. Use `prepare_for_inference` to build it.

    The network stores a copy of its training form in host memory. Its parameters are packed for the device and are
    read-only.

    * `state_dict` and `load_state_dict` use the training form. Loading packs the weights again.
    * `to`, `half`, `bfloat16` and `float` prepare the network for another device or dtype.
    * `deepcopy`, pickle and `torch.save` copy the training form. Each process that loads it packs the weights for its
      machine.
    * `reset_classifier` and `prune_intermediate_layers` change both forms.
    * `train` and the backward pass raise an InferenceFormError, because the network cannot be trained.

    Args:
        trained: Training form on the CPU. The network takes ownership of it.
        device: Device that runs the network.
        precision: Precision in the format of `prepare_for_inference`.
        for_compile: True if the network goes through `torch.compile`.

    Raises:
        DeviceError: This machine does not have the device.
    """

    _trained: LITv2
    _device: torch.device
    _dtype: torch.dtype
    _precision: str
    _for_compile: bool
    _packed_state: tuple[tuple[nn.Module, ...], tuple[Tensor, ...], tuple[int, ...]]
    """Modules, parameters and parameter versions after the last packing."""

    def __init__(self, trained: LITv2, *, device: torch.device, precision: str, for_compile: bool) -> None:
        nn.Module.__init__(self)
        self.__dict__.update((name, value) for name, value in vars(trained).items() if name not in self.__dict__)
        self.__dict__["_trained"] = trained.eval().requires_grad_(False)
        self.training = False
        self.register_load_state_dict_post_hook(_pack_loaded)  # type: ignore[no-untyped-call]
        self._pack(_checked_device(device), precision, for_compile)

    @property
    def precision(self) -> str:
        """Precision of the network, in the format of `prepare_for_inference`."""
        return self._precision

    def training_form(self) -> LITv2:
        """Returns a new network in the training form with the same weights, on the CPU. Use it to train or export."""
        self._check_unchanged()
        with torch.inference_mode(False), torch.no_grad():
            return copy.deepcopy(self._trained).requires_grad_(True)

    def _pack(self, device: torch.device, precision: str, for_compile: bool) -> None:
        """Builds the parts of the inference form from the training form, then replaces all parts at once."""
        trained, dtype = self._trained, DTYPES[precision.removeprefix("amp-")]
        is_amp = precision.startswith("amp-")
        operators = dataclasses.replace(
            choose_operators(device, precision, for_compile=for_compile),
            dtype=torch.float32 if is_amp else dtype,
            device=device,
            for_autocast=is_amp,
        )
        # Fold weights before they are rounded to the dtype of the operators.
        with torch.inference_mode(False), torch.no_grad():
            assert isinstance(trained.patch_embed, PatchEmbed)
            stages = (stage for stage in trained.layers if isinstance(stage, Stage))
            parts: dict[str, nn.Module | None] = {
                "patch_embed": FusedPatchEmbed(trained.patch_embed, operators),
                "layers": nn.Sequential(*(FusedStage(stage, operators) for stage in stages)),
                "norm": operators.from_layer(trained.norm),
                "head": operators.from_layer(trained.head),
            }
        for name in ("num_classes", "global_pool", "num_features", "head_hidden_size"):
            self.__dict__[name] = getattr(trained, name)
        self.__dict__.update(
            _modules=parts,
            _device=device,
            _dtype=operators.dtype,
            _precision=precision,
            _for_compile=for_compile,
            choices=(*_SHARED_WORDS, *operators.words),
        )
        self.eval()
        self.__dict__["_packed_state"] = self._current_state()

    def _pack_again(self) -> None:
        self._pack(self._device, self._precision, self._for_compile)

    def _current_state(self) -> tuple[tuple[nn.Module, ...], tuple[Tensor, ...], tuple[int, ...]]:
        parameters = tuple(self.parameters())
        return tuple(self.modules()), parameters, tuple(parameter._version for parameter in parameters)

    def _check_unchanged(self) -> None:
        """Raises an InferenceFormError if someone changed weights of the inference form.

        Such a change would be lost, because the inference form is rebuilt from the training form.
        """
        modules, parameters, versions = self._current_state()
        old_modules, old_parameters, old_versions = self._packed_state
        is_same = len(modules) == len(old_modules)
        is_same = is_same and all(a is b for a, b in zip(modules, old_modules, strict=True))
        is_same = is_same and len(parameters) == len(old_parameters)
        is_same = is_same and all(a is b for a, b in zip(parameters, old_parameters, strict=True))
        if not is_same or versions != old_versions:
            raise InferenceFormError(
                "the parts and weights of a prepared network must not be changed in place, but they were. Change the "
                "training form, network.training_form(), then prepare it again."
            )

    # Forward pass.

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """Returns the normalised feature map of the last stage, shape (B, num_features, H, W).

        Raises:
            UsageError: The images do not fit the prepared network, or they are smaller than its stride.
        """
        with torch.no_grad():
            y_BCHW = super().forward_features(x_BCHW)
        return _without_backward(y_BCHW)

    def forward_intermediates(self, x_BCHW: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Returns the features of the selected stages. Arguments and result are those of `LITv2.forward_intermediates`.

        Raises:
            UsageError: The images do not fit the prepared network, or they are smaller than its stride.
        """
        with torch.no_grad():
            found = super().forward_intermediates(x_BCHW, *args, **kwargs)
        if isinstance(found, list):
            return [_without_backward(y_BCHW) for y_BCHW in found]
        final, intermediates = found
        return _without_backward(final), [_without_backward(y_BCHW) for y_BCHW in intermediates]

    # Loading and saving of weights.

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a copy of the training form's state dict. Takes the arguments of `torch.nn.Module.state_dict`."""
        self._check_unchanged()
        with torch.inference_mode(False), torch.no_grad():
            return copy.deepcopy(self._trained).state_dict(*args, **kwargs)

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Loads weights into the training form.

        torch then calls `_pack_loaded`, which rebuilds the inference form from them.
        """
        own = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
        try:
            with torch.inference_mode(False):
                result = self._trained.load_state_dict(own, strict=False)
        except RuntimeError as error:
            error_msgs.append(str(error))
        else:
            missing_keys += [prefix + name for name in result.missing_keys]
            unexpected_keys += [prefix + name for name in result.unexpected_keys]
        self.__dict__["_modules"] = {}  # otherwise torch would load the parts, whose names differ

    def __getstate__(self) -> dict[str, Any]:
        self._check_unchanged()
        return {name: value for name, value in vars(self).items() if name != "_packed_state"} | {"_modules": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pack(_checked_device(self._device), self._precision, self._for_compile)

    def __copy__(self) -> PreparedLITv2:
        return copy.deepcopy(self)  # two networks must not share a training form

    # Changes of device, dtype and structure.

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PreparedLITv2:
        """Prepares the network for the device and dtype to which `fn` converts a tensor."""
        self._check_unchanged()
        try:
            probe = fn(torch.empty(1, 1, 1, 1, dtype=self._dtype, device=self._device))
        except Exception as error:  # torch raises several classes if the device is missing
            raise DeviceError(
                f"a prepared network can be moved only to devices of this machine, but torch raised: {error}. The "
                f"network stays on {self._device}."
            ) from error
        device, dtype = probe.device, probe.dtype
        if (dtype, device) == (self._dtype, self._device):
            return self
        precision = next((name for name, known in DTYPES.items() if known == dtype), None)
        if precision is None:
            raise InferenceFormError(
                f"the dtype of a prepared network must be float32, bfloat16 or float16, but got {dtype}. Use its "
                "training form, network.training_form()."
            )
        self._pack(_checked_device(device), self._precision if dtype == self._dtype else precision, self._for_compile)
        return self

    def share_memory(self) -> PreparedLITv2:
        """Moves the weights of the training form to shared memory. Each process packs its own copy of them."""
        self._trained.share_memory()
        return self

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the classifier in the training form and the inference form, as `LITv2.reset_classifier` does."""
        self._check_unchanged()
        self._trained.reset_classifier(num_classes, global_pool)
        self._trained.eval().requires_grad_(False)
        self._pack_again()

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes stages from the training form and the inference form, as `LITv2.prune_intermediate_layers` does."""
        self._check_unchanged()
        taken = self._trained.prune_intermediate_layers(indices, prune_norm, prune_head)
        self._trained.eval().requires_grad_(False)
        self._pack_again()
        return taken

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, (nn.Module, Tensor)):
            raise InferenceFormError(
                f"{name} of a prepared network cannot be replaced. Change the training form, network.training_form(), "
                "then prepare it again."
            )
        super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> NoReturn:  # called by torch.jit.script
        raise InferenceFormError(
            "torch.jit.script cannot capture a network prepared for inference. Use torch.export on its "
            "training form, network.training_form()."
        )


def _checked_device(device: torch.device) -> torch.device:
    """Returns the device with its index, after a check that this machine can run networks on it."""
    try:
        if device.type == "meta":
            raise RuntimeError("tensors on the meta device have no values")
        return torch.empty(0, device=device).device
    except Exception as error:  # torch raises several classes if the device is missing
        raise DeviceError(
            f"a network can be prepared only for devices of this machine, but got {device}: {error}. Prepare it for "
            "cpu. To transfer weights from another machine, save a state dict: "
            'torch.save(network.state_dict(), "weights.pt").'
        ) from error


def _pack_loaded(module: nn.Module, incompatible_keys: Any) -> None:
    """Packs loaded weights. torch calls this hook after each `load_state_dict` of the network or of a parent module."""
    assert isinstance(module, PreparedLITv2)
    module._pack_again()


class _NoBackward(torch.autograd.Function):
    """Identity function with a backward pass that raises an InferenceFormError."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, anchor: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> NoReturn:
        raise InferenceFormError(_NO_TRAINING)


def _without_backward(y: Tensor) -> Tensor:
    """Returns the output. If gradients are recorded, a backward pass through it raises an error instead of stopping."""
    if not torch.is_grad_enabled() or torch.compiler.is_compiling() or is_traced():
        return y
    marked: Tensor = _NoBackward.apply(y, torch.empty(0, requires_grad=True))
    return marked
