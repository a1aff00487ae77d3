"""Texts for the outcomes of trials."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hilo_nas.errors import HiloNasError
from hilo_nas.space import limit_text, measured_chances, measured_values
from hilo_nas.study.records import TrialRecord
from hilo_nas.text.figures import probability_text

__all__ = ["error_kind", "explain_violations"]


def explain_violations(over: Collection[str], record: TrialRecord, limits: Mapping[str, float]) -> str:
    """Returns a text that names the violated limits and the values that violate them."""
    values = {
        "params_m": (record.parameters or 0) / 1e6,
        "gmacs": (record.macs or 0) / 1e9,
        **(measured_values(record.measurements) if record.measurements else {}),
    }
    chances = measured_chances(limits, record.measurements) if record.measurements else {}
    return "; ".join(
        f"{limit_text(name, limits[name])} is a limit, but got {values[name]:.4g}{_maybe(chances.get(name, 0.0))}"
        for name in over
    )


def _maybe(chance: float) -> str:
    return f" (keeps it with {probability_text(chance)})" if chance >= 0.01 else ""


def error_kind(error: HiloNasError) -> str:
    """Returns the error class in plain words, such as `worker died` for `WorkerDiedError`."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f" {letter.lower()}" if letter.isupper() else letter for letter in name).strip()
