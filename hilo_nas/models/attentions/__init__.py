"""Published attention layers, as alternatives to HiLo in a stage or in a comparison.

Every layer takes an NHWC feature map of any size and returns one of the same shape. Only Linformer is built for one
size. No layer adds positional information, because the ConvFFN of a LITv2 does.
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
