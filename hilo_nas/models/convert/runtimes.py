"""Inference runtimes: the supported ones, their devices and precisions, and networks loaded in them.

Threads wait passively and are not pinned to cores. By default, threads of ONNX Runtime spin and threads of OpenVINO are
pinned. Both distort a timing if another process uses the same core.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hilo_nas.errors import ConversionError, DeviceError, UsageError
from hilo_nas.models.convert.libraries import import_library, refusals

__all__ = ["RUNTIMES", "Converted", "check_runtime", "open_onnxruntime", "open_openvino"]

RUNTIMES = ("onnxruntime", "openvino")

_OPENVINO_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""Type in which OpenVINO computes the operators that are not quantized."""
_ANOTHER_RUNTIME = "Use another runtime, or another form of the network."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """A network loaded in a runtime, with a fixed input batch."""

    form: str
    """Name and version of the implementation: runtime, device, precision, and operator for token merging."""
    image: Tensor
    """Input batch, shape (B, C, H, W). On the CPU, the runtime reads this memory directly, so keep the tensor alive."""
    run: Callable[[], object]
    """Function that runs the batch once and waits for the output. `call` calls it."""
    read_output: Callable[[], Tensor]
    """Function that returns the first output of the last call, in float32 on the CPU."""
    float_layers: tuple[str, ...] = ()
    """Layers that stay in float in a quantized network."""
    hidden_layers: tuple[str, ...] = ()
    """Layers that should stay in float, but are quantized because the runtime changed their weights."""

    def call(self) -> None:
        """Runs the batch once and waits for the output. Does not copy the input or the output."""
        self.run()


def _name_and_version(runtime: str) -> str:
    """Returns the name and version of a runtime, such as `onnxruntime/1.32.0`."""
    version: str = import_library(runtime, f"runtime {runtime}").__version__
    return f"{runtime}/{version.partition('-')[0]}"


