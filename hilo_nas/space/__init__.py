"""Search spaces: knobs with their values, limits and anchors, read from YAML and searched as flat integers."""

from hilo_nas.space.census import Census, count_space, report_dead_knobs
from hilo_nas.space.draw import draw_networks, is_within, list_networks
from hilo_nas.space.limits import (
    KEPT_HARDLY,
    KEPT_SURELY,
    LIMITS,
    Limit,
    broken_limits,
    free_violations,
    limit_text,
    measured_chances,
    measured_values,
    measured_violations,
)
from hilo_nas.space.space import Anchor, Knob, SearchSpace, find_params
from hilo_nas.space.space_file import find_space, list_shipped, load_space

__all__ = [
    "KEPT_HARDLY",
    "KEPT_SURELY",
    "LIMITS",
    "Anchor",
    "Census",
    "Knob",
    "Limit",
    "SearchSpace",
    "broken_limits",
    "count_space",
    "draw_networks",
    "find_params",
    "find_space",
    "free_violations",
    "is_within",
    "limit_text",
    "list_networks",
    "list_shipped",
    "load_space",
    "measured_chances",
    "measured_values",
    "measured_violations",
    "report_dead_knobs",
]
