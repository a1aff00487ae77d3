"""Forms in which a network can run, the choice of the best form, and the findings of the backbone benchmark.

A form is a variation of the plain condition (eager torch, NCHW): fusion, memory layout and compilation in torch, such
as `fused channels_last`, or another runtime, such as `openvino`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from hilo_nas.arch.cost import NetworkCost
from hilo_nas.bench.backbones.known_backbones import BASE, PUBLISHED_SPEEDS, Backbone
from hilo_nas.bench.cohort_timing import advise, ratio_fields, speed_fields
from hilo_nas.errors import HiloNasError
from hilo_nas.evaluation import Runtimes, choose_fastest
from hilo_nas.measurement import Condition, Measurement

__all__ = ["PLAIN", "BackbonesFindings", "Cohort", "NetworkForms", "choose_form", "list_forms", "name_form"]

PLAIN = "plain"
_EAGER: tuple[Mapping[str, bool], ...] = (
    {},
    {"channels_last": True},
    {"fused": True},
    {"fused": True, "channels_last": True},
)
"""Fields of each form in torch without compilation, the simplest form first."""
_NOTHING_FUSED = " fused"
"""Ending of the form's name from `hilo_nas.timing.fuse` if there was nothing to fold or re-parameterize."""
_RESNET = "resnet50"

Cohort = Mapping[str, Mapping[str, Measurement]]
"""Measurements of networks that shared their rounds, by network name and form."""


def list_forms(
    plain: Condition, *, has_own_layout: bool = False, runtimes: Sequence[str] = (), precision: str = "fp32"
) -> list[Condition]:
    """Returns the conditions of a network's forms without compilation, the simplest first.

    Args:
        plain: Condition of the plain form.
        has_own_layout: True if the fused network chooses its own memory layout, so that the layout of the images makes
            no difference.
        runtimes: Runtimes besides torch.
        precision: Precision in these runtimes.
    """
    eager = [plain.vary(**fields) for fields in _EAGER]
    if has_own_layout:
        eager = [form for form in eager if not (form.fused and form.channels_last)]
    return [*eager, *(plain.vary(runtime=runtime, precision=precision) for runtime in runtimes)]


def name_form(condition: Condition) -> str:
    """Returns the name of the form that a condition describes, for example `fused channels_last` or `openvino`."""
    if condition.runtime != "torch":
        return condition.runtime + " int8" * (condition.precision == "int8")
    parts = ["fused"] * condition.fused + ["channels_last"] * condition.channels_last + ["compiled"] * condition.compile
    return " ".join(parts) or PLAIN


