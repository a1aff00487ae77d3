"""Scores that rank networks: declarations of the proxies (`kinds`) and their work in a worker (`run`)."""

from hilo_nas.proxy.kinds import Metric, Proxy, find_proxy, list_proxies, metric_named, proxy_named, proxy_names

__all__ = ["Metric", "Proxy", "find_proxy", "list_proxies", "metric_named", "proxy_named", "proxy_names"]
