"""Shell completion of studies, spaces, settings and export formats.

The shell calls these functions at each press of the Tab key. Each function therefore imports only what it needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from hilo_nas.errors import HiloNasError

__all__ = ["complete_export_format", "complete_setting", "complete_space", "complete_study"]


def complete_study(incomplete: str) -> list[str]:
    """Returns the names of the stored studies that start with `incomplete`."""
    from hilo_nas.study.stored_study import list_studies

    try:
        return _filter_prefix(incomplete, [study.path.name for study in list_studies()])
    except HiloNasError:
        return []  # completion cannot show an error


def complete_space(incomplete: str) -> list[str]:
    """Returns the names of the shipped spaces that start with `incomplete`."""
    from hilo_nas.space import list_shipped

    return _filter_prefix(incomplete, list_shipped())


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Returns the settings that start with `incomplete`, as pairs of `section.field=` and a description."""
    from hilo_nas.searching.configuration.search_config import SearchConfig

    config = SearchConfig()
    settings = [
        (f"{section.name}.{field.name}=", str(field.metadata["comment"]))
        for section in dataclasses.fields(config)
        if dataclasses.is_dataclass(own := getattr(config, section.name))
        for field in dataclasses.fields(own)
    ]
    return [(name, comment) for name, comment in settings if name.startswith(incomplete)]


def complete_export_format(incomplete: str) -> list[str]:
    """Returns the formats of `hilo-nas export` that start with `incomplete`."""
    from hilo_nas.export import EXPORTERS

    return _filter_prefix(incomplete, EXPORTERS)


def _filter_prefix(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
