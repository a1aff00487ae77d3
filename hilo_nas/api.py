"""Python interface: searches, studies and measurements from scripts and notebooks.

The command line calls these functions, so that both store the same. Nothing here prints: progress comes as events
(`hilo_nas.events`), which `on_event` receives and `hilo_nas.show_progress` draws.
"""

from __future__ import annotations

import dataclasses
import html
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.events import Event, ignore_event
from hilo_nas.measurement import Condition, Measurement
from hilo_nas.searching.configuration.config_files import load_config
from hilo_nas.searching.configuration.resolve import condition_options, config_of
from hilo_nas.searching.configuration.search_config import SHORT_NAMES, SearchConfig
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy, open_study
from hilo_nas.study.stored_study import list_studies as list_stored
from hilo_nas.text.figures import figure

if TYPE_CHECKING:
    import pandas as pd

    from hilo_nas.evaluation import Evaluator
    from hilo_nas.export import NetworkSource, Promise, StudySource
    from hilo_nas.searching import Cost

__all__ = [
    "Exported",
    "Measured",
    "Study",
    "estimate_cost",
    "export_files",
    "list_studies",
    "load_study",
    "measure",
    "remeasure",
    "search",
]

ConfigLike = SearchConfig | Mapping[str, Any] | str | Path
"""A configuration, sections of fields, a YAML file, or a study's `manifest.yaml`."""


class Study(StoredStudy):
    """A stored study: its trials, its front and its exports.

    `records` holds the trials, `manifest` what the study is.

    Example:
        >>> study = hilo_nas.load_study("my-gpu")
        >>> study.best(min_images_per_s=900).key
    """

    @property
    def config(self) -> SearchConfig:
        """Settings that the study was made with."""
        return config_of(self.manifest)

    def trials(self, which: Literal["all", "front", "near"] = "all") -> pd.DataFrame:
        """Returns a row per trial, indexed by number, with the columns of `trials.csv` (`study.csv_files.COLUMNS`).

        Args:
            which: `all` of them; those on the `front`, the fastest first; or these and all that are `near`: that cannot
                be told from them.

        Raises:
            UsageError: `which` is none of these.
            RecordError: A record cannot be understood.
        """
        from hilo_nas.report import build_front_frame, build_trials_frame

        if which not in ("all", "front", "near"):
            raise UsageError(f"which must be all, front or near, but got {which!r}")
        if which == "all":
            return build_trials_frame(self.front())
        return build_front_frame(self.front(), ties=which == "near")

    def best(self, *, min_images_per_s: float | None = None, max_latency_ms: float | None = None) -> TrialRecord:
        """Returns the best scored trial that keeps some limits with 95 %; without limits the best scored of all.

        Where no trial keeps the limits so surely, the most probable of those whose values keep them is returned.

        Args:
            min_images_per_s: Lowest speed.
            max_latency_ms: Greatest 95th percentile of a call in milliseconds.

        Raises:
            NotFoundError: The study has no complete trial, or none keeps the limits.
            UsageError: A limit is not above 0.
        """
        from hilo_nas.export import choose_trial

        limits = _limits(min_images_per_s, max_latency_ms)
        return choose_trial(self, limits=limits, at_best=not limits)

    def export(
        self,
        path: str | Path,
        *,
        format: str = "timm",
        trial: int | TrialRecord | None = None,
        knee: bool = False,
        min_images_per_s: float | None = None,
        max_latency_ms: float | None = None,
        weights: str | Path | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        force: bool = False,
    ) -> Exported:
        """Writes the files that a trainer, a runtime or a tool needs for a trial or the whole study.

        The arguments and errors are those of `hilo_nas.export_files`.

        Example:
            >>> study.export("out/", min_images_per_s=900).files
        """
        return export_files(
            self,
            path,
            format=format,
            trial=trial,
            knee=knee,
            min_images_per_s=min_images_per_s,
            max_latency_ms=max_latency_ms,
            weights=weights,
            batch_size=batch_size,
            epochs=epochs,
            force=force,
        )

    def __repr__(self) -> str:
        if not self.exists:
            return f"Study({str(self.path)!r}, empty)"
        measured = sum(map(self.manifest.counts, self.records))
        return (
            f"Study({self.name!r}, {measured} of {self.manifest.trials} trials, {len(self.front().members)} on front)"
        )

    def _repr_html_(self) -> str:
        columns = [
            "images_per_s",
            "value",
            "standard_error",
            "latency_ms_p95",
            "params_m",
            "gmacs",
            "depths",
            "embed_dims",
        ]
        return f"<p>{html.escape(repr(self))}</p>{self.trials('front')[columns].to_html()}"