def check_runtime(runtime: str, device: str, precision: str) -> None:
    """Checks that a runtime is installed and supports a device and a precision.

    OpenVINO supports bfloat16 and float16 if the processor does. ONNX Runtime accepts float16 on the CPU, but casts to
    float32 for most operators.

    Args:
        runtime: One of `RUNTIMES`.
        device: "cpu", "cuda" or "cuda:N".
        precision: fp32, bf16, fp16 or int8. Only torch supports autocast.

    Raises:
        UsageError: The runtime is unknown or not installed, or it does not support the precision.
        DeviceError: The runtime does not run on the device.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime must be one of {', '.join(RUNTIMES)}, but got {runtime!r}")
    library = import_library(runtime, f"runtime {runtime}")
    kind = device.partition(":")[0]
    kinds = ("cpu", "cuda") if runtime == "onnxruntime" else ("cpu",)
    if kind not in kinds:
        raise DeviceError(
            f"the device of runtime {runtime} must be {' or '.join(kinds)}, but got {device}. Use --device cpu."
        )
    if kind == "cuda" and "CUDAExecutionProvider" not in library.get_available_providers():
        raise DeviceError(
            f"runtime onnxruntime needs its CUDAExecutionProvider for {device}, but {_name_and_version(runtime)} has "
            f"{', '.join(library.get_available_providers())}. Install onnxruntime-gpu instead of onnxruntime, or use "
            "device cpu."
        )
    precisions = ["fp32", "fp16", *["int8"] * (kind == "cpu")]
    if runtime == "openvino":
        native = library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precisions = [name for name in _OPENVINO_TYPES if name.upper() in native]
    if precision not in precisions:
        raise UsageError(
            f"the precision of runtime {runtime} must be {' or '.join(precisions)} on the {kind} of this machine, but "
            f"got {precision}"
        )


def open_onnxruntime(
    source: bytes | Path, image: Tensor, *, name: str, device: str, threads: int, axes: Mapping[str, int]
) -> Converted:
    """Returns an ONNX network loaded in ONNX Runtime. Operators run one after the other; threads do not spin.

    TensorFloat-32, the default of ONNX Runtime on a GPU, is off.

    Args:
        source: Serialized network, or path of its file.
        image: Input batch, shape (B, C, H, W), in the dtype of the network's input.
        name: Name of the network in messages.
        device: "cpu", "cuda" or "cuda:N".
        threads: Number of threads per operator.
        axes: Sizes of named dynamic axes.

    Raises:
        UsageError: ONNX Runtime is not installed.
        ConversionError: ONNX Runtime cannot run the network.
        DeviceError: ONNX Runtime cannot run the network on the device.
        OutOfMemoryError: The network does not fit in memory.
    """
    runtime = import_library("onnxruntime", "runtime onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised, so do not log them too
    for axis, size in axes.items():
        options.add_free_dimension_override_by_name(axis, size)
    place, _, index = device.partition(":")
    provider: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})
    if place == "cuda":
        provider = ("CUDAExecutionProvider", {"device_id": int(index or 0), "use_tf32": 0})
    with refusals(f"{_name_and_version('onnxruntime')} must be able to run {name}", _ANOTHER_RUNTIME):
        model = source if isinstance(source, bytes) else str(source)
        session = runtime.InferenceSession(model, options, providers=[provider])
        if session.get_providers()[0] != provider[0]:  # without a usable GPU, it falls back to the CPU
            raise DeviceError(
                f"onnxruntime must run {name} with {provider[0]} on {device}, but would use "
                f"{session.get_providers()[0]}. See its log for a missing library, or use device cpu."
            )
        binding = session.io_binding()
        image = image.contiguous()
        batch = runtime.OrtValue.ortvalue_from_numpy(image.numpy(), place, int(index or 0))
        binding.bind_ortvalue_input(session.get_inputs()[0].name, batch)
        for output in session.get_outputs():
            binding.bind_output(output.name, place, int(index or 0))

        def run() -> None:
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        run()  # raises errors here, not in a timing, and allocates memory

    def read_output() -> Tensor:
        return torch.from_numpy(np.array(binding.copy_outputs_to_cpu()[0])).float()

    form = f"{_name_and_version('onnxruntime')} {provider[0]}"
    return Converted(form=form, image=image, run=run, read_output=read_output)


def open_openvino(network: Any, image: Tensor, *, name: str, threads: int, precision: str) -> Converted:
    """Returns a network loaded in OpenVINO on the CPU, for one synchronous stream of batches.

    Uses the latency hint: one stream gets all threads. The throughput hint would divide the threads among several
    streams, but a single caller uses only one. The precision is set explicitly, because OpenVINO uses bfloat16 by
    default if the processor supports it.

    Args:
        network: `openvino.Model` with one input.
        image: Input batch, shape (B, C, H, W), in the dtype of the network's input.
        name: Name of the network in messages.
        threads: Number of threads. OpenVINO uses at most the number of cores.
        precision: fp32, bf16, fp16, or int8 for a quantized network.

    Raises:
        UsageError: OpenVINO is not installed.
        ConversionError: OpenVINO cannot run the network, or not in this precision.
        OutOfMemoryError: The network does not fit in memory.
    """
    openvino = import_library("openvino", "runtime openvino")
    wanted = _OPENVINO_TYPES[precision]
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": wanted,
        "ENABLE_CPU_PINNING": False,
    }
    with refusals(f"{_name_and_version('openvino')} must be able to run {name}", _ANOTHER_RUNTIME):
        network.reshape(list(image.shape))
        compiled = openvino.Core().compile_model(network, "CPU", settings)
        given = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if given != wanted:
            raise ConversionError(f"openvino must run {name} in {wanted}, but would use {given}. Use fp32.")
        request = compiled.create_infer_request()
        image = image.contiguous()
        request.set_input_tensor(openvino.Tensor(image.numpy(), shared_memory=True))

        def run() -> None:
            request.infer(share_outputs=True)

        run()

    def read_output() -> Tensor:
        return torch.from_numpy(np.array(request.get_output_tensor(0).data)).float()

    form = f"{_name_and_version('openvino')} CPU {given}" + " int8" * (precision == "int8")
    return Converted(form=form, image=image, run=run, read_output=read_output)
