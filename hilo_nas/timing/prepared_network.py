"""Networks prepared for timing: a callable in the precision, memory layout and runtime of a condition."""

from __future__ import annotations

import contextlib
import dataclasses
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.config as _dynamo
import torch._inductor.config as _inductor
from torch import nn

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import UsageError, is_out_of_memory
from hilo_nas.events import Emit
from hilo_nas.measurement import Condition
from hilo_nas.measurement.condition import RANDOM_WEIGHTS
from hilo_nas.models import (
    LITv2,
    build_subject,
    form_of,
    img_size_of,
    input_shape_of,
    prepare_for_inference,
    randomize_constant_weights,
)
from hilo_nas.models.precisions import DTYPES
from hilo_nas.timing.device import check_device, peak_memory_mib
from hilo_nas.timing.fuse import fuse

__all__ = ["Prepared", "capture_graph", "prepare", "read_form"]

_GRAPH_WARM_UP_CALLS = 3
_COMPILATIONS = 4096
"""Maximum number of compilations that torch keeps, over all networks."""
_COMPILED: weakref.WeakSet[nn.Module] = weakref.WeakSet()
"""Compiled networks in use."""
Call = Callable[[], object]
_TINY = ArchConfig(embed_dims=(8, 16, 32, 64), depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 4), patch_size=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A network that is ready for timing."""

    call: Callable[[], object]
    """Runs the network once on its batch. On a GPU it returns before the work is finished."""
    form: str
    """Name of the implementation that runs, as in `Measurement.form`."""
    read_memory_mib: Callable[[], float | None]
    """Runs the network once and returns the peak memory in MiB, including weights. None if it cannot be measured."""


def capture_graph(call: Call, device: torch.device) -> Call:
    """Captures one call in a CUDA graph and returns the function that replays it.

    The graph uses fixed memory addresses, so the input must stay in place.

    Raises:
        RuntimeError: The network has an operation that cannot be captured. End the process after this error because
            torch may still be in capture mode.
    """
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(_GRAPH_WARM_UP_CALLS):
            call()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.device(device), torch.cuda.graph(graph):
            call()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        raise RuntimeError(
            f"timing.cuda_graph needs a network that a CUDA graph can capture, but capturing it failed: {error}. "
            "Set timing.cuda_graph=false."
        ) from error
    return graph.replay


def prepare(
    subject: Mapping[str, Any],
    condition: Condition,
    *,
    num_classes: int,
    target: str | None = None,
    capture: Callable[[Call, torch.device], Call] = capture_graph,
) -> Prepared:
    """Builds a network with random weights (`randomize_constant_weights`) and prepares it for timing.

    Args:
        subject: Argument of `build_subject`, or `{"onnx": FILE}`, `{"openvino": FILE}` or `{"training": SUBJECT}`. The
            call of the last is a training step of that network without the optimiser.
        condition: Condition of the timing. If the subject has its own image size, this size replaces the condition's.
        num_classes: Number of outputs of the classifier.
        target: Name of the device. Defaults to the first device of the condition's kind.
        capture: Function that captures a call in a CUDA graph and returns a function that replays the graph. Used only
            if the condition has `cuda_graph`.

    Raises:
        DeviceError: This machine does not have the device.
        UsageError: The subject is not a known network, or cannot run under the condition.
        ConversionError: The outputs of the runtime differ from those of torch.
    """
    target = target or condition.device
    device = check_device(target)
    condition = dataclasses.replace(condition, img_size=img_size_of(subject, condition.img_size))
    if "onnx" in subject:
        return _load_onnx(subject["onnx"], condition, target)
    if "openvino" in subject:
        return _load_openvino(subject["openvino"], condition, target)
    if "training" in subject:
        with torch.inference_mode(False):  # parameters made in inference mode cannot be trained
            return _prepare_step(subject["training"], condition, device, num_classes)
    model = _build(subject, num_classes, condition.img_size)
    if condition.runtime != "torch":
        from hilo_nas.models.convert import convert

        image = _input(subject, condition, torch.device("cpu"))
        converted = convert(
            model,
            image,
            condition.runtime,
            device=target,
            threads=condition.threads,
            precision=condition.precision,
        )
        # Leave out the words that describe torch's implementation, which does not run here.
        words = [word for word in form_of(model).split() if word != "eager" and not word.startswith("merging=")]
        return Prepared(
            call=converted.call, form=f"{' '.join(words)} {converted.form} {RANDOM_WEIGHTS}", read_memory_mib=_unseen
        )
    return _prepare_torch(model, subject, condition, device, capture)


def read_form(condition: Mapping[str, Any], *, target: str | None = None, emit: Emit) -> str:
    """Returns the name of the implementation in which a LITv2 is timed under a condition.

    Prepares a tiny LITv2 to find it.

    Args:
        condition: `Condition` as plain data.
        target: Name of the device. Defaults to the first device of the condition's kind.
        emit: Unused. All worker functions have this parameter.
    """
    tiny = dataclasses.replace(Condition(**condition), batch_size=1, img_size=_TINY.stride)
    with torch.inference_mode():
        return prepare({"arch": _TINY.to_dict()}, tiny, num_classes=10, target=target).form


def _prepare_torch(
    model: nn.Module,
    subject: Mapping[str, Any],
    condition: Condition,
    device: torch.device,
    capture: Callable[[Call, torch.device], Call],
) -> Prepared:
    image = _input(subject, condition, device)
    if condition.fused:
        model, form = _fused(model, subject, condition, device)
    else:
        model, form = _place(model, condition, device), form_of(model)
    run: Any = model
    weights_bytes = _count_bytes(model)
    if condition.compile:
        run = _compile(model)
        form += " compiled"
    eager = call = _autocast(lambda: run(image), condition, device)
    if condition.compile and device.type == "cpu":
        eager = call = _freezing(call)
        form += f" frozen {RANDOM_WEIGHTS}"
        weights_bytes *= 2  # the packed weights are additional ones
    if condition.cuda_graph:
        call = capture(eager, device)
        form += " graph"

    # The eager call gives the memory of a graph, too: the graph holds all memory that the call needs, so a replay
    # allocates nothing. A graph uses memory addresses, so the network and its input must live as long as the graph. The
    # memory reader holds the eager call, which keeps both alive.
    return Prepared(call=call, form=form, read_memory_mib=_memory_reader(eager, weights_bytes, device))


def _fused(
    model: nn.Module, subject: Mapping[str, Any], condition: Condition, device: torch.device
) -> tuple[nn.Module, str]:
    """Returns the network in its inference form on the device, and a short description of that form."""
    if isinstance(model, LITv2):
        model = prepare_for_inference(
            model, device=device, precision=condition.precision, for_compile=condition.compile
        )
        return model, form_of(model)
    form = form_of(model)
    # Two images suffice to compare outputs. A whole batch for a GPU would take long on the CPU.
    few = dataclasses.replace(condition, precision="fp32", batch_size=min(2, condition.batch_size))
    image = _input(subject, few, torch.device("cpu"))
    model, how = fuse(model, image)
    return _place(model, condition, device), f"{form} {how}"


def _prepare_step(subject: Mapping[str, Any], condition: Condition, device: torch.device, num_classes: int) -> Prepared:
    """Returns a training step as a call: forward pass, loss and backward pass.

    The call returns the network with its gradients. The loss is the mean square of the outputs because it fits any
    output and costs almost nothing.
    """
    if condition.runtime != "torch" or condition.fused or condition.cuda_graph:
        raise UsageError("a training step runs only in torch. Leave out runtime, fused and cuda_graph.")
    model = _place(_build(subject, num_classes, condition.img_size), condition, device).train()
    image = _input(subject, condition, device)
    form = f"{form_of(model)} training" + " compiled" * condition.compile
    run: Any = _compile(model) if condition.compile else model
    forward: Any = _autocast(lambda: run(image), condition, device)

    def step() -> object:
        with torch.inference_mode(False), torch.enable_grad():
            model.zero_grad(set_to_none=True)
            forward().float().square().mean().backward()
        return model

    read = _memory_reader(step, _count_bytes(model), device)

    def read_memory_mib() -> float | None:
        model.zero_grad(set_to_none=True)  # otherwise the call starts with gradients, which it then frees
        return read()

    return Prepared(call=step, form=form, read_memory_mib=read_memory_mib)


def _count_bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def _memory_reader(call: Call, weights_bytes: int, device: torch.device) -> Callable[[], float | None]:
    def read_memory_mib() -> float | None:
        with contextlib.suppress(AttributeError):  # the profiler's raw events are not a public API of torch
            return peak_memory_mib(call, weights_bytes, device)
        return None

    return read_memory_mib


def _build(subject: Mapping[str, Any], num_classes: int, img_size: int) -> nn.Module:
    torch.manual_seed(0)
    model = build_subject(dict(subject), num_classes=num_classes, in_chans=3, img_size=img_size).eval()
    randomize_constant_weights(model)
    return model


def _input(subject: Mapping[str, Any], condition: Condition, device: torch.device) -> torch.Tensor:
    """Returns a random input batch on the device.

    It is a batch of images (B, 3, H, W), or a feature map (B, H, W, C) for a single layer.
    """
    generator = torch.Generator().manual_seed(0)
    shape = input_shape_of(subject, condition.batch_size, condition.img_size)
    image: torch.Tensor = _place(torch.randn(shape, generator=generator), condition, device)
    return image


def _place(thing: Any, condition: Condition, device: torch.device) -> Any:
    """Returns a tensor or a network on the device, in the condition's precision and memory layout."""
    dtype = DTYPES.get(condition.precision, torch.float32)
    layout = torch.channels_last if condition.channels_last else torch.contiguous_format
    return thing.to(device=device, dtype=dtype, memory_format=layout)


