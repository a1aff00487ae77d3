"""Report of studies as one HTML file that needs no network access.

The file holds plotly.js, the figures of `hilo_nas.report.plots`, and a row per network. Its own script filters, sorts
and draws architectures. All text from studies is set as text, never as HTML, and a content security policy forbids
requests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import html
import json
import re
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

import hilo_nas
from hilo_nas.arch.stages import summarize_stages
from hilo_nas.errors import StorageError, UsageError
from hilo_nas.measurement.fields import to_plain
from hilo_nas.report.plots import plot_front, plot_hypervolume, plot_importances, plot_parallel, plot_timeline
from hilo_nas.report.study_view import NetworkView, StudyView, check_same_metric
from hilo_nas.study.descriptions import describe_outlook
from hilo_nas.study.further_conditions import further_targets
from hilo_nas.study.progress import Progress, describe_conditions, describe_progress
from hilo_nas.study.records import write_atomically
from hilo_nas.study.stored_study import StoredStudy, study_under
from hilo_nas.text.commands import command
from hilo_nas.text.plurals import agree, count_of

__all__ = ["build_report_figures", "check_report_path", "render_report", "write_html_report"]

_ROW_FIELDS = tuple(
    field.name for field in dataclasses.fields(NetworkView) if field.name not in ("arch", "timing_s", "training_s")
)


def render_report(studies: Sequence[StoredStudy]) -> str:
    """Returns the report of one or several studies as an HTML page of about 5 MB, most of it plotly.js.

    Args:
        studies: Studies with the same metric.

    Raises:
        UsageError: The studies have different metrics, or a study has no trial.
        RecordError: A record is invalid.
    """
    return _render(studies)[0]


def _render(studies: Sequence[StoredStudy]) -> tuple[str, dict[str, go.Figure]]:
    studies = [target for study in studies for target in _by_target(study)]
    views = [StudyView.from_study(study, i) for i, study in enumerate(studies)]
    check_same_metric(views)
    for view in views:
        if not view.networks:
            raise UsageError(f"study {view.name} has no trial yet, so there is nothing to report")
    figures, missing = build_report_figures(views)
    content = {
        "studies": [_describe(view, study) for view, study in zip(views, studies, strict=True)],
        "figures": {name: json.loads(figure.to_json()) for name, figure in figures.items()},
        "missing": missing,
    }
    title = f"{', '.join(view.name for view in views)} - hilo-nas report"
    parts = {
        "TITLE": html.escape(title),
        "CSS": _read("report.css"),
        "PLOTLY": get_plotlyjs(),
        "CONTENT": json.dumps(content, separators=(",", ":")).replace("<", "\\u003c"),
        "SCRIPT": _read("report.js"),
        "VERSION": html.escape(hilo_nas.__version__),
    }
    # One pass, so that text of a study with such a mark stays as it is.
    return re.sub("@@([A-Z]+)@@", lambda mark: parts[mark[1]], _read("report.html")), figures


def _by_target(study: StoredStudy) -> list[StoredStudy]:
    """Returns a study, and the same study under the first condition of each further target."""
    if study.is_view:
        return [study]
    return [study, *(study_under(study, condition) for condition in further_targets(study.manifest))]


def write_html_report(
    studies: Sequence[StoredStudy], path: Path, *, png_folder: Path | None = None, force: bool = False
) -> list[Path]:
    """Writes the report of studies, and optionally its figures as PNG files. Returns the paths of the files.

    Args:
        studies: Studies with the same metric.
        path: HTML file to write. Only an earlier report is replaced.
        png_folder: Folder for PNG files, which is created.
        force: True to replace files that are not an earlier report.

    Raises:
        UsageError: As for `render_report`, or a file exists, or matplotlib is not installed.
        StorageError: A file cannot be written.
    """
    path = path.expanduser()
    if not force:
        check_report_path(path)
    page, figures = _render(studies)
    images = {}
    if png_folder is not None:
        from hilo_nas.report.plots.static_figure import render_static

        folder = png_folder.expanduser()
        images = {folder / f"{name}.png": render_static(figure) for name, figure in figures.items()}
        if taken := [str(own) for own in images if own.exists() and not force]:
            raise UsageError(f"{', '.join(taken)} exist already. Choose another folder, or use --force.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot create {folder}: {error.strerror or error}. Choose another folder.") from error
    write_atomically(path, page)
    for file, content in images.items():
        write_atomically(file, content)
    return [path, *images]


def check_report_path(path: Path) -> None:
    """Raises a UsageError if a file exists that is not a report of hilo-nas."""
    path = path.expanduser()
    if not path.exists():
        return
    is_report = False
    with contextlib.suppress(OSError), path.open("rb") as file:
        is_report = b'content="hilo-nas report"' in file.read(2000)
    if not is_report:
        raise UsageError(f"{path} exists and is not a report of hilo-nas. Choose another file, or use --force.")


def build_report_figures(views: Sequence[StudyView]) -> tuple[dict[str, go.Figure], dict[str, str]]:
    """Returns the figures of a report by name, and for each figure that cannot be drawn the reason.

    `front` and `hypervolume` show all studies. `importances`, `parallel` and `timeline` have one figure per study,
    whose name ends with the index of the study.

    Raises:
        UsageError: The studies have different metrics.
    """
    check_same_metric(views)
    builders: dict[str, Callable[[], go.Figure]] = {
        "front": lambda: plot_front(views),
        "hypervolume-trials": lambda: plot_hypervolume(views),
        "hypervolume-hours": lambda: plot_hypervolume(views, over_hours=True),
    }
    for i, view in enumerate(views):
        for name, plot in (("importances", plot_importances), ("parallel", plot_parallel), ("timeline", plot_timeline)):
            builders[f"{name}-{i}"] = functools.partial(plot, view)
    figures, missing = {}, {}
    for name, build in builders.items():
        try:
            figures[name] = build()
        except UsageError as error:
            missing[name] = str(error)
    return figures, missing


def _describe(view: StudyView, study: StoredStudy) -> dict[str, Any]:
    """Returns a study as the page's script reads it."""
    metric, front, progress = view.metric, view.front, Progress.of(study)
    members = len(front.members)
    summary = f"{count_of(members, 'network')} on the front"
    if ties := len(front.ties):
        summary += f", {ties} {agree(ties, 'is', 'are')} tied with it"
    outlook = [] if study.posteriors is None else [describe_outlook(own, metric) for own in study.posteriors.outlook]
    return {
        "name": view.name,
        "summary": f"{summary}; {progress.measured} of {progress.total} networks measured",
        "facts": list({**describe_conditions(view.manifest), **describe_progress(view.manifest, progress)}.items()),
        "versions": [list(item) for item in view.manifest.versions.items()] + [["created", view.manifest.created_at]],
        "sentences": [standing.sentence() for standing in front.standings] + outlook,
        "metric": {
            "label": metric.label,
            "heading": metric.heading,
            "scale": metric.scale,
            "decimals": metric.decimals,
            "isShare": metric.is_share,
        },
        "networks": [_row(network, view) for network in view.networks],
    }


def _row(network: NetworkView, view: StudyView) -> dict[str, Any]:
    row = {name: to_plain(getattr(network, name)) for name in _ROW_FIELDS}
    row = {name: value for name, value in row.items() if value not in (None, "", {})}
    if network.images_per_s is not None:
        row["speed_text"] = network.speed_text
    if network.value is not None:
        row["value_text"] = network.value_text(view.metric)
    if network.arch is not None:
        stages = summarize_stages(
            network.arch, view.manifest.objective.img_size, num_classes=view.manifest.data.num_classes
        )
        row["patch_size"] = network.arch.patch_size
        row["stages"] = [
            {name: value for name, value in dataclasses.asdict(stage).items() if value is not None} for stage in stages
        ]
    if network.place.is_complete:
        row["export"] = command("export", view.address, "--trial", network.number or 0, "-o", f"out-{network.number}/")
    return row


def _read(name: str) -> str:
    return (resources.files("hilo_nas.report") / "page" / name).read_text(encoding="utf-8")