def load_study(name: str | Path) -> Study:
    """Returns a stored study; its records are read when they are first asked for.

    Args:
        name: Name in the folder of all studies ($HILO_NAS_STUDIES_DIR, else `studies`), or path of the study's folder.

    Raises:
        NotFoundError: There is no such study; lists near names.
        RecordError: There are trials, but no manifest.
    """
    return Study(open_study(name).path)


def list_studies() -> list[Study]:
    """Returns the studies in the folder of all studies, by name.

    Raises:
        StorageError: The folder cannot be read.
    """
    return [Study(study.path) for study in list_stored()]


def search(
    space: str | Path | None = None,
    *,
    study: str | Path | None = None,
    trials: int | None = None,
    until_trials: int | None = None,
    timeout_s: float | None = None,
    seed: int | None = None,
    device: str | None = None,
    batch_size: int | None = None,
    img_size: int | None = None,
    precision: str | None = None,
    runtime: str | None = None,
    min_images_per_s: float | None = None,
    max_latency_ms: float | None = None,
    max_memory_mib: float | None = None,
    data: str | Path | None = None,
    proxy: str | None = None,
    proxy_images: int | None = None,
    proxy_img_size: int | None = None,
    config: ConfigLike | None = None,
    settings: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = ignore_event,
    evaluator: Evaluator | None = None,
) -> Study:
    """Makes or resumes a study, searches, and returns the study.

    Every trial is stored when it ends. After Ctrl-C, a kill or an error, a call with the study's name resumes it, up to
    the number of networks that it was to measure; `trials` asks for more, and `until_trials` may be repeated.

    Args:
        space: A shipped space's name or a YAML file; `litv2_digits` for a new study if left out.
        study: Name of the study, or its folder.
        trials: Networks to measure, on top of those that the study has.
        until_trials: Networks to measure in all.
        timeout_s: Seconds after which no trial begins.
        seed: Seed of the search and of the trainings.
        device: cpu, cuda, cuda:N or mps; the fastest kind that this machine has if left out.
        batch_size: Images per timed call.
        img_size: Side of the timed images in pixels.
        precision: Precision of the timed networks.
        runtime: torch, onnxruntime or openvino.
        min_images_per_s: Lowest speed of networks that are trained.
        max_latency_ms: Greatest raw 95th percentile of a call in milliseconds.
        max_memory_mib: Greatest peak memory of a call in MiB.
        data: Images, as `hilo-nas search --data` takes them.
        proxy: What scores networks; see `hilo-nas config`.
        proxy_images: Training images per network at the full budget.
        proxy_img_size: Side of the training images in pixels.
        config: All settings; what is given beside it comes first.
        settings: Single settings by name, such as `{"timing.compile": True}`; they come before `config`.
        on_event: Receives the events of the search.
        evaluator: Measures and trains; this machine if left out.

    Raises:
        UsageError: A setting, the space or the study's name is not acceptable.
        StudyMismatchError: The stored study was made under other conditions than those asked for.
        StudyLockedError: Another process searches in it.
        HiloNasError: The device, the data or the disk cannot serve.
        KeyboardInterrupt: The search was interrupted; everything finished is kept.

    Example:
        >>> study = hilo_nas.search("litv2_digits", study="first", trials=12, device="cpu")
        >>> study.front()
    """
    given = {
        "study": study,
        "trials": trials,
        "until_trials": until_trials,
        "timeout_s": timeout_s,
        "seed": seed,
        "device": device,
        "batch_size": batch_size,
        "img_size": img_size,
        "precision": precision,
        "runtime": runtime,
        "min_images_per_s": min_images_per_s,
        "max_latency_ms": max_latency_ms,
        "max_memory_mib": max_memory_mib,
        "data": data,
        "proxy": proxy,
        "proxy_images": proxy_images,
        "proxy_img_size": proxy_img_size,
    }
    from hilo_nas.searching import run_search

    named = {"space": space, **{SHORT_NAMES[name]: value for name, value in given.items()}}
    asked = load_config(config, settings or {}, named)
    return Study(run_search(asked, on_event, evaluator=evaluator)[0].path)


