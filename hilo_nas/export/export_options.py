"""Options of exporters, as plain values that the help of `hilo-nas export` shows."""

from __future__ import annotations

import dataclasses

__all__ = ["ExportOptions"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of exporters. Each exporter declares which ones it reads."""

    batch_size: int = 1024
    """Images per training step, summed over all devices. Learning rates are scaled to it."""
    epochs: int = 300
    """Number of epochs of the full training."""
    data: str | None = None
    """Source of the images that calibrate a quantized network. None uses those of the study."""
