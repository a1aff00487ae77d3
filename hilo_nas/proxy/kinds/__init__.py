"""Declarations of all proxies; importing them imports no torch.

Other rooms ask a declaration what they want to know: outside `hilo_nas.proxy` no proxy and no metric is named.
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
"""Those of this package, by name; a new kind is one entry."""
DEFAULT_PROXY = TRAINING
_GROUP = "hilo_nas.proxies"
"""Entry points under which other packages declare theirs: `NAME = "module:DECLARATION"`."""


def proxy_names() -> tuple[str, ...]:
    """Returns the names that `--proxy` takes, apart from functions; those of installed packages come last."""
    return tuple(dict.fromkeys((*PROXIES, *installed_names(_GROUP))))


def list_proxies() -> tuple[Proxy, ...]:
    """Returns the declarations of `proxy_names`; imports those of installed packages.

    Raises:
        UsageError: An installed package declares something else.
    """
    return tuple(proxy_named(name) for name in proxy_names())


def quick_names() -> tuple[str, ...]:
    """Returns the names of the proxies that can be compared with a study's at little cost (`Proxy.is_quick`)."""
    return tuple(proxy.name for proxy in list_proxies() if proxy.is_quick)


def find_proxy(name: str) -> Proxy | None:
    """Returns the declaration under a name, or of a function wherever its file lies; None where there is none.

    Raises:
        UsageError: An installed package declares something else under that name.
    """
    if is_plugin(name):
        return _declare_function(name)
    return PROXIES.get(name) or find_installed(_GROUP, name, Proxy)


def proxy_named(name: str) -> Proxy:
    """Returns what `find_proxy` finds.

    Raises:
        UsageError: There is none; names those that are known.
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
    """Returns the metric that `ProxyScore.metric` names; one without unit and chance where nothing declares it."""
    if not is_plugin(name):
        for proxy in (*PROXIES.values(), *list_proxies()):
            for metric in proxy.metrics:
                if metric.name == name:
                    return metric
    return Metric(name=name)


_declare_function = functools.cache(declare_function)