def estimate_cost(
    space: str | Path | None = None,
    *,
    config: ConfigLike | None = None,
    settings: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = ignore_event,
    evaluator: Evaluator | None = None,
) -> Cost:
    """Returns what a search would cost, from a few networks that are timed and trained for a moment.

    Makes and changes no study, but fills the image cache.

    Args:
        space: A shipped space's name or a YAML file.
        config: All settings.
        settings: Single settings by name; they come before `config`.
        on_event: Receives the events.
        evaluator: Measures and trains; this machine if left out.

    Raises:
        HiloNasError: As the search itself would.

    Example:
        >>> hilo_nas.estimate_cost("litv2_digits", settings={"search.trials": 40}).total_s
    """
    from hilo_nas.searching import estimate_cost as estimate

    return estimate(load_config(config, settings or {}, {"space": space}), on_event, evaluator=evaluator)


def remeasure(
    study: str | Path | StoredStudy,
    *,
    device: str | None = None,
    into: str | None = None,
    everything: bool = False,
    seconds: float | None = None,
    config: ConfigLike | None = None,
    settings: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = ignore_event,
    evaluator: Evaluator | None = None,
) -> Study:
    """Times a study's front and the networks near it again, and returns the study that holds the new timings.

    Args:
        study: The study.
        device: Another device: all networks are timed on it, as a new study with the same scores.
        into: Name of that study; STUDY-DEVICE if left out.
        everything: Time all networks, not only those near the front.
        seconds: Seconds per network at most.
        config: Settings, of which these are read: `timing.device`, `timing.seconds`, `study.idle_timeout_s`, and
            `study.name`, which is `into`.
        settings: Single settings by name; they come before `config`.
        on_event: Receives the events of the timing.
        evaluator: Measures; this machine if left out.

    Raises:
        NotFoundError: There is no such study.
        UsageError: Its timings are of another study, or the new study's name is taken.
        DeviceError: This machine does not have the device.
        StudyLockedError: A search is running in it.

    Example:
        >>> hilo_nas.remeasure("my-gpu", device="cpu", into="my-cpu").front()
    """
    from hilo_nas.searching import RemeasureRequest, run_remeasure

    asked = load_config(
        config, settings or {}, {"timing.device": device, "timing.seconds": seconds, "study.name": into}
    )
    request = RemeasureRequest(
        study=str(study.path if isinstance(study, StoredStudy) else study),
        device=asked.timing.device,
        into=asked.study.name,
        everything=everything,
        idle_timeout_s=asked.study.idle_timeout_s,
        timing_s=asked.timing.seconds,
    )
    return Study(run_remeasure(request, on_event, evaluator=evaluator).path)


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class Measured:
    """Speeds of networks that were timed in the same rounds."""

    condition: Condition
    measurements: Mapping[str, Measurement]
    """By the network's name."""
    failures: Mapping[str, HiloNasError]
    """Why a network could not be timed, by its name."""

    def to_frame(self) -> pd.DataFrame:
        """Returns a row per network: images/s, ratio to the first with its interval, latency in ms, memory in MiB."""
        from hilo_nas.report import build_cohort_frame

        return build_cohort_frame(self.measurements)

    def __repr__(self) -> str:
        speeds = [f"{name} {figure(own.images_per_s)} images/s" for name, own in self.measurements.items()]
        failed = [f"{name} failed" for name in self.failures]
        return f"Measured({', '.join([*speeds, *failed])} at {self.condition.label()})"

    def _repr_html_(self) -> str:
        return str(self.to_frame().to_html(index=False))


