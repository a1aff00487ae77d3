"""Python API: searches, studies and measurements from scripts and notebooks.

The command line calls the same functions, so both store the same data. These functions print nothing. They report
progress as events (`hilo_nas.events`) to `on_event`. Pass `hilo_nas.show_progress` to display them.
"""

from __future__ import annotations

import dataclasses
import html
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.events import Event, SearchPlanned, ignore_event
from hilo_nas.measurement import Condition, Measurement
from hilo_nas.report.drawn_study import DrawnStudy
from hilo_nas.report.live_report import LiveReport
from hilo_nas.searching.configuration.config_files import load_config
from hilo_nas.searching.configuration.resolve import condition_options, config_of
from hilo_nas.searching.configuration.search_config import SHORT_NAMES, SearchConfig
from hilo_nas.searching.opening.repair import Repaired
from hilo_nas.searching.opening.repair import repair_study as repair_folder
from hilo_nas.searching.opening.study_lock import check_unlocked
from hilo_nas.study.further_conditions import find_condition
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.stored_study import StoredStudy, find_study_folder, open_view
from hilo_nas.study.stored_study import list_studies as list_stored
from hilo_nas.study.trial_choice import Promise, choose_trial, promises_of
from hilo_nas.text.figures import figure
from hilo_nas.tracking import TrackedEvents, build_tracker

if TYPE_CHECKING:
    import pandas as pd

    from hilo_nas.evaluation import Evaluator
    from hilo_nas.export import NetworkSource, StudySource
    from hilo_nas.searching import Cost, SearchPlan
    from hilo_nas.study.posteriors import Posteriors

__all__ = [
    "Exported",
    "Measured",
    "Repaired",
    "Study",
    "estimate_cost",
    "export_files",
    "list_studies",
    "load_study",
    "measure",
    "plan_search",
    "remeasure",
    "repair_study",
    "search",
    "write_report",
]

ConfigLike = SearchConfig | Mapping[str, Any] | str | Path
"""A `SearchConfig`, a mapping of its sections, a YAML file, or the `manifest.yaml` of a study."""


