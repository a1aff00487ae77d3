"""How, and on which device, a network is timed."""

from __future__ import annotations

import dataclasses
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.measurement.fields import Size

__all__ = ["ENVIRONMENTS", "PRECISIONS", "RUNTIMES", "TORCH_ONLY", "Condition", "DeviceIdentity", "kind_of_device"]

PRECISIONS = ("fp32", "bf16", "fp16", "amp-bf16", "amp-fp16")
RUNTIMES = ("torch", "onnxruntime", "openvino")
ENVIRONMENTS = ("tuned", "default")
DEVICE_KINDS = ("cpu", "cuda", "mps")
TORCH_ONLY = ("compile", "cuda_graph", "channels_last", "fused")
"""Fields that are torch's own: a network that another runtime runs has none of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """How a network is timed. Equal conditions on equal devices give comparable speeds."""

    device: str = "cpu"
    """Kind of the device: `cpu`, `cuda` or `mps`. Which of several equal ones does the work is no part of it."""
    batch_size: Size = 32
    """Images per call."""
    img_size: Size = 224
    """Side of the square input in pixels."""
    precision: str = "fp32"
    """One of `PRECISIONS`; `amp-` is autocast over float32 weights, the others convert the weights."""
    channels_last: bool = False
    compile: bool = False
    """Whether the network goes through `torch.compile` before it is timed."""
    threads: Size | None = None
    """Intra-operation threads on the CPU; None leaves torch's own choice, which is recorded."""
    runtime: str = "torch"
    """One of `RUNTIMES`: what runs the network; all but torch run a converted copy, checked against torch's output."""
    env: str = "tuned"
    """`tuned` starts the timing process with `hilo_nas.timing.TUNED_ENVIRONMENT`, `default` with the user's own."""
    cuda_graph: bool = False
    """Whether calls are replays of a CUDA graph, which take the launches off a small batch."""
    fused: bool = False
    """Whether the network is timed in its inference form, as people deploy it: a LITv2 as `prepare_for_inference` makes
    it, others re-parameterised and with batch norms folded into convolutions."""

    def __post_init__(self) -> None:
        faults = []
        if self.device not in DEVICE_KINDS:
            faults.append(f"the kind of a device must be {', '.join(DEVICE_KINDS)}, but got {self.device!r}")
        for name in ("batch_size", "img_size"):
            if getattr(self, name) < 1:
                faults.append(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            faults.append(f"threads must be at least 1, but got {self.threads}")
        for name, choices in (("precision", PRECISIONS), ("runtime", RUNTIMES), ("env", ENVIRONMENTS)):
            if getattr(self, name) not in choices:
                faults.append(f"{name} must be one of {', '.join(choices)}, but got {getattr(self, name)!r}")
        if self.cuda_graph and self.device != "cuda":
            faults.append(f"cuda_graph needs a cuda device, but got {self.device!r}")
        if self.runtime != "torch":
            if self.precision.startswith("amp-"):
                faults.append(f"runtime {self.runtime} has no autocast: precision must be fp32, bf16 or fp16")
            for name in TORCH_ONLY:
                if getattr(self, name):
                    faults.append(f"{name} is torch's own: it must be left out with runtime {self.runtime}")
        if faults:
            raise UsageError("\n".join(faults))

    def vary(self, **fields: Any) -> Condition:
        """Returns the condition with other values; a change of runtime brings its own with it.

        Another runtime has none of what only torch has; torch instead of another runs the inference form.

        Raises:
            UsageError: A field cannot be what it is.
        """
        runtime = fields.get("runtime", self.runtime)
        implied: dict[str, Any] = {}
        if runtime != "torch":
            implied = dict.fromkeys(TORCH_ONLY, False)
        elif self.runtime != "torch":
            implied = {"fused": True}
        return dataclasses.replace(self, **{**implied, **fields})

    def label(self) -> str:
        """Returns the condition in one word, for tables and file names."""
        parts = [self.device]
        parts += [self.runtime] * (self.runtime != "torch")
        parts += [f"b{self.batch_size}", f"{self.img_size}px", self.precision]
        parts += ["nhwc"] * self.channels_last + ["fused"] * self.fused + ["compiled"] * self.compile
        parts += ["graph"] * self.cuda_graph + [f"{self.env}env"] * (self.env != "tuned")
        parts += [f"t{self.threads}"] * (self.threads is not None)
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data."""
        return dataclasses.asdict(self)


def kind_of_device(name: str) -> str:
    """Returns the kind of a device by its name: `cuda` of `cuda:1`.

    Raises:
        UsageError: No device has such a name.
    """
    kind, colon, index = name.partition(":")
    if kind not in DEVICE_KINDS or (colon and not (kind == "cuda" and index.isascii() and index.isdigit())):
        raise UsageError(f"device must be cpu, cuda, cuda:N or mps, but got {name!r}")
    return kind


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceIdentity:
    """Which device, under which software, a figure comes from."""

    kind: str
    """`cpu`, `cuda` or `mps`."""
    model: str
    """The maker's name for the device, and for a CPU its number of cores."""
    driver: str
    """Driver or kernel version that the device runs under."""
    torch: str
    serial: str
    """What tells two devices of one model apart (a GPU's UUID, a host's name); recorded, not compared."""
    host: str | None = None
    """Class of the host that launches a GPU's work: CPU model and cores. None where `model` says it, of a CPU, and in
    records of earlier versions."""

    def differences(self, other: DeviceIdentity) -> dict[str, tuple[str, str]]:
        """Returns the fields in which the two devices are not interchangeable, with both values.

        Hosts are compared where both are known.
        """
        compared = ("kind", "model", "driver", "torch", "host")
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in compared}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and None not in pair}
