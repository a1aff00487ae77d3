"""Proxies, which score networks to rank them: declarations (`kinds`) and the work in a worker process (`run`)."""

from hilo_nas.proxy.kinds import Metric, Proxy, find_proxy, list_proxies, metric_named, proxy_named, proxy_names

__all__ = ["Metric", "Proxy", "find_proxy", "list_proxies", "metric_named", "proxy_named", "proxy_names"]
