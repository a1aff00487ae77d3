"""The forms that a network may run in, which of them is best, and how networks stand to each other in theirs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.arch.cost import NetworkCost
from hilo_nas.bench.backbones.known_backbones import BASE, PUBLISHED_SPEEDS, Peer
from hilo_nas.bench.cohort_timing import advise, ratio_fields, speed_fields
from hilo_nas.errors import HiloNasError
from hilo_nas.measurement import Condition, Measurement

__all__ = ["FORMS", "PLAIN", "BackbonesFindings", "Final", "Heat", "choose_form", "name_form"]

FORMS = ((False, False), (False, True), (True, False), (True, True))
"""Forms of a network before compilation, the simplest first: whether it is fused, whether it runs channels-last."""
PLAIN = "plain"
_WORTH = 0.015
"""Share of its speed by which a form must be faster than a simpler one: what a timing's interval is."""
_NOTHING_FUSED = " fused"
"""How `hilo_nas.timing.fuse` names a network in which it found nothing to fold or to re-parameterise."""
_PAPERS_RIVAL = "resnet50"

Final = Mapping[str, Mapping[str, Measurement]]
"""Networks that shared their rounds: by name, then by form."""


def name_form(condition: Condition) -> str:
    """Returns the name of the form that a network has under a condition."""
    parts = ["fused"] * condition.fused + ["channels_last"] * condition.channels_last + ["compiled"] * condition.compile
    return " ".join(parts) or PLAIN


def choose_form(forms: Sequence[Measurement]) -> Measurement:
    """Returns the first form that is as fast as the fastest, but for what a timing cannot tell apart.

    Forms that found nothing to fuse are the same network as without, so they are left aside.
    """
    different = [form for form in forms if not form.form.endswith(_NOTHING_FUSED)] or forms
    fastest = max(form.images_per_s for form in different)
    return next(form for form in different if form.images_per_s >= fastest * (1 - _WORTH))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Heat:
    """The forms of one network, tried side by side."""

    peer: Peer
    forms: Mapping[str, Measurement]
    """By the form's name, the simplest first."""
    failures: Mapping[str, HiloNasError]
    """By the form's name, why it could not be timed."""
    cost: NetworkCost | None
    """None where it could not be counted."""

    @property
    def best(self) -> Condition | None:
        """The condition of the form to take; None where none ran."""
        return choose_form(list(self.forms.values())).condition if self.forms else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackbonesFindings:
    """The heats, and the final cohorts of plain and best forms."""

    heats: Sequence[Heat]
    finals: Sequence[Final]
    failures: Mapping[str, HiloNasError]
    """By network and form, why it could not be timed in the end."""

    @property
    def measurements(self) -> list[Measurement]:
        """All of the final cohorts."""
        return [measurement for final in self.finals for forms in final.values() for measurement in forms.values()]

    def list_failures(self) -> dict[str, str]:
        """Returns, by network and form, why it could not be timed."""
        tried = {f"{heat.peer.name} {form}": error for heat in self.heats for form, error in heat.failures.items()}
        return {name: str(error) for name, error in (tried | dict(self.failures)).items()}

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each network: its best and its plain form, each beside LITv2-S in the same."""
        return [self._row(heat) for heat in self.heats]

    def list_forms(self) -> list[dict[str, Any]]:
        """Returns a row for each form that was tried."""
        names = ("images_per_s", "images_per_s_low", "images_per_s_high", "memory_mib", "verdict")
        return [
            {
                "network": heat.peer.name,
                "form": form,
                **({name: getattr(heat.forms[form], name) for name in names} if form in heat.forms else {}),
                "implementation": heat.forms[form].form if form in heat.forms else None,
                "is_best": heat.best is not None and name_form(heat.best) == form,
                "failure": str(heat.failures[form]) if form in heat.failures else None,
            }
            for heat in self.heats
            for form in (*heat.forms, *heat.failures)
        ]

    def _row(self, heat: Heat) -> dict[str, Any]:
        name = heat.peer.name
        group = next((i for i, final in enumerate(self.finals) if name in final), None)
        row: dict[str, Any] = {
            "network": name,
            "form": None,
            "group": None if group is None else group + 1,
            "gmacs": heat.cost.macs / 1e9 if heat.cost else None,
            "params_m": heat.cost.parameters / 1e6 if heat.cost else None,
            "published_top1": heat.peer.top1,
            "published_top1_img_size": heat.peer.top1_img_size,
            "published_weights": heat.peer.weights,
        }
        plain, best = (None, None) if group is None else self._plain_and_best(heat, self.finals[group])
        if best is None:
            return {**row, "verdict": "failed", "failure": next(iter(self._reasons(name)), None)}
        assert group is not None
        base_plain, base_best = self._base(self.finals[group])
        return {
            **row,
            "form": name_form(best.condition),
            **speed_fields(best, "images_per_s"),
            **ratio_fields(best, base_best, "ratio"),
            **speed_fields(plain, "plain_images_per_s"),
            **ratio_fields(plain, base_plain, "plain_ratio"),
            **ratio_fields(best, plain, "gain"),
            "latency_ms_p50": best.latency_ms_p50,
            "memory_mib": best.memory_mib,
            "plain_memory_mib": None if plain is None else plain.memory_mib,
            "implementation": best.form,
            "rounds": len(best.call_seconds),
            "verdict": best.verdict,
            "failure": "; ".join(self._reasons(name)) or None,
        }

    def _plain_and_best(self, heat: Heat, final: Final) -> tuple[Measurement | None, Measurement | None]:
        """The second is the plain form where the one that won the heat proves no faster in the end, or fails."""
        forms = final.get(heat.peer.name, {})
        return forms.get(PLAIN), choose_form(list(forms.values())) if forms else None

    def _base(self, final: Final) -> tuple[Measurement | None, Measurement | None]:
        base = next((heat for heat in self.heats if heat.peer.name == BASE), None)
        return (None, None) if base is None else self._plain_and_best(base, final)

    def _reasons(self, name: str) -> list[str]:
        return [f"{form}: {why}" for form, why in self.list_failures().items() if form.startswith(f"{name} ")]

    def list_headlines(self) -> list[str]:
        """Returns LITv2-S over ResNet-50 as published, and here in each form, where they were timed side by side."""
        published = ", ".join(f"{a / b:.2f} ({gpu})" for gpu, (a, b) in PUBLISHED_SPEEDS.items())
        said = []
        rival = next((heat for heat in self.heats if heat.peer.name == _PAPERS_RIVAL), None)
        for final in self.finals:
            if rival is None or _PAPERS_RIVAL not in final:
                continue
            own, other = self._base(final), self._plain_and_best(rival, final)
            for form, a, b in zip((PLAIN, "best"), own, other, strict=True):
                if a is not None and b is not None:
                    found = ratio_fields(a, b, "ratio")
                    said.append(f"{found['ratio']:.2f} [{found['ratio_low']:.2f}, {found['ratio_high']:.2f}] {form}")
        return [f"LITv2-S over ResNet-50: {', '.join(said)} here; published {published}"] if said else []

    def check_groups(self) -> str | None:
        """Returns how LITv2-S came out in each cohort, in words; None where there is one cohort."""
        speeds = [base.images_per_s for final in self.finals if (base := self._base(final)[1]) is not None]
        if len(speeds) < 2:
            return None
        return "LITv2-S ran in every cohort: " + ", ".join(f"{speed:.4g}" for speed in speeds) + " images/s"

    def advise(self) -> list[str]:
        """Returns what to do about the machine, if it was not steady."""
        return advise(self.measurements)