class Study(DrawnStudy):
    """A stored study with its trials, its front and its exports.

    `records` holds the trials. `manifest` holds the settings and conditions of the study.

    Examples:
        >>> study = hilo_nas.load_study("my-gpu")
        >>> study.best(min_images_per_s=900).key
    """

    @property
    def config(self) -> SearchConfig:
        """Settings with which the study was created."""
        return config_of(self.manifest)

    def under(self, condition: str) -> Study:
        """Returns the study under one of its further conditions, such as another target, for reading.

        Under its objective, it is the study itself.

        Its front, `best`, frames, plots, reports and exports use the speeds of this condition.

        Args:
            condition: Label of the condition, or the start of a single label, such as `cpu`.

        Raises:
            UsageError: The study has no such condition.

        Examples:
            >>> study.under("cpu").front()
        """
        manifest = StoredStudy(self.path).manifest
        found = find_condition(manifest, condition)
        return Study(self.path, condition=None if found == manifest.objective else found.label())

    def trials(self, which: Literal["all", "front", "near"] = "all") -> pd.DataFrame:
        """Returns a row per trial, indexed by number, with the columns of `trials.csv` (`study.csv_files.COLUMNS`).

        Args:
            which: `all` for all trials; `front` for the trials on the front, fastest first; `near` for the front and
                all trials that do not differ significantly from it.

        Raises:
            UsageError: `which` has another value.
            RecordError: A record is invalid.
        """
        from hilo_nas.report import build_front_frame, build_trials_frame

        if which not in ("all", "front", "near"):
            raise UsageError(f"which must be all, front or near, but got {which!r}")
        if which == "all":
            return build_trials_frame(self.front())
        return build_front_frame(self.front(), ties=which == "near")

    def forecast(self) -> Posteriors | None:
        """Returns posteriors of the values, predicted networks, and the expected gain of further trainings.

        A search stores them at its end. If there are none, or if the records have changed since, they are computed
        again, which takes seconds, and are not stored. None if too few networks are trained.

        Raises:
            UsageError: This is the study under a further condition, whose speeds are not predicted.
            RecordError: A record is invalid.
        """
        from hilo_nas.searching.forecast.study_forecast import forecast_study

        if self.is_view:
            raise UsageError(
                f"a forecast needs the objective of a study, but got {self.title}: only speeds under the objective are "
                f"predicted. Use load_study({self.address!r}).forecast()."
            )
        return self.posteriors or forecast_study(self.records, self.manifest)

    def best(self, *, min_images_per_s: float | None = None, max_latency_ms: float | None = None) -> TrialRecord:
        """Returns the trial with the best score that meets the limits with a probability of at least 95 %.

        If no trial reaches this probability, returns the most probable trial among those whose measured values keep the
        limits. Without limits, returns the trial with the best score.

        Args:
            min_images_per_s: Minimum speed.
            max_latency_ms: Maximum 95th percentile of a call in milliseconds.

        Raises:
            NotFoundError: The study has no complete trial, or no trial meets the limits.
            UsageError: A limit is not above 0.
        """
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
        """Exports a trial or the whole study to the files that a trainer, a runtime or a tool needs.

        Arguments and errors are the same as for `hilo_nas.export_files`.

        Examples:
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
            f"Study({self.title!r}, {measured} of {self.manifest.trials} trials, {len(self.front().members)} on front)"
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
    """Returns a stored study. Its records are read at their first use.

    Args:
        name: Name of the study in the folder of all studies ($HILO_NAS_STUDIES_DIR, by default `studies`), or path of
            the study's folder. `STUDY@CONDITION` is the study under a further condition, as `Study.under` returns it.

    Raises:
        NotFoundError: There is no such study. The message lists similar names.
        UsageError: The study has no such condition.
        RecordError: The folder has trials, but no manifest.
    """
    found = open_view(name)
    study = Study(found.path)
    return study.under(found.manifest.objective.label()) if found.is_view else study


def list_studies() -> list[Study]:
    """Returns the studies in the folder of all studies, sorted by name.

    Raises:
        StorageError: The folder cannot be read.
    """
    return [Study(study.path) for study in list_stored()]


def repair_study(study: str | Path | StoredStudy, *, dry_run: bool = False) -> Repaired:
    """Repairs the damaged files of a study, and returns what was damaged. Nothing is deleted.

    Moves damaged files to the folder `damaged/TIME` of the study. Of a damaged record, keeps the whole timings and
    scores under the same number, and the next search runs its trial again. Restores a damaged manifest from its copy.

    Args:
        study: Name or folder of the study.
        dry_run: True to change nothing.

    Raises:
        NotFoundError: There is no such study.
        StudyLockedError: A search is running in the study.
        StorageError: The folder cannot be written.

    Examples:
        >>> hilo_nas.repair_study("my-gpu").damages
    """
    found = study if isinstance(study, StoredStudy) else find_study_folder(study)
    return repair_folder(StoredStudy(found.path), dry_run=dry_run)


def write_report(
    studies: str | Path | StoredStudy | Sequence[str | Path | StoredStudy],
    path: str | Path,
    *,
    png_folder: str | Path | None = None,
    force: bool = False,
) -> tuple[Path, ...]:
    """Writes a report of studies as one HTML file that needs no network access, and returns the paths of all files.

    The report has the front, all networks with their architectures, hypervolume, importances of the knobs, time and
    conditions.

    Args:
        studies: One or several studies, or their names or folders. All are shown on the same axes.
        path: HTML file to write. An earlier report is replaced.
        png_folder: Folder for the plots as PNG files, which need matplotlib.
        force: True to replace files that are not an earlier report.

    Raises:
        NotFoundError: There is no such study.
        UsageError: The studies have different metrics, one has no trial, or the file exists and is not a report.
        StorageError: A file cannot be written.

    Examples:
        >>> hilo_nas.write_report(["my-gpu", "my-cpu"], "report.html")
    """
    from hilo_nas.report.html_report import write_html_report

    given = [studies] if isinstance(studies, str | Path | StoredStudy) else studies
    opened = [study if isinstance(study, StoredStudy) else open_view(study) for study in given]
    png_folder = None if png_folder is None else Path(png_folder)
    return tuple(write_html_report(opened, Path(path), png_folder=png_folder, force=force))


def search(
    space: str | Path | None = None,
    *,
    study: str | Path | None = None,
    trials: int | None = None,
    until_trials: int | None = None,
    hours: float | None = None,
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
    """Creates or resumes a study, runs the search, and returns the study.

    Each trial is stored when it ends. After Ctrl-C, a kill or an error, call the function again with the name of the
    study to resume it. It then continues to the requested number of networks. `trials` requests additional networks.
    `until_trials` sets the total, so the same call can be repeated.

    Args:
        space: Name of a shipped space, or a YAML file. Defaults to `litv2_digits` for a new study.
        study: Name or folder of the study.
        trials: Number of networks to measure in addition to those of the study.
        until_trials: Total number of networks to measure.
        hours: Time in hours after which no new trial starts. A new study is planned for it, as by `plan_search`.
        seed: Seed of the search and of the trainings.
        device: cpu, cuda, cuda:N or mps, or several equal GPUs, as cuda:0,cuda:1 or cuda:all. Defaults to the fastest
            kind of this machine.
        batch_size: Number of images per timed call.
        img_size: Side of the timed images in pixels.
        precision: Precision of the timed networks.
        runtime: torch, onnxruntime or openvino.
        min_images_per_s: Minimum speed. Slower networks are not trained.
        max_latency_ms: Maximum raw 95th percentile of a call in milliseconds.
        max_memory_mib: Maximum peak memory of a call in MiB.
        data: Images, in a form that `hilo-nas search --data` accepts.
        proxy: Name of the proxy that scores networks. `hilo-nas config` lists the proxies.
        proxy_images: Number of training images per network at the full budget.
        proxy_img_size: Side of the training images in pixels.
        config: All settings. The other arguments have priority over it.
        settings: Single settings by name, such as `{"timing.compile": True}`. They have priority over `config`.
        on_event: Function that receives the events of the search.
        evaluator: Evaluator for timings and trainings. Defaults to one on this machine.

    Raises:
        UsageError: A setting, the space or the study's name is invalid.
        StudyMismatchError: The stored study has other conditions than the requested ones.
        StudyLockedError: Another process is running a search in the study.
        HiloNasError: The device, the data or the disk cannot be used.
        KeyboardInterrupt: The search was interrupted. All finished trials are stored.

    Examples:
        >>> study = hilo_nas.search("litv2_digits", study="first", trials=12, device="cpu")
        >>> study.front()
    """
    given = {
        "study": study,
        "trials": trials,
        "until_trials": until_trials,
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
    named = {"space": space, **{SHORT_NAMES[name]: value for name, value in given.items()}}
    asked = load_config(config, settings or {}, named)
    if asked.study.name is not None:
        check_unlocked(asked.study.name)

    from hilo_nas.searching import run_search  # its imports are slow

    asked = _fit(asked, hours, on_event, evaluator)
    report = None if asked.study.report is None else Path(asked.study.report)
    if report is not None:
        on_event = LiveReport(report, asked.study.name, on_event)
    if asked.study.track is not None:  # receives each event after the report is written
        on_event = TrackedEvents(build_tracker(asked.study.track), asked.study.name, report, on_event)
    return Study(run_search(asked, on_event, evaluator=evaluator)[0].path)


def estimate_cost(
    space: str | Path | None = None,
    *,
    hours: float | None = None,
    config: ConfigLike | None = None,
    settings: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = ignore_event,
    evaluator: Evaluator | None = None,
) -> Cost:
    """Returns the estimated cost of a search, from short timings and trainings of a few networks.

    Does not create or change a study, but fills the image cache.

    Args:
        space: Name of a shipped space, or a YAML file.
        hours: Time in hours, as in `search`.
        config: All settings.
        settings: Single settings by name. They have priority over `config`.
        on_event: Function that receives the events.
        evaluator: Evaluator for timings and trainings. Defaults to one on this machine.

    Raises:
        HiloNasError: For the same reasons as in `search`.

    Examples:
        >>> hilo_nas.estimate_cost("litv2_digits", settings={"search.trials": 40}).total_s
    """
    from hilo_nas.searching import estimate_cost as estimate

    asked = _fit(load_config(config, settings or {}, {"space": space}), hours, on_event, evaluator)
    return estimate(asked, on_event, evaluator=evaluator)


def _fit(
    asked: SearchConfig, hours: float | None, on_event: Callable[[Event], None], evaluator: Evaluator | None
) -> SearchConfig:
    """Returns the configuration for a search of a given time. Emits the plan of a new study."""
    if hours is None:
        return asked
    from hilo_nas.searching import fit_search

    config, plan = fit_search(asked, hours, on_event, evaluator=evaluator)
    if plan is not None:
        plan = _with_ranking(plan)
        on_event(SearchPlanned(trials=plan.cost.trials, total_s=plan.cost.total_s, reasons=plan.reasons))
    return config


def _with_ranking(plan: SearchPlan) -> SearchPlan:
    """Returns a plan with a sentence about how well its proxy ranks, if its proxy trains networks."""
    from hilo_nas.bench.proxy_check.stored_checks import describe_ranking

    if not plan.setup.plan.declaration.has_rungs:
        return plan
    return dataclasses.replace(plan, reasons=(*plan.reasons, describe_ranking(plan)))


def plan_search(
    space: str | Path | None = None,
    *,
    hours: float,
    config: ConfigLike | None = None,
    settings: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = ignore_event,
    evaluator: Evaluator | None = None,
) -> SearchPlan:
    """Returns a proposed configuration for a new search of a given duration, with its estimated cost and its reasons.

    Reads the images, and times and briefly trains a few networks. Proposes the space, the image size and the number of
    the training images, the rungs and the number of trials. Settings that are given are kept.

    Args:
        space: Name of a shipped space, or a YAML file. Proposed from `timing.img_size` if left out.
        hours: Time for the search.
        config: All settings.
        settings: Single settings by name. They have priority over `config`.
        on_event: Function that receives the events.
        evaluator: Evaluator for timings and trainings. Defaults to one on this machine.

    Raises:
        UsageError: The time is too short, the study exists, or a setting is invalid.
        HiloNasError: For the same reasons as in `search`.

    Examples:
        >>> plan = hilo_nas.plan_search(hours=8, settings={"data.source": "cifar10/train.tar", "timing.img_size": 32})
        >>> study = hilo_nas.search(config=plan.config, study="cifar")
    """
    from hilo_nas.searching import plan_search as propose

    asked = load_config(config, settings or {}, {"space": space})
    return _with_ranking(propose(asked, hours, on_event, evaluator=evaluator))


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
    """Repeats the timings of a study's front and the networks near it, and returns the study with the new timings.

    Args:
        study: The study.
        device: Another device. All networks are then timed on it and stored as a new study with the same scores.
        into: Name of the new study. Defaults to STUDY-DEVICE.
        everything: True to time all networks, not only those near the front.
        seconds: Maximum seconds per network.
        config: Settings. Only `timing.device`, `timing.seconds`, `study.idle_timeout_s` and `study.name` (the same as
            `into`) are read.
        settings: Single settings by name. They have priority over `config`.
        on_event: Function that receives the events of the timing.
        evaluator: Evaluator for timings. Defaults to one on this machine.

    Raises:
        NotFoundError: There is no such study.
        UsageError: The study's timings are copies of another study's, or the name of the new study exists already.
        DeviceError: This machine does not have the device.
        StudyLockedError: A search is running in the study.

    Examples:
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
    """Measurements of networks that were timed in the same rounds."""

    condition: Condition
    """Condition of all networks. If they can differ in their runtime, it is that of the reference, in plain torch."""
    measurements: Mapping[str, Measurement]
    """Measurement of each network, by name."""
    failures: Mapping[str, HiloNasError]
    """Error of each network that could not be timed, by name."""
    tried: Mapping[str, Mapping[str, Measurement]] = dataclasses.field(default_factory=dict)
    """With `runtime="best"`, the brief timings of each network by runtime. Empty otherwise."""

    def to_frame(self) -> pd.DataFrame:
        """Returns a row per network: images/s, ratio to the first network, latency in ms, memory in MiB, intervals.

        The column `runtime` names the runtime of each network.
        """
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
    """Times networks on this machine in the same rounds.

    Settings that are left out come from the study of the first `STUDY:TRIAL`. Without a study, they default to a batch
    of 32 images of 224 px in fp32.

    With `runtime="best"`, each network is first timed briefly in torch (in its inference form), ONNX Runtime and
    OpenVINO, if they are installed and support the device and the precision. Then all networks are timed together, each
    in its fastest runtime. Settings such as `timing.compile` apply to torch.

    Args:
        networks: Names of networks: STUDY:TRIAL, timm:NAME, onnx:FILE, openvino:FILE, the .yaml file of an
            architecture, or a preset. Append `@SIZE` to set the image size of a network in pixels.
        device: cpu, cuda, cuda:N or mps. Defaults to the fastest kind of this machine.
        batch_size: Number of images per timed call.
        img_size: Side of the images in pixels.
        precision: Precision of the networks.
        runtime: torch, onnxruntime, openvino or best. By default, `onnx:FILE` or `openvino:FILE` sets ONNX Runtime or
            OpenVINO for all networks. With files of both kinds, each runs in its own runtime.
        seconds: Maximum seconds per network.
        num_classes: Number of outputs of the classifiers, for networks that are not from a study.
        config: Settings. Only those of `timing` and the idle timeout are read.
        settings: Single settings by name, such as `{"timing.threads": 1}`. They have priority over `config`.
        on_event: Function that receives the events of the timing.
        evaluator: Evaluator for timings. Defaults to one on this machine.

    Raises:
        UsageError: A network or a setting is unknown.
        DeviceError: This machine does not have the device.
        MeasurementError: The reference network does not fit into memory.

    Examples:
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
        timings = measure_named(
            networks,
            condition_options(asked),
            evaluator,
            on_event,
            device=asked.timing.device,
            num_classes=num_classes,
            seconds=asked.timing.seconds,
        )
    return Measured(
        condition=timings.condition,
        measurements=timings.measurements,
        failures=timings.failures,
        tried=timings.tried,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """Result of an export."""

    files: tuple[Path, ...]
    source: NetworkSource | StudySource
    """The exported network or study."""
    promises: tuple[Promise, ...]
    """Probability that the chosen trial meets each limit."""
    notes: tuple[str, ...]
    """Remarks of the exporter about the files."""
    next_step: str
    """Command or code that uses the files."""


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
    data: str | None = None,
    force: bool = False,
) -> Exported:
    """Exports a trial, an architecture or a study to the files that a trainer, a runtime or a tool needs.

    For a study, set exactly one of `trial`, `knee` and the limits. Formats for whole studies need none of them.

    Args:
        source: A study, the name or folder of a study, or the .yaml file of an architecture. `STUDY@CONDITION` chooses
            by the speeds of a further condition.
        path: Output folder. For formats with a single file, it can also be the file.
        format: Name of an exporter (`hilo_nas.export.EXPORTERS`).
        trial: The trial or its number.
        knee: True to export the trial at the knee of the front.
        min_images_per_s: Minimum speed. Exports the trial with the best score that keeps it.
        max_latency_ms: Maximum 95th percentile of a call in milliseconds. Exports the trial with the best score that
            keeps it.
        weights: Checkpoint of the training form, for formats that use weights.
        num_classes: Number of outputs of the classifier, if the source is an architecture.
        img_size: Side of the images in pixels, if the source is an architecture.
        batch_size: Number of images per training step, for training formats.
        epochs: Number of epochs of the full training, for training formats.
        data: Source of the images that calibrate a network in INT8, as for a search. Defaults to those of the study.
        force: True to replace the files of an earlier export.

    Raises:
        UsageError: An option does not match the format or the source, or files exist already and `force` is False.
        NotFoundError: There is no such study, trial or file, or no trial meets the limits.
        StorageError: The folder is not writable.
        ConversionError: The outputs of the exported files differ from those of the source.

    Examples:
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
    given = {"batch_size": batch_size, "epochs": epochs, "data": data}
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    check_options(exporter, [*options, *["weights"] * (weights is not None)])
    checkpoint = None if weights is None else Path(weights)
    limits = _limits(min_images_per_s, max_latency_ms)
    chooses = trial is not None or bool(limits) or knee
    is_file = not isinstance(source, StoredStudy) and str(source).endswith((".yaml", ".yml"))
    if is_file and chooses:
        raise UsageError(f"trial, knee and limits need a study as the source, but got the file {source}")
    if not is_file and (num_classes is not None or img_size is not None):
        raise UsageError(
            "num_classes and the size of images need an architecture file as the source. Leave them out for a study, "
            "which has its own values."
        )
    promises: list[Promise] = []
    chosen: NetworkSource | StudySource
    if is_file:
        chosen = load_source(Path(str(source)), num_classes=num_classes, img_size=img_size, weights=checkpoint)
    else:
        study = source if isinstance(source, StoredStudy) else open_view(source)
        if exporter.source_type is StudySource:
            if chooses:
                raise UsageError(f"format {format} exports the whole study. Leave out the trial, the knee and limits.")
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
    """Returns a trial as the input of an exporter, and the probabilities that the trial meets the limits."""
    from hilo_nas.export import source_of_trial

    record = choose_trial(study, number=number, limits=limits, at_knee=at_knee)
    promises = promises_of(study.manifest, record, limits)
    return source_of_trial(study.manifest, record, folder=study, weights=weights), promises


def _limits(min_images_per_s: float | None, max_latency_ms: float | None) -> dict[str, float]:
    given = {"images_per_s": min_images_per_s, "latency_ms": max_latency_ms}
    return {name: bound for name, bound in given.items() if bound is not None}