def choose_form(forms: Sequence[Measurement]) -> Measurement:
    """Returns the first form whose speed is within 1.5 % of the fastest.

    Skips fused forms in which there was nothing to fuse, because they equal the unfused network.
    """
    return choose_fastest([form for form in forms if not form.form.endswith(_NOTHING_FUSED)] or forms)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkForms:
    """Preliminary timing of all forms of one network, in the same rounds."""

    backbone: Backbone
    forms: Mapping[str, Measurement]
    """Measurements by the form's name, the simplest form first."""
    failures: Mapping[str, HiloNasError]
    """Errors of forms that failed, by the form's name."""
    cost: NetworkCost | None
    """Parameters and multiply-adds of the network. None if counting failed."""

    @property
    def best(self) -> Condition | None:
        """Condition of the best form; None if no form ran."""
        return choose_form(list(self.forms.values())).condition if self.forms else None

    @property
    def best_in_torch(self) -> Condition | None:
        """Condition of the best form in torch; None if no form ran in torch."""
        forms = [form for form in self.forms.values() if form.condition.runtime == "torch"]
        return choose_form(forms).condition if forms else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackbonesFindings:
    """Findings of the backbone benchmark: preliminary timings, and final cohorts of plain and best forms."""

    networks: Sequence[NetworkForms]
    cohorts: Sequence[Cohort]
    failures: Mapping[str, HiloNasError]
    """Errors in the final timing, by network and form."""
    runtimes: Runtimes = dataclasses.field(default_factory=Runtimes)
    """Runtimes besides torch that were tried and skipped. Empty without `BackbonesPlan.best`."""

    @property
    def measurements(self) -> list[Measurement]:
        """Measurements of the final cohorts."""
        return [measurement for cohort in self.cohorts for forms in cohort.values() for measurement in forms.values()]

    def list_failures(self) -> dict[str, str]:
        """Returns the reasons of all failures, by network and form."""
        preliminary = {
            f"{network.backbone.name} {form}": error
            for network in self.networks
            for form, error in network.failures.items()
        }
        return {name: str(error) for name, error in (preliminary | dict(self.failures)).items()}

    def list_rows(self) -> list[dict[str, Any]]:
        """Returns a row for each network: its best and plain forms, each with the ratio to LITv2-S in that form."""
        return [self._row(network) for network in self.networks]

    def list_forms(self) -> list[dict[str, Any]]:
        """Returns a row for each form that was tried."""
        names = ("images_per_s", "images_per_s_low", "images_per_s_high", "memory_mib", "verdict")
        return [
            {
                "network": network.backbone.name,
                "form": form,
                **({name: getattr(network.forms[form], name) for name in names} if form in network.forms else {}),
                "implementation": network.forms[form].form if form in network.forms else None,
                "is_best": network.best is not None and name_form(network.best) == form,
                "failure": str(network.failures[form]) if form in network.failures else None,
            }
            for network in self.networks
            for form in (*network.forms, *network.failures)
        ]

    def _row(self, network: NetworkForms) -> dict[str, Any]:
        name = network.backbone.name
        group = next((i for i, cohort in enumerate(self.cohorts) if name in cohort), None)
        row: dict[str, Any] = {
            "network": name,
            "form": None,
            "group": None if group is None else group + 1,
            "gmacs": network.cost.macs / 1e9 if network.cost else None,
            "params_m": network.cost.parameters / 1e6 if network.cost else None,
            "published_top1": network.backbone.top1,
            "published_top1_img_size": network.backbone.top1_img_size,
            "published_weights": network.backbone.weights,
        }
        plain, best = (None, None) if group is None else self._plain_and_best(network, self.cohorts[group])
        if best is None:
            return {**row, "verdict": "failed", "failure": next(iter(self._reasons(name)), None)}
        assert group is not None
        base_plain, base_best = self._base(self.cohorts[group])
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

    def _plain_and_best(self, network: NetworkForms, cohort: Cohort) -> tuple[Measurement | None, Measurement | None]:
        """Returns the plain and best forms in the final timing.

        The best form is the plain one if the form from the preliminary timing fails or is not faster.
        """
        forms = cohort.get(network.backbone.name, {})
        return forms.get(PLAIN), choose_form(list(forms.values())) if forms else None

    def _base(self, cohort: Cohort) -> tuple[Measurement | None, Measurement | None]:
        base = next((network for network in self.networks if network.backbone.name == BASE), None)
        return (None, None) if base is None else self._plain_and_best(base, cohort)

    def _reasons(self, name: str) -> list[str]:
        return [f"{form}: {why}" for form, why in self.list_failures().items() if form.startswith(f"{name} ")]

    def list_headlines(self) -> list[str]:
        """Returns the ratio of LITv2-S to ResNet-50, published and measured in each form.

        Empty if the two were not timed in the same rounds.
        """
        published = ", ".join(f"{a / b:.2f} ({gpu})" for gpu, (a, b) in PUBLISHED_SPEEDS.items())
        ratios = []
        resnet = next((network for network in self.networks if network.backbone.name == _RESNET), None)
        for cohort in self.cohorts:
            if resnet is None or _RESNET not in cohort:
                continue
            own, other = self._base(cohort), self._plain_and_best(resnet, cohort)
            for form, a, b in zip((PLAIN, "best"), own, other, strict=True):
                if a is not None and b is not None:
                    found = ratio_fields(a, b, "ratio")
                    ratios.append(f"{found['ratio']:.2f} [{found['ratio_low']:.2f}, {found['ratio_high']:.2f}] {form}")
        return [f"LITv2-S over ResNet-50: {', '.join(ratios)} here; published {published}"] if ratios else []

    def check_groups(self) -> str | None:
        """Returns a sentence that compares the speeds of LITv2-S in all cohorts; None if there is only one cohort."""
        speeds = [base.images_per_s for cohort in self.cohorts if (base := self._base(cohort)[1]) is not None]
        if len(speeds) < 2:
            return None
        return "LITv2-S ran in every cohort: " + ", ".join(f"{speed:.4g}" for speed in speeds) + " images/s"

    def advise(self) -> list[str]:
        """Returns advice about the machine if timings were not steady."""
        return advise(self.measurements)
