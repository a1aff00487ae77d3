"""Output of `hilo-nas show`: one network in full."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from hilo_nas.arch.config import PRESETS, ArchConfig, describe_arch, load_arch
from hilo_nas.arch.cost import PARTS, NetworkCost, count_parts
from hilo_nas.arch.stages import StageSummary, summarize_stages
from hilo_nas.cli.console import build_console
from hilo_nas.cli.formats import echo_content
from hilo_nas.cli.options import Format
from hilo_nas.cli.tables import Column, print_fitting
from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.measurement.fields import to_plain
from hilo_nas.measurement.intervals import Z95
from hilo_nas.report.study_view import NetworkView, Place, StudyView
from hilo_nas.study.descriptions import describe_proxy
from hilo_nas.study.stage_times import PartTimes, fault_of_parts, load_stage_times
from hilo_nas.study.stored_study import open_view
from hilo_nas.text.commands import command
from hilo_nas.text.durations import duration
from hilo_nas.text.figures import figure, probability_text
from hilo_nas.text.trial_names import parse_trial

__all__ = ["print_network"]


def print_network(network: str, img_size: int | None, default_img_size: int, output: Format) -> None:
    """Prints a network with its stages and cost, and with its figures if it is a trial of a study.

    Args:
        network: STUDY:TRIAL, file of an architecture, or name of a preset.
        img_size: Side in pixels of the images whose cost is shown. None uses that of the study.
        default_img_size: Side for a network that is not in a study.
        output: table or json.

    Raises:
        NotFoundError: There is no such study or trial.
        UsageError: The name has none of these forms.
    """
    if (trial := parse_trial(network)) is not None:
        study = open_view(trial[0])
        view = StudyView.from_study(study)
        own = next((own for own in view.networks if own.number == trial[1]), None)
        if own is None:
            last = max((own.number or 0 for own in view.networks), default=None)
            known = "it has none yet" if last is None else f"its trials are 0 to {last}"
            raise NotFoundError(f"study {view.name} has no trial {trial[1]}: {known}")
        parts = _Parts.of(own.arch, img_size or view.manifest.objective.img_size, view.manifest.data.num_classes)
        facts = _describe_trial(own, view)
        objective = view.manifest.objective
        if parts is not None and parts.img_size == objective.img_size:
            found = load_stage_times(study.stages_path).networks.get(own.key)
            is_valid = found is not None and found.fits(objective, view.manifest.device)
            parts = dataclasses.replace(parts, times=found if is_valid else None, missing=_why_missing(network, view))
    else:
        arch = _load(network)
        parts = _Parts.of(arch, img_size or default_img_size, 1000)
        facts, own = {"architecture": describe_arch(arch)}, None
    if output is Format.json:
        echo_content({"network": network, **_plain(own), **({} if parts is None else parts.to_dict())}, output)
        return
    console = build_console()
    console.print(f"[bold]{escape(network)}[/]", highlight=False, markup=True)
    for name, text in facts.items():
        console.print(f"  {name + ':':13} {text}", highlight=False, markup=False, soft_wrap=True)
    if parts is not None:
        parts.show(console)


def _load(network: str) -> ArchConfig:
    if network in PRESETS:
        return PRESETS[network]
    if network.endswith((".yaml", ".yml")):
        return load_arch(Path(network))
    names = ", ".join(PRESETS)
    raise UsageError(f"a network must be STUDY:TRIAL, an architecture's .yaml file or {names}, but got {network!r}")


def _describe_trial(own: NetworkView, view: StudyView) -> dict[str, str]:
    """Returns the figures of a trial with their conditions, by name. Unknown ones are left out."""
    metric, manifest = view.metric, view.manifest
    rows: dict[str, str | None] = {
        "architecture": own.title,
        "place": own.place + (f", anchor {own.anchor}" if own.anchor else ""),
        "reason": own.reason,
    }
    if own.images_per_s is not None:
        device = manifest.device
        verdict = "brief timing" if own.is_brief else own.verdict or "no verdict"
        rows["images/s"] = f"{own.speed_text} ({verdict})"
        rows["condition"] = f"{manifest.objective.label()} on {device.model}, torch {device.torch}"
        rows["per call"] = f"p50 {figure(own.latency_ms_p50, 3)} ms, p95 {figure(own.latency_ms_p95, 3)} ms"
        rows["memory"] = None if own.memory_mib is None else f"{figure(own.memory_mib, 3)} MiB per call"
    if own.value is not None:
        seeds = f", mean of {own.seeds} seeds" if own.seeds > 1 else ""
        seen = f", stopped after {own.images_seen:,} images" if own.place == Place.STOPPED else ""
        rows[metric.short] = f"{own.value_text(metric)}{' %' * metric.is_share}{seeds}{seen}"
        if own.float_value is not None and own.drop_error is not None:
            change = metric.difference_text(own.value - own.float_value, Z95 * own.drop_error)
            rows["in float"] = f"{metric.text(own.float_value)}; quantized to INT8: {change}"
        if own.float_layers:
            rows["float layers"] = (
                f"{', '.join(own.float_layers)}. Its timing quantizes them too; time the exported file."
            )
        rows["proxy"] = describe_proxy(manifest, whole=True)
    if (believed := view.front.believed.get(own.key)) is not None:
        text = metric.text(believed.value)
        rows["posterior"] = f"{text}, given the scores of similar networks"
    if own.probability is not None:
        rows["P(front)"] = probability_text(own.probability)
    rows["origin"] = own.origin
    rows["key"] = own.key
    spent = f"{duration(own.timing_s)} timing, {duration(own.training_s)} training"
    rows["time"] = f"{duration(own.seconds)}, of which {spent}"
    rows["ended"] = own.finished_at
    if own.place.is_complete:
        rows["export"] = command("export", view.address, "--trial", own.number or 0, "-o", "out/")
    return {name: text for name, text in rows.items() if text}


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """Stages and cost of an architecture at an image size."""

    arch: ArchConfig
    img_size: int
    stages: tuple[StageSummary, ...]
    costs: dict[str, NetworkCost]
    times: PartTimes | None = None
    """Stored times of the parts."""
    missing: str | None = None
    """Sentence for a trial without stored times."""

    @classmethod
    def of(cls, arch: ArchConfig | None, img_size: int, num_classes: int) -> _Parts | None:
        """Returns the parts. None without an architecture."""
        if arch is None:
            return None
        return cls(
            arch=arch,
            img_size=img_size,
            stages=summarize_stages(arch, img_size, num_classes=num_classes),
            costs=count_parts(arch, img_size, num_classes=num_classes),
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "arch": self.arch.canonical().to_dict(),
            "img_size": self.img_size,
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "parts": {name: dataclasses.asdict(cost) for name, cost in self.costs.items()},
            "times": None if self.times is None else {**to_plain(self.times), "shares": self.times.shares},
            "times_missing": None if self.times is not None else self.missing,
        }

    def show(self, console: Console) -> None:
        """Prints a row per part with its share of the parameters and multiply-adds."""
        params, macs = (sum(getattr(cost, name) for cost in self.costs.values()) for name in ("parameters", "macs"))
        stages = [None, *self.stages, None]
        columns = [
            Column("part", list(PARTS), justify="left"),
            Column("map", ["" if own is None else f"{own.map_side} x {own.map_side}" for own in stages]),
            Column("channels", ["" if own is None else str(own.embed_dim) for own in stages]),
            Column("blocks", ["" if own is None else str(own.depth) for own in stages]),
            Column("mlp", ["" if own is None else figure(own.mlp_ratio, 3) for own in stages], rank=1),
            Column("params", [f"{self.costs[name].parameters / params:.1%}" for name in PARTS]),
            Column("MACs", [f"{self.costs[name].macs / macs:.1%}" for name in PARTS]),
            *self._time_columns(),
            Column("attention", ["" if own is None else _attention(own) for own in stages], justify="left"),
        ]
        print_fitting(columns, console, other_format="json")
        text = (
            f"{figure(params / 1e6)} M parameters, {figure(macs / 1e9)} G multiply-adds at {self.img_size} px, patches "
            f"of {self.arch.patch_size} x {self.arch.patch_size} pixels. Stages 2 to 4 include the token merging."
        )
        console.print(text, style="dim", soft_wrap=True)
        if self.times is not None:
            total = figure(1e3 * sum(self.times.seconds.values()), 3)
            text = (
                f"Time: each part alone on random inputs at {self.times.condition}, {self.times.measured_at}. "
                f"The parts take {total} ms per call in total."
            )
            if self.times.verdict != "steady":
                text += f" The machine was {self.times.verdict}, so the shares are rough."
            console.print(text, style="dim", soft_wrap=True)
        elif self.missing is not None:
            console.print(self.missing, style="dim", soft_wrap=True)

    def _time_columns(self) -> list[Column]:
        if self.times is None:
            return []
        return [Column("time", [f"{self.times.shares[name]:.1%}" for name in PARTS])]


def _why_missing(network: str, view: StudyView) -> str:
    """Returns why a trial has no times of its parts, with the command that measures them."""
    objective = view.manifest.objective
    if (fault := fault_of_parts(objective)) is not None:
        return f"The share of time per stage was not measured, because {fault}."
    words = ("--device", objective.device, "--batch-size", objective.batch_size, "--img-size", objective.img_size)
    threads = () if objective.threads is None else ("--threads", objective.threads)
    bench = command("bench", "stages", "--network", network, "--precision", objective.precision, *words, *threads)
    return f"The share of time per stage was not measured. Measure it under similar conditions with {bench}"


def _attention(stage: StageSummary) -> str:
    if stage.attention == "none":
        return "none"
    if stage.lofi_heads is not None and stage.window_size == 1:
        return f"{stage.attention}, {stage.num_heads} heads over all tokens"
    if stage.lofi_heads is not None:
        heads = f"{stage.hifi_heads} Hi-Fi and {stage.lofi_heads} Lo-Fi heads"
        return f"{stage.attention}, {heads}, window {stage.window_size}"
    parts = [f"{stage.num_heads} heads"] * (stage.num_heads is not None)
    parts += [f"window {stage.window_size}"] * (stage.window_size is not None)
    return ", ".join([stage.attention, *parts])


def _plain(own: NetworkView | None) -> dict[str, Any]:
    """Returns the figures of a trial as plain data, without its architecture."""
    if own is None:
        return {}
    return {field.name: getattr(own, field.name) for field in dataclasses.fields(own) if field.name != "arch"}
