"""Time networks side by side on this machine and keep the figures as CSV.

    python examples/measure_networks.py [FILE.csv]

Each row has the images/s with a 95 % interval and the ratio to the first network, from rounds that all of them shared.
"""

from __future__ import annotations

import sys

import hilo_nas

NETWORKS = ["timm:resnet18", "litv2_small", "timm:deit_tiny_patch16_224"]


def main(path: str | None) -> None:
    """Runs the example."""
    measured = hilo_nas.measure(NETWORKS, device="cpu", batch_size=1, seconds=1.0, settings={"timing.threads": 1})
    frame = measured.to_frame()
    print(
        frame[["name", "images_per_s", "images_per_s_low", "images_per_s_high", "ratio", "latency_ms_p95", "verdict"]]
    )
    if path is not None:
        frame.to_csv(path, index=False)
    for name, error in measured.failures.items():
        print(f"{name} could not be timed: {error}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
