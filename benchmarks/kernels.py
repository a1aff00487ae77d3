"""Times of the CUDA kernels in one LITv2-S call, from torch's profiler.

python -m benchmarks.kernels [FORM] [BATCH] [PRECISION]     FORM: eager or compiled. Default: eager 64 fp16
"""

from __future__ import annotations

import sys
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile

from hilo_nas.arch.config import PRESETS
from hilo_nas.measurement import Condition
from hilo_nas.timing.prepared_network import prepare

WARM_UP_CALLS, CALLS = 6, 20
GROUPS = {
    "convolution of the patches": ("xmma_fprop",),
    "layer norms": ("layer_norm",),
    "depthwise convolution and GELU": ("_depthwise_gelu",),
    "matrix products": ("nvjet", "gemm", "cutlass"),
    "attention": ("sdpa", "flash", "_window_attention"),
    "pooling": ("pool",),
}
"""Words in kernel names by group. The first matching group counts."""


def group_of(kernel: str) -> str:
    """Returns the group of a kernel. The group `other` has additions, copies and kernels that inductor fused."""
    return next((group for group, words in GROUPS.items() if any(word in kernel for word in words)), "other")


def report(form: str, batch_size: int, precision: str) -> None:
    """Prints the time of a call, of each group of kernels, and of each kernel."""
    condition = Condition(
        device="cuda", batch_size=batch_size, img_size=224, precision=precision, compile=form == "compiled"
    )
    with torch.inference_mode():
        network = prepare({"arch": PRESETS["litv2_small"].to_dict()}, condition, num_classes=1000)
        for _ in range(WARM_UP_CALLS):
            network.call()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        for _ in range(CALLS):
            network.call()
        end.record()
        torch.cuda.synchronize()
        call_ms = start.elapsed_time(end) / CALLS
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiler:
            for _ in range(CALLS):
                network.call()
            torch.cuda.synchronize()
    averages = [item for item in profiler.key_averages() if str(item.device_type).endswith("CUDA")]
    kernels = [kernel for kernel in averages if kernel.self_device_time_total]
    kernels.sort(key=lambda kernel: -kernel.self_device_time_total)
    times_ms = {kernel.key: kernel.self_device_time_total / CALLS / 1e3 for kernel in kernels}
    groups: defaultdict[str, float] = defaultdict(float)
    for name, time_ms in times_ms.items():
        groups[group_of(name)] += time_ms
    total_ms = sum(times_ms.values())
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; {network.form}, {precision}")
    print(f"batch {batch_size}: {call_ms:.3f} ms a call, {total_ms:.3f} ms of it in kernels")
    for group, time_ms in sorted(groups.items(), key=lambda item: -item[1]):
        print(f"{time_ms:8.3f} ms {time_ms / total_ms:6.1%}  {group}")
    for kernel in kernels:
        print(f"{times_ms[kernel.key]:8.3f} ms {kernel.count / CALLS:5.0f} x  {kernel.key[:120]}")


if __name__ == "__main__":
    values = sys.argv[1:] + ["eager", "64", "fp16"][len(sys.argv) - 1 :]
    if len(values) != 3 or values[0] not in ("eager", "compiled") or not values[1].isdigit():
        sys.exit(__doc__)
    report(values[0], int(values[1]), values[2])