def measure(
    networks: Sequence[str],
    *,
    device: str | None = None,
    batch_size: int | None = None,
    img_size: int | None = None,
    precision: str | None = None,
    runtime: str | None = None,
    seconds: float | None = None,
    num_classes: int = 1000,
    config: ConfigLike | None = None,
    settings: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = ignore_event,
    evaluator: Evaluator | None = None,
) -> Measured:
    """Times networks side by side on this machine, in the same rounds.

    What is left out comes from the study of the first `STUDY:TRIAL`, else it is 32 images of 224 px in fp32.

    Args:
        networks: Each is STUDY:TRIAL, timm:NAME, onnx:FILE, an architecture's .yaml file or a preset; `@SIZE` at its
            end is its own image size in pixels.
        device: cpu, cuda, cuda:N or mps; the fastest kind that this machine has if left out.
        batch_size: Images per timed call.
        img_size: Side of the images in pixels.
        precision: Precision of the networks.
        runtime: torch, onnxruntime or openvino.
        seconds: Seconds per network at most.
        num_classes: Outputs of the classifiers, where no study says it.
        config: Settings, of which those of `timing` and the idle timeout are read.
        settings: Single settings by name, such as `{"timing.threads": 1}`; they come before `config`.
        on_event: Receives the events of the timing.
        evaluator: Measures; this machine if left out.

    Raises:
        UsageError: A network or a setting is not known.
        DeviceError: This machine does not have the device.
        MeasurementError: The reference network does not fit.

    Example:
        >>> hilo_nas.measure(["litv2_small", "timm:resnet50"], batch_size=8).to_frame()
    """
    from hilo_nas.evaluation import evaluator_or_local, measure_named

    given = {
        "timing.device": device,
        "timing.batch_size": batch_size,
        "timing.img_size": img_size,
        "timing.precision": precision,
        "timing.runtime": runtime,
        "timing.seconds": seconds,
    }
    asked = load_config(config, settings or {}, given)
    if num_classes < 1:
        raise UsageError(f"num_classes must be at least 1, but got {num_classes}")
    if not networks or isinstance(networks, str):
        raise UsageError(f"networks must be a list of at least one name, but got {networks!r}")
    with (
        tempfile.TemporaryDirectory() as logs,
        evaluator_or_local(
            evaluator, Path(logs), purpose="hilo-nas measure", idle_timeout_s=asked.study.idle_timeout_s
        ) as evaluator,
    ):
        condition, timing = measure_named(
            networks,
            condition_options(asked),
            evaluator,
            on_event,
            device=asked.timing.device,
            num_classes=num_classes,
            seconds=asked.timing.seconds,
        )
    return Measured(condition=condition, measurements=timing.measurements, failures=timing.failures)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """Files of an export and what it chose."""

    files: tuple[Path, ...]
    source: NetworkSource | StudySource
    promises: tuple[Promise, ...]
    """How surely the chosen trial keeps each limit."""
    notes: tuple[str, ...]
    """What the exporter says of the files."""
    next_step: str
    """What to type next."""


