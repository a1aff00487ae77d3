"""Settings and networks of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.proxy.kinds import DEFAULT_PROXY, proxy_named
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.opening.study_setup import find_study
from hilo_nas.searching.sweeps.sweep import SweepNetwork
from hilo_nas.space import SearchSpace, limit_text, list_networks
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["check_training", "list_swept", "list_within", "read_sweep"]

_SEARCH_ONLY_SETTINGS = (
    *("proxy.reduction_factor", "proxy.confirm", "proxy.raise_budget", "study.speeds"),
    *("search.sampler", "search.seed", "search.trials", "search.until_trials", "search.timeout_s"),
    *("search.baselines", "search.networks"),
    *("evaluator.kind", "evaluator.address", "evaluator.time_on", "evaluator.train_on"),
)
"""Settings that a sweep ignores, because it does not propose, stop or repeat networks."""


def read_sweep(
    config: SearchConfig, emit: Emit, *, unread: Sequence[str] = ()
) -> tuple[SearchConfig, SearchSpace, StoredStudy]:
    """Returns the configuration, the space and the study of a sweep. Settings that only a search uses are removed.

    Args:
        config: Configuration of the user. Without a space, a stored study keeps its own.
        emit: Receives a warning that names the ignored settings.
        unread: Further settings to ignore.

    Raises:
        UsageError: The name of the study is missing, or the proxy is not a training.
        NotFoundError: The space or the study does not exist.
    """
    if config.study.name is None:
        raise UsageError("study.name is required, but was left out. Use --study NAME.")
    check_training(config)
    nothing = SearchConfig()
    if skipped := [
        name for name in (*_SEARCH_ONLY_SETTINGS, *unread) if config.value(name) not in (nothing.value(name), 0)
    ]:
        emit(Notice(level="warning", text=f"ignored, because only a search uses them: {', '.join(skipped)}"))
    config = config.replace({name: nothing.value(name) for name in (*_SEARCH_ONLY_SETTINGS, *unread)})
    space, study = find_study(config)
    return config, study.manifest.space if space is None else space, study


def check_training(config: SearchConfig) -> None:
    """Raises UsageError if the configuration names a proxy that is not a training."""
    if config.proxy.name is not None and not proxy_named(config.proxy.name).has_rungs:
        raise UsageError(f"proxy.name must be {DEFAULT_PROXY.name} or left out, but got {config.proxy.name!r}")


def list_swept(
    space: SearchSpace, config: SearchConfig, folder: StoredStudy, count: int | None, emit: Emit
) -> list[SweepNetwork]:
    """Returns the networks of a sweep. The order is the same for all sweeps of a space, so one can continue another.

    Args:
        space: Space of the networks.
        config: Gives the image size for the limit on MACs, unless the study exists and gives it.
        folder: The study, which need not exist yet.
        count: Number of networks; None for all.
        emit: Receives a warning if fewer networks are found.

    Raises:
        UsageError: The count is below 1, all networks of a large space are requested, or no network is within the
            limits.
        HiloNasError: The stored study cannot be read.
    """
    if count is not None and count < 1:
        raise UsageError(f"networks must be at least 1, but got {count}")
    stored = StoredStudy(folder.path).manifest.objective.img_size if folder.exists else None
    listed = list_within(space, config.timing.img_size or stored or space.defaults.get("img_size", 224), count)
    if not listed:
        limits = ", ".join(limit_text(name, limit) for name, limit in space.limits.items())
        raise UsageError(f"no network of {space.name} was found within its limits ({limits}). Loosen the limits.")
    if count is not None and len(listed) < count:
        text = f"{count} networks of {space.name} were requested, but only {len(listed)} were found within its limits"
        emit(Notice(level="warning", text=text))
    return [SweepNetwork(subject=Subject(arch=arch), params=params, origin="list") for arch, params in listed]


def list_within(space: SearchSpace, img_size: int, count: int | None = None) -> list[tuple[ArchConfig, dict[str, int]]]:
    """Returns the networks of a space within its limits, counted with the number of classes that the space expects.

    Raises:
        UsageError: All networks of a space with more than 20,000 parameter sets are requested.
    """
    classes = space.defaults.get("num_classes", 1000)
    return list_networks(space, img_size=img_size, num_classes=classes, count=count)
