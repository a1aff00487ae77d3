"""`hilo-nas proxy`: check how well a search's proxy ranks networks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilo_nas.cli.apps import App
from hilo_nas.cli.bench.options import Folder, Shown
from hilo_nas.cli.console import build_console
from hilo_nas.cli.options import Format
from hilo_nas.cli.settings import takes_settings
from hilo_nas.cli.text import verbatim
from hilo_nas.proxy.kinds import quick_names
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.text.commands import command, setting_words

if TYPE_CHECKING:
    from hilo_nas.bench.proxy_check.proxy_check import ProxyCheck
    from hilo_nas.study.manifest import Manifest

__all__ = ["app"]

app = App(help="Compare the proxies that rank networks with long trainings.")

_CHECK = """Compare short trainings and training-free proxies with long trainings of the same networks.

Reports how well each proxy ranks (Kendall's tau, over all networks and among networks of similar speed) and which
budget to use. Parameter counts and the noise of the long training are shown for comparison. The check is stored as a
study. The same command resumes it, or repeats the report of a finished check."""
_EXAMPLES = """Examples:
hilo-nas proxy check litv2_tabular --data cifar10.tar --study my-check -o out/
hilo-nas proxy check litv2_digits --study c --networks 9 --training-free dss"""
_LOCAL_SETTINGS = ("data.cache_dir", "data.max_cache_gib", "study.checkpoint_mib", "study.idle_timeout_s")
"""Settings of this machine, which a reproduction elsewhere does not need."""


@app.command("check", short_help="Compare cheap proxies with long trainings.", help=_CHECK, epilog=verbatim(_EXAMPLES))
@takes_settings("study.name", "data.source", "timing.device", "proxy.images")
def check(
    config: SearchConfig,
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="Name of a shipped space, or a YAML file.")
    ] = None,
    networks: Annotated[int, typer.Option(help="Number of networks of the space to compare.")] = 40,
    long_images: Annotated[
        int | None,
        typer.Option(help="Images of a long training. Default: ten times the proxy's.", show_default=False),
    ] = None,
    training_free: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROXY",
            help=f"Training-free proxy: {', '.join(quick_names())}. Repeatable. Default: all.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="Check of the same networks at the image size of the deployment."),
    ] = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Runs the check and prints its report."""
    from hilo_nas.bench.proxy_check.agreement_report import report_proxy_check
    from hilo_nas.bench.proxy_check.proxy_check import ProxyCheck, run_proxy_check
    from hilo_nas.cli.bench.running import deliver
    from hilo_nas.cli.display import build_display
    from hilo_nas.report import can_draw, check_folder
    from hilo_nas.searching.sweeps.listing import read_sweep
    from hilo_nas.study.stored_study import StoredStudy, open_study

    progress = build_console(stderr=True)
    if folder is not None:
        check_folder(folder)
        if not can_draw():
            progress.print("no plot is drawn, because matplotlib is not installed. Use pip install 'hilo-nas[plot]'.")
    requested = ProxyCheck(
        networks=networks,
        long_images=long_images,
        training_free=tuple(training_free or quick_names()),
        target=open_study(target) if target else None,
    )
    with build_display(progress) as display:
        given = config if space is None else dataclasses.replace(config, space=space)
        read, found, study = read_sweep(given, display, unread=("study.reuse",))
        findings = run_proxy_check(read, found, study, requested, display)
    report = report_proxy_check(
        findings.agreement,
        study=study.name,
        command=_reproduction_command(read, StoredStudy(study.path).manifest, requested),
        settings=findings.settings,
        measurements=findings.measurements,
        models=findings.models,
        failures=findings.failures,
        with_picture=folder is not None and can_draw(),
    )
    deliver([report], shown, folder, progress)


def _reproduction_command(config: SearchConfig, manifest: Manifest, check: ProxyCheck) -> str:
    """Returns the command that reproduces a check. Settings with the defaults of the space are left out.

    The study provides space, device and images if the configuration does not. Images are named without their path,
    because reports may be published and should not show folders of this machine.
    """
    from hilo_nas.searching.configuration.resolve import config_of

    fields = config.to_dict()
    space = fields.pop("space", None) or config_of(manifest).space
    given = {f"{section}.{name}": value for section, own in fields.items() for name, value in own.items()}
    settings: dict[str, Any] = {
        "study.name": manifest.name,
        "data.source": manifest.data.name,
        "timing.device": manifest.objective.device,
        **{name: value for name, value in given.items() if name not in _LOCAL_SETTINGS},
    }
    settings |= {"study.name": manifest.name, "data.source": manifest.data.name}
    if manifest.data.val_name is not None:
        settings["data.val_source"] = manifest.data.val_name
    words = [*([] if space is None else [space]), *setting_words(settings), "--networks", check.networks]
    if check.long_images is not None:
        words += ["--long-images", check.long_images]
    if check.training_free != quick_names():
        words += [word for name in check.training_free for word in ("--training-free", name)]
    if check.target is not None:
        words += ["--target", check.target.name]
    return command("proxy", "check", *words)