def export_files(
    source: str | Path | StoredStudy,
    path: str | Path,
    *,
    format: str = "timm",
    trial: int | TrialRecord | None = None,
    knee: bool = False,
    min_images_per_s: float | None = None,
    max_latency_ms: float | None = None,
    weights: str | Path | None = None,
    num_classes: int | None = None,
    img_size: int | None = None,
    batch_size: int | None = None,
    epochs: int | None = None,
    force: bool = False,
) -> Exported:
    """Writes the files that a trainer, a runtime or a tool needs for a trial, an architecture or a study.

    Of a study, give exactly one of `trial`, `knee` and limits, or none for a format of whole studies.

    Args:
        source: A study, its name or folder, or an architecture's .yaml file.
        path: Folder to write to; of a format of one file also the file.
        format: Name of an exporter (`hilo_nas.export.EXPORTERS`).
        trial: The trial, or its number.
        knee: Choose the trial at the knee of the front.
        min_images_per_s: Choose the best scored trial of at least this speed.
        max_latency_ms: Choose the best scored trial of at most this 95th percentile of a call in milliseconds.
        weights: A checkpoint of the training form, for formats that read one.
        num_classes: Outputs of the classifier, for an architecture.
        img_size: Side of the images in pixels, for an architecture.
        batch_size: Images per training step, for formats of trainers.
        epochs: Epochs of the full training, for formats of trainers.
        force: Replace files of an earlier export.

    Raises:
        UsageError: An option does not fit the format or the source, or files are there without `force`.
        NotFoundError: There is no such study, trial or file, or no trial keeps the limits.
        StorageError: The folder cannot be written.
        ConversionError: The files do not give what the source is.

    Example:
        >>> hilo_nas.export_files("out/arch.yaml", "deploy/", format="onnx", weights="last.pth.tar").files
    """
    from hilo_nas.export import (
        ExportOptions,
        StudySource,
        check_options,
        export,
        find_exporter,
        load_source,
        source_of_study,
    )

    exporter = find_exporter(format)
    options = {name: value for name, value in (("batch_size", batch_size), ("epochs", epochs)) if value is not None}
    check_options(exporter, [*options, *["weights"] * (weights is not None)])
    checkpoint = None if weights is None else Path(weights)
    limits = _limits(min_images_per_s, max_latency_ms)
    chooses = trial is not None or bool(limits) or knee
    is_file = not isinstance(source, StoredStudy) and str(source).endswith((".yaml", ".yml"))
    if is_file and chooses:
        raise UsageError(f"a trial, the knee and limits choose from a study, but got the file {source}")
    if not is_file and (num_classes is not None or img_size is not None):
        raise UsageError("num_classes and img_size go with an architecture's file; a study has its own")
    promises: list[Promise] = []
    chosen: NetworkSource | StudySource
    if is_file:
        chosen = load_source(Path(str(source)), num_classes=num_classes, img_size=img_size, weights=checkpoint)
    else:
        study = source if isinstance(source, StoredStudy) else load_study(source)
        if exporter.source_type is StudySource:
            if chooses:
                raise UsageError(f"format {format} exports the whole study: leave out the trial, the knee and limits")
            chosen = source_of_study(study)
        else:
            number = trial.number if isinstance(trial, TrialRecord) else trial
            chosen, promises = _choose(study, number, knee, limits, checkpoint)
    files, notes = export(exporter, chosen, Path(path), ExportOptions(**options), force=force)
    return Exported(
        files=tuple(files),
        source=chosen,
        promises=tuple(promises),
        notes=tuple(notes),
        next_step=exporter.next_step(chosen, files),
    )


def _choose(
    study: StoredStudy, number: int | None, at_knee: bool, limits: Mapping[str, float], weights: Path | None
) -> tuple[NetworkSource, list[Promise]]:
    """Returns the source of a study's trial, and how surely it keeps the limits."""
    from hilo_nas.export import choose_trial, promises_of, source_of_trial

    record = choose_trial(study, number=number, limits=limits, at_knee=at_knee)
    promises = promises_of(study.manifest, record, limits)
    return source_of_trial(study.manifest, record, folder=study, weights=weights), promises


def _limits(min_images_per_s: float | None, max_latency_ms: float | None) -> dict[str, float]:
    given = {"images_per_s": min_images_per_s, "latency_ms": max_latency_ms}
    return {name: bound for name, bound in given.items() if bound is not None}
