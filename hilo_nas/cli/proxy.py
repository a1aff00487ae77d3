"""`hilo-nas proxy`: whether what a search ranks by can be trusted."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilo_nas.cli.apps import App
from hilo_nas.cli.bench.running import Folder, Shown, deliver
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

app = App(help="What a search ranks by, compared with long trainings.")

_CHECK = """Compare the short training, and proxies that train nothing, with long trainings of the same networks.

Reports how well each ranks (Kendall's tau, over all networks and among those of like speed), next to counting
parameters and to the noise of the long training itself, and which budget to use. It makes a study: the same command
resumes it, and of a finished one makes the report again."""
_EXAMPLES = """Examples:
hilo-nas proxy check litv2_tabular --data cifar10.tar --study my-check -o out/
hilo-nas proxy check litv2_digits --study c --networks 9 --training-free dss"""
_OF_THE_MACHINE = ("data.cache_dir", "study.checkpoint_mib", "study.idle_timeout_s")
"""Settings that say nothing to others who make a check again."""


@app.command("check", help=_CHECK, epilog=verbatim(_EXAMPLES))
@takes_settings("study.name", "data.source", "timing.device", "proxy.images")
def check(
    config: SearchConfig,
    space: Annotated[
        str | None, typer.Argument(metavar="SPACE", help="A shipped space's name, or a YAML file.")
    ] = None,
    networks: Annotated[int, typer.Option(help="Networks of the space that are compared.")] = 40,
    long_images: Annotated[
        int | None,
        typer.Option(help="Training images of a long training; ten times the proxy's if left out.", show_default=False),
    ] = None,
    training_free: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PROXY",
            help=f"A proxy that trains nothing: {', '.join(quick_names())}; repeat it for several. All if left out.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(metavar="STUDY", help="A check of the same networks at the image size of the deployment."),
    ] = None,
    shown: Shown = Format.table,
    folder: Folder = None,
) -> None:
    """Compares them."""
    from hilo_nas.bench.proxy_check.agreement_report import report_proxy_check
    from hilo_nas.bench.proxy_check.proxy_check import ProxyCheck, run_proxy_check
    from hilo_nas.cli.display import build_display
    from hilo_nas.report import can_draw, check_folder
    from hilo_nas.searching.sweeps.listing import read_sweep
    from hilo_nas.study.stored_study import StoredStudy, open_study

    progress = build_console(stderr=True)
    if folder is not None:
        check_folder(folder)
        if not can_draw():
            progress.print(
                "no picture is drawn, because matplotlib is not installed. Use pip install 'hilo-nas[plot]'."
            )
    asked = ProxyCheck(
        networks=networks,
        long_images=long_images,
        training_free=tuple(training_free or quick_names()),
        target=open_study(target) if target else None,
    )
    with build_display(progress) as display:
        given = config if space is None else dataclasses.replace(config, space=space)
        read, found, study = read_sweep(given, display, unread=("study.reuse",))
        checked = run_proxy_check(read, found, study, asked, display)
    report = report_proxy_check(
        checked.agreement,
        study=study.name,
        command=_spell(read, StoredStudy(study.path).manifest, asked),
        settings=checked.settings,
        measurements=checked.measurements,
        failures=checked.failures,
        with_picture=folder is not None and can_draw(),
    )
    deliver([report], shown, folder, progress)


def _spell(config: SearchConfig, manifest: Manifest, check: ProxyCheck) -> str:
    """Returns the command that makes a check again; what it leaves out, the space says.

    Space, device and images are those of the study where the configuration leaves them out. A file or folder of images
    is named without its path: reports are kept, and name no folder of this machine.
    """
    from hilo_nas.searching.configuration.resolve import config_of

    fields = config.to_dict()
    space = fields.pop("space", None) or config_of(manifest).space
    given = {f"{section}.{name}": value for section, own in fields.items() for name, value in own.items()}
    settings: dict[str, Any] = {
        "study.name": manifest.name,
        "data.source": manifest.data.name,
        "timing.device": manifest.objective.device,
        **{name: value for name, value in given.items() if name not in _OF_THE_MACHINE},
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