def _autocast(call: Call, condition: Condition, device: torch.device) -> Call:
    if not condition.precision.startswith("amp-"):
        return call
    dtype = DTYPES[condition.precision.removeprefix("amp-")]

    def under_autocast() -> object:
        with torch.autocast(device.type, dtype=dtype):
            return call()

    return under_autocast


def _compile(model: nn.Module) -> Any:
    """Returns the compiled network. Its first call compiles it.

    torch counts compilations per function, and all networks share the same functions. Above its default limit of 8,
    torch silently runs the next network in eager mode, so this function raises the limit. It resets the compiler only
    if no compiled network is in use, because such a network would compile again during its timing.
    """
    if not _COMPILED:
        torch.compiler.reset()
    _COMPILED.add(model)
    for name in ("recompile_limit", "accumulated_recompile_limit"):
        # Before torch 2.6 the names were cache_size_limit and accumulated_cache_size_limit.
        setattr(_dynamo, name if hasattr(_dynamo, name) else name.replace("recompile", "cache_size"), _COMPILATIONS)
    return torch.compile(model, dynamic=False)


def _freezing(call: Call) -> Call:
    """Returns a call of a compiled network whose first run, without gradients, makes constants of its weights.

    The compiler packs constants for oneDNN and fuses more. For LITv2-S on an Intel Xeon with torch 2.14, this is 1.2
    times as fast as without it.
    """
    is_compiled = False

    def run() -> object:
        nonlocal is_compiled
        if is_compiled:
            return call()
        # A global setting, because torch reads it when it captures the network, before the options of the call.
        with _inductor.patch(freezing=True):
            output = call()
        is_compiled = True
        return output

    return run


def _load_onnx(path: str, condition: Condition, target: str) -> Prepared:
    from hilo_nas.models.convert import load_onnx

    if condition.runtime == "torch":
        raise UsageError(f"onnx:{path} needs a runtime for ONNX, but got torch. Use --runtime onnxruntime or openvino.")
    loaded = load_onnx(
        Path(path),
        condition.runtime,
        batch_size=condition.batch_size,
        img_size=condition.img_size,
        device=target,
        threads=condition.threads,
        precision=condition.precision,
    )
    return Prepared(call=loaded.call, form=loaded.form, read_memory_mib=_unseen)


def _load_openvino(path: str, condition: Condition, target: str) -> Prepared:
    from hilo_nas.models.convert import load_openvino

    if condition.runtime != "openvino":
        raise UsageError(
            f"openvino:{path} needs the runtime openvino, but got {condition.runtime}. Use --runtime openvino."
        )
    loaded = load_openvino(
        Path(path),
        batch_size=condition.batch_size,
        img_size=condition.img_size,
        device=target,
        threads=condition.threads,
        precision=condition.precision,
    )
    return Prepared(call=loaded.call, form=loaded.form, read_memory_mib=_unseen)


def _unseen() -> None:
    return None
