"""Declarations of all proxies. Importing them does not import torch.

Other packages use the fields of a declaration. They never test for the name of a proxy or metric.
"""

from __future__ import annotations

import functools

from hilo_nas.errors import UsageError
from hilo_nas.plugins import find_installed, installed_names, is_plugin
from hilo_nas.proxy.kinds.declaration import OPTIONS, Attempt, Metric, Proxy
from hilo_nas.proxy.kinds.formula import FORMULAS
from hilo_nas.proxy.kinds.function import declare_function
from hilo_nas.proxy.kinds.short_training import TRAINING
from hilo_nas.proxy.kinds.training_free import TRAINING_FREE
from hilo_nas.proxy.kinds.without import NO_PROXY

__all__ = [
    "DEFAULT_PROXY",
    "OPTIONS",
    "Attempt",
    "Metric",
    "Proxy",
    "find_proxy",
    "list_proxies",
    "metric_named",
    "proxy_named",
    "proxy_names",
    "quick_names",
]

PROXIES = {proxy.name: proxy for proxy in (TRAINING, *FORMULAS, *TRAINING_FREE, NO_PROXY)}
"""Declarations of this package by name. A new kind of proxy needs one entry."""
DEFAULT_PROXY = TRAINING
_GROUP = "hilo_nas.proxies"
"""Entry point group for proxies of other packages, as `NAME = "module:DECLARATION"`."""


def proxy_names() -> tuple[str, ...]:
    """Returns the valid names for `--proxy`, except functions. Proxies of installed packages come last."""
    return tuple(dict.fromkeys((*PROXIES, *installed_names(_GROUP))))


def list_proxies() -> tuple[Proxy, ...]:
    """Returns the declarations of `proxy_names`. Imports those of installed packages.

    Raises:
        UsageError: An entry point of an installed package is not a proxy.
    """
    return tuple(proxy_named(name) for name in proxy_names())


def quick_names() -> tuple[str, ...]:
    """Returns the names of the proxies with a low cost per network (`Proxy.is_quick`)."""
    return tuple(proxy.name for proxy in list_proxies() if proxy.is_quick)


def find_proxy(name: str) -> Proxy | None:
    """Returns the declaration of a proxy or user function, or None if the name is unknown.

    The file of a user function does not have to exist.

    Raises:
        UsageError: The entry point of an installed package with this name is not a proxy.
    """
    if is_plugin(name):
        return _declare_function(name)
    return PROXIES.get(name) or find_installed(_GROUP, name, Proxy)


def proxy_named(name: str) -> Proxy:
    """Returns the declaration of a proxy or user function.

    Raises:
        UsageError: The name is unknown. The message lists the known names.
    """
    found = find_proxy(name)
    if found is None:
        raise UsageError(
            f"proxy must be one of {', '.join(proxy_names())}, or module:function or path/to/file.py:function, but got "
            f"{name!r}"
        )
    return found


@functools.cache
def metric_named(name: str) -> Metric:
    """Returns the metric with the name in `ProxyScore.metric`.

    If no proxy declares it, the result is a metric without unit and chance.
    """
    if not is_plugin(name):
        for proxy in (*PROXIES.values(), *list_proxies()):
            for metric in proxy.metrics:
                if metric.name == name:
                    return metric
    return Metric(name=name)


_declare_function = functools.cache(declare_function)
