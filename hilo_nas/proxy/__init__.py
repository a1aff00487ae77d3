"""Proxies, which score networks to rank them.

`kinds` declares the proxies without torch. `work` and `worker_calls` compute their scores in a worker process.
"""

from hilo_nas.proxy.kinds import Metric, Proxy, find_proxy, list_proxies, metric_named, proxy_named, proxy_names

__all__ = ["Metric", "Proxy", "find_proxy", "list_proxies", "metric_named", "proxy_named", "proxy_names"]
