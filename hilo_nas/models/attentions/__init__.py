"""Attention layers of the field, each from its paper, to stand beside HiLo in a stage or in a comparison.

All take and give NHWC maps of any size (Linformer: of one size). None adds a position: in a LITv2 the ConvFFN does.
"""

from __future__ import annotations

from hilo_nas.models.attentions.clustered import ClusteredAttention
from hilo_nas.models.attentions.hierarchical import HMSA, CarrierAttention
from hilo_nas.models.attentions.linear import ELFATT, XCA
from hilo_nas.models.attentions.reduced import SRA, Linformer, PooledAttention
from hilo_nas.models.attentions.self_attention import MSA
from hilo_nas.models.attentions.windowed import ShiftedWindowAttention, WindowAttention

__all__ = [
    "ELFATT",
    "HMSA",
    "MSA",
    "SRA",
    "XCA",
    "CarrierAttention",
    "ClusteredAttention",
    "Linformer",
    "PooledAttention",
    "ShiftedWindowAttention",
    "WindowAttention",
]
