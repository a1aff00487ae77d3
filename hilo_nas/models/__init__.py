"""Networks as torch modules.

Importing this package registers LITv2 with timm. For timm's train.py, set `device_modules: [hilo_nas.models]`.
"""

from __future__ import annotations

from hilo_nas.models.hilo import HiLo
from hilo_nas.models.inference import prepare_for_inference
from hilo_nas.models.litv2 import LITv2, build_model
from hilo_nas.models.loading import create_model, load_checkpoint, load_model
from hilo_nas.models.subjects import build_subject, form_of, img_size_of, input_shape_of
from hilo_nas.models.weights import checkpoint_filter_fn, official_state_dict, randomize_constant_weights

__all__ = [
    "HiLo",
    "LITv2",
    "build_model",
    "build_subject",
    "checkpoint_filter_fn",
    "create_model",
    "form_of",
    "img_size_of",
    "input_shape_of",
    "load_checkpoint",
    "load_model",
    "official_state_dict",
    "prepare_for_inference",
    "randomize_constant_weights",
]
