"""Texts for the outcomes of trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from hilo_nas.errors import HiloNasError
from hilo_nas.space import limit_text, measured_chances, measured_values
from hilo_nas.study.records import TrialRecord
from hilo_nas.text.figures import probability_text
from hilo_nas.text.plurals import agree

__all__ = ["describe_failures", "describe_retries", "error_kind", "explain_violations"]


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


def describe_failures(errors: Sequence[HiloNasError]) -> str:
    """Returns a text with the common cause of consecutive failures, or the causes with their counts."""
    last = f"the last one with: {error_kind(errors[-1])}: {errors[-1]}".rstrip(".")
    causes = Counter(map(error_kind, errors))
    if len(causes) == 1:
        return f"{len(errors)} consecutive trials failed with the same cause, {last}"
    shares = ", ".join(f"{count} with {cause}" for cause, count in causes.most_common())
    return f"{len(errors)} consecutive trials failed ({shares}), {last}"


def describe_retries(again: int, failed: int) -> str:
    """Returns a sentence about the failed networks that the next search tries again."""
    if not again:
        return "The next search tries none of these networks again, because each failed twice."
    if again == failed:
        return "The next search in this study tries these networks again, once."
    others = agree(failed - again, "other", "others")
    return f"The next search tries {again} of these networks again. The {others} failed twice."
