"""Inference form of LITv2, for timing and deployment: the same outputs as the training form from faster operations."""

from __future__ import annotations

from hilo_nas.models.inference.network import PreparedLITv2
from hilo_nas.models.inference.operator_choice import choose_operators
from hilo_nas.models.inference.prepare import prepare_for_inference

__all__ = ["PreparedLITv2", "choose_operators", "prepare_for_inference"]
