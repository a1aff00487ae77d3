"""Values that a shell completes: studies, spaces, settings and export formats.

A shell runs these at a keystroke, so each imports only what it reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from hilo_nas.errors import HiloNasError

__all__ = ["complete_export_format", "complete_setting", "complete_space", "complete_study"]


def complete_study(incomplete: str) -> list[str]:
    """Returns the names of the stored studies that begin so."""
    from hilo_nas.study.stored_study import list_studies

    try:
        return _beginning(incomplete, [study.path.name for study in list_studies()])
    except HiloNasError:
        return []  # a shell has no place for a reason


def complete_space(incomplete: str) -> list[str]:
    """Returns the names of the shipped spaces that begin so."""
    from hilo_nas.space import list_shipped

    return _beginning(incomplete, list_shipped())


def complete_setting(incomplete: str) -> list[tuple[str, str]]:
    """Returns the settings that begin so, as `section.field=`, each with what it means."""
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
    """Returns the formats of `hilo-nas export` that begin so."""
    from hilo_nas.export import EXPORTERS

    return _beginning(incomplete, EXPORTERS)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
