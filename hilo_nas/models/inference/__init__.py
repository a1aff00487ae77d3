"""LITv2 in its inference form: what is measured and deployed, beside the form that is trained."""

from __future__ import annotations

from hilo_nas.models.inference.prepare import choose_operators, prepare_for_inference

__all__ = ["choose_operators", "prepare_for_inference"]
