"""LITv2 in its inference form: what is measured and deployed, beside the form that is trained."""

from __future__ import annotations

from hilo_nas.models.inference.network import PreparedLITv2
from hilo_nas.models.inference.operator_choice import choose_operators
from hilo_nas.models.inference.prepare import prepare_for_inference

__all__ = ["PreparedLITv2", "choose_operators", "prepare_for_inference"]
