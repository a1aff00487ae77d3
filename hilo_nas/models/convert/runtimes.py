"""The runtimes: which there are, what they take, and a network opened in one, its input placed where it runs.

Threads wait passively, as everywhere in this package, and go where the system sends them: by default ONNX Runtime's
spin and OpenVINO's are tied to cores, which ruins a timing as soon as another process wants the same core.
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

_OPENVINO_TYPES = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_ANOTHER_RUNTIME = "Use another runtime, or another form of the network."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Converted:
    """A network opened in a runtime, with a fixed batch bound as its input."""

    form: str
    """Which implementation runs: runtime and version, where, in which precision, and how token merging is done."""
    image: Tensor
    """The batch, shape (B, C, H, W). On the CPU the runtime reads it where it lies, so it must live as long as this."""
    run: Callable[[], object]
    """What `call` calls."""
    read_output: Callable[[], Tensor]
    """Returns the first output of the last call, float32 on the CPU."""

    def call(self) -> None:
        """Runs the batch once and returns when the output is there; copies nothing."""
        self.run()


def _versioned(runtime: str) -> str:
    """Returns a runtime's name and version, `onnxruntime/1.32.0`."""
    version: str = import_library(runtime, f"runtime {runtime}").__version__
    return f"{runtime}/{version.partition('-')[0]}"


def check_runtime(runtime: str, device: str, precision: str) -> None:
    """Checks that this machine has a runtime, for a device and a precision.

    bfloat16 and float16 are OpenVINO's where the processor computes in them. In ONNX Runtime the CPU takes float16 and
    computes most of it in float32, between casts.

    Args:
        runtime: One of `RUNTIMES`.
        device: "cpu", "cuda" or "cuda:N".
        precision: fp32, bf16 or fp16; autocast is torch's own.

    Raises:
        UsageError: The runtime is unknown or not installed, or does not take the precision.
        DeviceError: The runtime does not run on the device.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime must be one of {', '.join(RUNTIMES)}, but got {runtime!r}")
    library = import_library(runtime, f"runtime {runtime}")
    kind = device.partition(":")[0]
    kinds = ("cpu", "cuda") if runtime == "onnxruntime" else ("cpu",)
    if kind not in kinds:
        raise DeviceError(f"runtime {runtime} runs on {' or '.join(kinds)} here, but got {device}")
    if kind == "cuda" and "CUDAExecutionProvider" not in library.get_available_providers():
        raise DeviceError(
            f"runtime onnxruntime needs its CUDAExecutionProvider for {device}, but {_versioned(runtime)} has "
            f"{', '.join(library.get_available_providers())}. Use pip install onnxruntime-gpu in its place, or cpu."
        )
    precisions = ["fp32", "fp16"]
    if runtime == "openvino":
        native = library.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precisions = [name for name in _OPENVINO_TYPES if name.upper() in native]
    if precision not in precisions:
        raise UsageError(
            f"runtime {runtime} takes {' or '.join(precisions)} on this machine's {kind}, but got {precision}. "
            f"Use one of these."
        )


def open_onnxruntime(
    source: bytes | Path, image: Tensor, *, name: str, device: str, threads: int, axes: Mapping[str, int]
) -> Converted:
    """Opens an ONNX network in ONNX Runtime: one call at a time, one operator after the other, no spinning threads.

    On a GPU, float32 is float32: TensorFloat-32, ONNX Runtime's default, is off.

    Args:
        source: The network, or its file.
        image: The batch, shape (B, C, H, W), in the dtype of the network's input.
        name: What the network is called in messages.
        device: "cpu", "cuda" or "cuda:N".
        threads: Threads of an operator.
        axes: Sizes of named free axes.

    Raises:
        UsageError: ONNX Runtime is not installed.
        ConversionError: It cannot run the network.
        DeviceError: It would not run the network on the device.
        OutOfMemoryError: The network does not fit.
    """
    runtime = import_library("onnxruntime", "runtime onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what it reports it also raises
    for axis, size in axes.items():
        options.add_free_dimension_override_by_name(axis, size)
    place, _, index = device.partition(":")
    provider: tuple[str, dict[str, Any]] = ("CPUExecutionProvider", {})
    if place == "cuda":
        provider = ("CUDAExecutionProvider", {"device_id": int(index or 0), "use_tf32": 0})
    with refusals(f"{_versioned('onnxruntime')} must be able to run {name}", _ANOTHER_RUNTIME):
        model = source if isinstance(source, bytes) else str(source)
        session = runtime.InferenceSession(model, options, providers=[provider])
        if session.get_providers()[0] != provider[0]:  # it goes on without a GPU that it cannot open
            raise DeviceError(
                f"onnxruntime must run {name} with its {provider[0]} on {device}, but would take "
                f"{session.get_providers()[0]}. See its log for the library that it misses, or use cpu."
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

        run()  # fails here, if it fails, and makes room for what it needs

    def read_output() -> Tensor:
        return torch.from_numpy(np.array(binding.copy_outputs_to_cpu()[0])).float()

    form = f"{_versioned('onnxruntime')} {provider[0]}"
    return Converted(form=form, image=image, run=run, read_output=read_output)


def open_openvino(network: Any, image: Tensor, *, name: str, threads: int, precision: str) -> Converted:
    """Opens a network in OpenVINO on the CPU, for one synchronous stream of batches.

    That is its latency hint: one stream that has all the threads. Its throughput hint would share them out among
    several streams, of which one caller fills one. The precision is said outright, since OpenVINO takes bfloat16 by
    itself where the processor computes in it.

    Args:
        network: An `openvino.Model` with one input.
        image: The batch, shape (B, C, H, W), in the dtype of the network's input.
        name: What the network is called in messages.
        threads: Threads of the one stream; OpenVINO takes no more than there are cores.
        precision: fp32, bf16 or fp16.

    Raises:
        UsageError: OpenVINO is not installed.
        ConversionError: It cannot run the network, or not in the precision.
        OutOfMemoryError: The network does not fit.
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
    with refusals(f"{_versioned('openvino')} must be able to run {name}", _ANOTHER_RUNTIME):
        network.reshape(list(image.shape))
        compiled = openvino.Core().compile_model(network, "CPU", settings)
        given = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if given != wanted:
            raise ConversionError(f"openvino must run {name} in {wanted}, but would take {given}. Use fp32.")
        request = compiled.create_infer_request()
        image = image.contiguous()
        request.set_input_tensor(openvino.Tensor(image.numpy(), shared_memory=True))

        def run() -> None:
            request.infer(share_outputs=True)

        run()

    def read_output() -> Tensor:
        return torch.from_numpy(np.array(request.get_output_tensor(0).data)).float()

    return Converted(form=f"{_versioned('openvino')} CPU {given}", image=image, run=run, read_output=read_output)
