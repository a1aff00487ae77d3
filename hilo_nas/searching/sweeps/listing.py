"""Settings and networks of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from hilo_nas.arch.config import ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.events import Emit, Notice
from hilo_nas.proxy.kinds import DEFAULT_PROXY, proxy_named
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.opening.study_setup import find_study
from hilo_nas.searching.sweeps.sweep import Swept
from hilo_nas.space import SearchSpace, limit_text, list_networks
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy

__all__ = ["check_training", "list_swept", "list_within", "read_sweep"]

_OF_A_SEARCH = (
    *("proxy.reduction_factor", "proxy.confirm", "proxy.raise_budget", "study.speeds"),
    *("search.sampler", "search.seed", "search.trials", "search.until_trials", "search.timeout_s"),
    *("search.baselines", "search.networks"),
)
"""Settings that mean nothing to a list of networks, of which none is proposed, stopped or tried twice."""


def read_sweep(
    config: SearchConfig, emit: Emit, *, unread: Sequence[str] = ()
) -> tuple[SearchConfig, SearchSpace, StoredStudy]:
    """Returns the configuration of a table or a check, without the settings of a search alone, its space and its study.

    Args:
        config: What is asked for. Without a space, a stored study keeps its own.
        emit: Receives a warning that names the settings that are not read.
        unread: Further settings that are not read.

    Raises:
        UsageError: The study has no name, or another proxy than the training is asked for.
        NotFoundError: There is no such space or study.
    """
    if config.study.name is None:
        raise UsageError("study.name must be given, but was left out. Use --study NAME.")
    check_training(config)
    nothing = SearchConfig()
    if skipped := [name for name in (*_OF_A_SEARCH, *unread) if config.value(name) not in (nothing.value(name), 0)]:
        emit(Notice(level="warning", text=f"not read here, because they are of a search alone: {', '.join(skipped)}"))
    config = config.replace({name: nothing.value(name) for name in (*_OF_A_SEARCH, *unread)})
    space, study = find_study(config)
    return config, study.manifest.space if space is None else space, study


def check_training(config: SearchConfig) -> None:
    """Raises UsageError where a configuration asks for another proxy than the short training."""
    if config.proxy.name is not None and not proxy_named(config.proxy.name).has_rungs:
        raise UsageError(f"proxy.name must be {DEFAULT_PROXY.name} or left out, but got {config.proxy.name!r}")


def list_swept(
    space: SearchSpace, config: SearchConfig, folder: StoredStudy, count: int | None, emit: Emit
) -> list[Swept]:
    """Returns the networks of a table or a check, in the order that both share, so that one goes on with the other.

    Args:
        space: What they are of.
        config: Says the image size, at which MACs are limited, unless the folder's study does.
        folder: The study's.
        count: How many; None for all.
        emit: Told where there are fewer.

    Raises:
        UsageError: All networks of a large space are asked for, or less than one, or none is within the limits.
        HiloNasError: The stored study cannot be read.
    """
    if count is not None and count < 1:
        raise UsageError(f"networks must be at least 1, but got {count}")
    stored = StoredStudy(folder.path).manifest.objective.img_size if folder.exists else None
    listed = list_within(space, config.timing.img_size or stored or space.defaults.get("img_size", 224), count)
    if not listed:
        limits = ", ".join(limit_text(name, limit) for name, limit in space.limits.items())
        raise UsageError(f"no network of {space.name} was found within its limits ({limits}). Use wider ones.")
    if count is not None and len(listed) < count:
        text = f"{count} networks of {space.name} were asked for, but only {len(listed)} were found within its limits"
        emit(Notice(level="warning", text=text))
    return [Swept(subject=Subject(arch=arch), params=params, origin="list") for arch, params in listed]


def list_within(space: SearchSpace, img_size: int, count: int | None = None) -> list[tuple[ArchConfig, dict[str, int]]]:
    """Returns a space's networks within its limits, counted with the classifier that the space expects.

    Raises:
        UsageError: All networks of a space of more than 20,000 settings are asked for.
    """
    classes = space.defaults.get("num_classes", 1000)
    return list_networks(space, img_size=img_size, num_classes=classes, count=count)
