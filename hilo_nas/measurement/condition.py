"""Conditions of timings, and the identity of devices."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from hilo_nas.errors import UsageError
from hilo_nas.measurement.fields import Size

__all__ = [
    "ALL_CUDA",
    "ENVIRONMENTS",
    "INT8_VERSION",
    "PRECISIONS",
    "RANDOM_WEIGHTS",
    "RUNTIMES",
    "TORCH_ONLY",
    "Condition",
    "DeviceIdentity",
    "devices_of",
    "kind_of_device",
    "kind_of_target",
    "slug_of_model",
]

ALL_CUDA = "cuda:all"
"""Target for all CUDA devices of a machine."""

PRECISIONS = ("fp32", "bf16", "fp16", "amp-bf16", "amp-fp16", "int8")
RUNTIMES = ("torch", "onnxruntime", "openvino")
ENVIRONMENTS = ("tuned", "default")
INT8_VERSION = "2"
"""Version of the quantization to INT8. Change it with every change that affects speeds or scores in INT8."""
RANDOM_WEIGHTS = "weights/2"
"""Version of the random weights, a part of the form wherever a compiler or runtime can leave out weights that change
nothing. Version 1 had zeros and ones in biases and norms. In OpenVINO, four networks ran up to 5 % faster with it in
fp32, and up to 8 % in INT8, than after training. With version 2, the difference is -2 to 2 % (32 px, batch 64, two
cores of an Intel Xeon)."""
DEVICE_KINDS = ("cpu", "cuda", "mps")
TORCH_ONLY = ("compile", "cuda_graph", "channels_last", "fused")
"""Fields that only torch supports. They are False for other runtimes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Condition:
    """Settings under which a network is timed. Speeds are comparable under equal conditions on equal devices."""

    device: str = "cpu"
    """Kind of the device: `cpu`, `cuda` or `mps`. A condition does not name one of several equal devices."""
    batch_size: Size = 32
    """Number of images per call."""
    img_size: Size = 224
    """Side of the square input in pixels."""
    precision: str = "fp32"
    """One of `PRECISIONS`. The `amp-` precisions use autocast with float32 weights. `int8` is static
    quantization of linear layers and convolutions by the tool of a runtime. The others convert the weights."""
    channels_last: bool = False
    compile: bool = False
    """True if the network is compiled with `torch.compile` before it is timed."""
    threads: Size | None = None
    """Number of intra-operation threads on the CPU. None uses torch's default, which is recorded."""
    runtime: str = "torch"
    """One of `RUNTIMES`. All except torch run a converted copy, whose outputs are compared with those of torch."""
    env: str = "tuned"
    """Environment of the timing process: `hilo_nas.timing.TUNED_ENVIRONMENT` if `tuned`, the user's if `default`."""
    cuda_graph: bool = False
    """True if calls replay a CUDA graph, which avoids the launch overhead of small batches."""
    fused: bool = False
    """True if the network is timed in its inference form, as for deployment. `prepare_for_inference` builds this form
    of a LITv2. Other networks are re-parameterised, and their batch norms are folded into convolutions."""
    model: str | None = None
    """Model of the device (`DeviceIdentity.model`) for the second and further targets of this kind in a study. None for
    the first one."""

    def __post_init__(self) -> None:
        faults = []
        if self.device not in DEVICE_KINDS:
            faults.append(f"device kind must be one of {', '.join(DEVICE_KINDS)}, but got {self.device!r}")
        for name in ("batch_size", "img_size"):
            if getattr(self, name) < 1:
                faults.append(f"{name} must be at least 1, but got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            faults.append(f"threads must be at least 1, but got {self.threads}")
        if self.model is not None and not slug_of_model(self.model):
            faults.append(f"model must have a letter or a digit, but got {self.model!r}. Time on it in its own study")
        for name, choices in (("precision", PRECISIONS), ("runtime", RUNTIMES), ("env", ENVIRONMENTS)):
            if getattr(self, name) not in choices:
                faults.append(f"{name} must be one of {', '.join(choices)}, but got {getattr(self, name)!r}")
        if self.cuda_graph and self.device != "cuda":
            faults.append(f"cuda_graph needs a cuda device, but got {self.device!r}")
        if self.runtime == "torch" and self.precision == "int8":
            faults.append(
                "precision int8 needs the runtime openvino or onnxruntime, but got torch. Set one of them, or another "
                "precision"
            )
        if self.runtime != "torch":
            if self.precision.startswith("amp-"):
                faults.append(f"runtime {self.runtime} has no autocast: precision must be fp32, bf16, fp16 or int8")
            for name in TORCH_ONLY:
                if getattr(self, name):
                    faults.append(f"{name} must be false with runtime {self.runtime}, because only torch supports it")
        if faults:
            raise UsageError("\n".join(faults))

    def vary(self, **fields: Any) -> Condition:
        """Returns a copy of the condition with other values.

        A change from torch to another runtime sets the fields in `TORCH_ONLY` to False. A change to torch sets `fused`
        to True. Values in `fields` have priority.

        Raises:
            UsageError: A field has an invalid value.
        """
        runtime = fields.get("runtime", self.runtime)
        implied: dict[str, Any] = {}
        if runtime != "torch":
            implied = dict.fromkeys(TORCH_ONLY, False)
        elif self.runtime != "torch":
            implied = {"fused": True}
        return dataclasses.replace(self, **{**implied, **fields})

    def eager(self) -> Condition:
        """Returns the condition of the reference: eager torch, the same memory layout, and fp32 instead of int8."""
        precision = "fp32" if self.precision == "int8" else self.precision
        return dataclasses.replace(
            self, runtime="torch", precision=precision, compile=False, cuda_graph=False, fused=False
        )

    def shares_target(self, other: Condition) -> bool:
        """Returns True if both conditions are on the same target of a study."""
        return (self.device, self.model) == (other.device, other.model)

    def label(self) -> str:
        """Returns a short name without spaces, for tables and file names, such as `cpu-b32-224px-fp32-fused`.

        The model of the device follows its kind if the condition has one: `cuda-nvidia-l4-b32-224px-fp32-fused`.
        """
        parts = [self.device]
        parts += [slug_of_model(self.model)] * (self.model is not None)
        parts += [self.runtime] * (self.runtime != "torch")
        parts += [f"b{self.batch_size}", f"{self.img_size}px", self.precision]
        parts += ["nhwc"] * self.channels_last + ["fused"] * self.fused + ["compiled"] * self.compile
        parts += ["graph"] * self.cuda_graph + [f"{self.env}env"] * (self.env != "tuned")
        parts += [f"t{self.threads}"] * (self.threads is not None)
        return "-".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain data. `model` is omitted if it is None, as in records of earlier versions."""
        fields = dataclasses.asdict(self)
        if self.model is None:
            del fields["model"]
        return fields


def slug_of_model(model: str | None) -> str:
    """Returns the model of a device as part of a label, such as `nvidia-l4` for `NVIDIA L4`. Empty without a model."""
    return "-".join(re.findall("[a-z0-9]+", (model or "").lower()))


def kind_of_device(name: str) -> str:
    """Returns the kind of a device from its name, for example `cuda` for `cuda:1`.

    Raises:
        UsageError: The name is not valid.
    """
    kind, colon, index = name.partition(":")
    if kind not in DEVICE_KINDS or (colon and not (kind == "cuda" and index.isascii() and index.isdigit())):
        several = ". Only a search uses several devices; name one" if "," in name or name == ALL_CUDA else ""
        raise UsageError(f"device must be cpu, cuda, cuda:N or mps, but got {name!r}{several}")
    return kind


def kind_of_target(target: str) -> str:
    """Returns the kind of the devices of a target, for example `cuda` for `cuda:0,cuda:1`.

    A target is a device, several CUDA devices joined by commas, or `cuda:all` for all CUDA devices of the machine.

    Raises:
        UsageError: The target is not valid.
    """
    names = devices_of(target)
    if len(names) == 1:
        return "cuda" if target == ALL_CUDA else kind_of_device(target)
    if not all(kind_of_device(name) == "cuda" and ":" in name for name in names) or len({*names}) < len(names):
        raise UsageError(
            f"device must name different CUDA devices by number, but got {target!r}. Use for example cuda:0,cuda:1."
        )
    return "cuda"


def devices_of(target: str) -> tuple[str, ...]:
    """Returns the names of the devices of a target, without a check of the names."""
    return tuple(name.strip() for name in target.split(","))


@dataclasses.dataclass(frozen=True, kw_only=True)
class DeviceIdentity:
    """Identity of the device that a measurement comes from, with its driver and torch version."""

    kind: str
    """`cpu`, `cuda` or `mps`."""
    model: str
    """Manufacturer's name of the device. For a CPU, it includes the number of cores."""
    driver: str
    """Version of the driver or the kernel."""
    torch: str
    serial: str
    """UUID of a GPU, or name of the host. It identifies one of several devices of the same model. Recorded only."""
    host: str | None = None
    """CPU model and cores of the host that launches a GPU's work. None for a CPU, because `model` has them, and in
    records of earlier versions."""

    def differences(self, other: DeviceIdentity) -> dict[str, tuple[str, str]]:
        """Returns the fields that differ between two devices, with both values: `{"model": ("A100", "H100")}`.

        Measurements of two devices are comparable only if there are none.

        Compares `host` only if both devices have it. Does not compare `serial`.
        """
        compared = ("kind", "model", "driver", "torch", "host")
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in compared}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1] and None not in pair}
