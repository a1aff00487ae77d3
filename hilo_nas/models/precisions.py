"""Precisions by name, as torch's dtypes."""

from __future__ import annotations

import torch

__all__ = ["DTYPES"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What weights are stored in; under autocast (`amp-bf16`, `amp-fp16`) that is float32, and products run in what stands
behind the prefix."""
