"""Names of precisions and their torch dtypes."""

from __future__ import annotations

import torch

__all__ = ["DTYPES"]

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Dtype per precision. For autocast precisions (`amp-bf16`, `amp-fp16`), look up the name without the prefix: matrix
products run in that dtype, and weights stay in float32."""
