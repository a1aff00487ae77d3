"""Nodes and places of a Ray cluster. Only this module imports ray, when a search uses it."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from hilo_nas.errors import UsageError, WorkerFailedError
from hilo_nas.evaluation.ray.cluster import Node, PlaceLostError
from hilo_nas.evaluation.ray.place import Place

__all__ = ["RayCluster", "RayPlace"]

_LOCAL = "local"
_LOCAL_VARIABLES = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Variables of a cluster that starts here. Despite its name, the second one makes Ray listen on loopback only."""
_CALLS_AT_ONCE = 8
"""Number of methods of a place that may run at the same time: a wait for messages, and others meanwhile."""
_REACH_S = 10.0
_ANSWER_S = 30.0
"""Longest wait for the answer of a cluster. It includes the start of a Python process."""
_MOST_SIGNS = 200
"""Maximum number of characters of an error of Ray in a message."""
_START = "Start one with `RAY_AUTH_MODE=token ray start --head`, or set evaluator.address to HOST:PORT."


class RayCluster:
    """Ray cluster of which this machine is a node.

    If the cluster is started here, it has no dashboard, sends no usage statistics, and listens on 127.0.0.1 with a
    token. A cluster that runs already uses its own settings. The handler of SIGTERM stays that of this program.

    Args:
        address: `HOST:PORT` of the cluster, `auto` for the one that runs on this machine, or `local` to start one here.
        resources: Resources of a cluster that is started here, such as `{"CPU": 2, "GPU": 4}`. Ray counts those of
            this machine if left out.

    Raises:
        UsageError: Ray is not installed, there is no such cluster, or it refuses the connection.
    """

    def __init__(self, address: str = "auto", *, resources: Mapping[str, float] | None = None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UsageError("evaluator.kind=ray needs Ray, which is not installed. Use pip install 'hilo-nas[ray]'.")
        if "://" in address:
            raise UsageError(
                f"evaluator.address must be HOST:PORT, auto or local, but got {address!r}. Ray's client is not "
                "supported. Start the search on a node of the cluster."
            )
        if address == _LOCAL and not _is_connected():
            _prepare_local_start()
        import ray

        self._ray: Any = ray
        self._is_owner = not ray.is_initialized()
        if self._is_owner:
            self._connect(address, dict(resources or {}))
        elif address not in ("auto", own := ray.get_runtime_context().gcs_address):
            raise UsageError(
                f"evaluator.address must be auto in a program that uses Ray already, but got {address!r}. The program "
                f"uses the cluster {own}. Call ray.shutdown() first to use another one."
            )

    @property
    def warnings(self) -> list[str]:
        """Risks of the cluster that its user should know."""
        if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
            return _token_warnings()
        return [
            "the Ray cluster has no token: who reaches it over the network can run any code on its nodes. Start it "
            "with RAY_AUTH_MODE=token, and set this variable for the search"
        ]

    def nodes(self) -> list[Node]:
        """Returns the running nodes."""
        return [
            Node(id=node["NodeID"], host=node["NodeManagerHostname"], resources=dict(node["Resources"]))
            for node in self._ray.nodes()
            if node["Alive"]
        ]

    def start(self, node: Node, claims: Mapping[str, float], options: str) -> Any:
        """Starts a place on a node, as `Cluster.start`. It ends with the driver's process."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        others = {name: amount for name, amount in claims.items() if name not in ("CPU", "GPU")}
        settings = {
            "num_cpus": claims.get("CPU", 0),
            "num_gpus": claims.get("GPU", 0),
            "resources": others,
            "max_restarts": 0,
            "max_task_retries": 0,
            "max_concurrency": _CALLS_AT_ONCE,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node.id, soft=False),
        }
        return self._ray.remote(RayPlace).options(**settings).remote(options)

    def call(self, place: Any, method: str, *arguments: Any) -> Any:
        """Calls a method of a place and returns a handle of its result."""
        return getattr(place, method).remote(*arguments)

    def first_ready(self, handles: Sequence[Any], timeout_s: float) -> list[Any]:
        """Returns the handles whose calls have ended, as `Cluster.first_ready`."""
        ready, _ = self._ray.wait(list(handles), num_returns=1, timeout=timeout_s)
        if ready and len(handles) > 1:
            ready, _ = self._ray.wait(list(handles), num_returns=len(handles), timeout=0)
        return cast("list[Any]", ready)

    def result(self, handle: Any) -> Any:
        """Returns the result of a call, as `Cluster.result`."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(handle)
        except errors.RayTaskError as error:
            raise WorkerFailedError(_last_line(error)) from error
        except errors.RayError as error:
            raise PlaceLostError(_reason_of(error)) from error

    def kill(self, place: Any) -> None:
        """Ends a place and frees its claims."""
        with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
            self._ray.kill(place)

    def close(self) -> None:
        """Disconnects from the cluster. A cluster that was started here ends."""
        if self._is_owner:
            self._ray.shutdown()

    def _connect(self, address: str, resources: dict[str, float]) -> None:
        options: dict[str, Any] = {}
        if address == _LOCAL:
            options = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
            cpus, gpus = resources.pop("CPU", None), resources.pop("GPU", None)
            options |= {"num_cpus": cpus, "num_gpus": gpus, "resources": resources or None}
            _create_token_file()
        else:
            _check_reachable(address)
        # Otherwise Ray prints what its processes report to the standard output of the search, such as a node's end.
        self._ray._private.worker._worker_logs_enabled = False
        job = self._ray.job_config.JobConfig()
        job._py_driver_sys_path = _NoPaths()
        try:
            with _kept_signals(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._ray.init(
                    address=address,
                    job_config=job,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    **{name: value for name, value in options.items() if value is not None},
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(f"there is no usable Ray cluster at {address}: {_last_line(error)} {_START}") from error


class RayPlace(Place):
    """Place in a process of Ray, with the environment that its node would give to another program.

    Args:
        options: As for `Place`.
    """

    def __init__(self, options: str) -> None:
        _restore_threads()
        super().__init__(options)


def _restore_threads() -> None:
    """Removes the number of threads that Ray sets for an actor, so that torch chooses it as without Ray.

    The node's process, which started this one, has the variable only if the user set it.
    """
    with contextlib.suppress(OSError):
        inherited = Path(f"/proc/{os.getppid()}/environ").read_bytes().split(b"\0")
        if not any(entry.startswith(b"OMP_NUM_THREADS=") for entry in inherited):
            os.environ.pop("OMP_NUM_THREADS", None)


class _NoPaths(list[str]):
    """List that stays empty.

    Ray adds the working directory of the driver to the paths from which the processes of a job import modules. It may
    be a study's folder.
    """

    def extend(self, items: Iterable[str]) -> None:
        """Adds nothing."""


@contextlib.contextmanager
def _kept_signals() -> Iterator[None]:
    """Restores the handler of SIGTERM, which Ray replaces in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _is_connected() -> bool:
    """Returns True if this program uses a cluster already, without importing Ray."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _prepare_local_start() -> None:
    """Sets Ray's variables for a start on this machine alone.

    Raises:
        UsageError: The program imported Ray before, which reads the variables when it is imported.
    """
    missing = {name: value for name, value in _LOCAL_VARIABLES.items() if name not in os.environ}
    if missing and "ray" in sys.modules:
        raise UsageError(
            "evaluator.address=local must be set before Ray is imported, but this program has imported it. Without "
            f"{' and '.join(missing)}, Ray would listen on all network interfaces or need no token. Start Python with "
            f"{' '.join(f'{name}={value}' for name, value in missing.items())}, or search before `import ray`."
        )
    os.environ.update(missing)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def _token_file() -> Path:
    """Returns the file from which Ray reads the token of a cluster."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()


def _lacks_token() -> bool:
    """Returns True if Ray would look for a token and find none."""
    is_wanted = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
    return is_wanted and "RAY_AUTH_TOKEN" not in os.environ and not _token_file().exists()


def _create_token_file() -> None:
    """Creates the token of a cluster that starts here, readable by its user only. Ray would let others read it."""
    path = _token_file()
    if _lacks_token():
        with contextlib.suppress(OSError):  # another search has just created it, or Ray reports the cause
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(mode=0o600, exist_ok=False)
            path.write_text(secrets.token_hex(32), encoding="ascii")


def _token_warnings() -> list[str]:
    """Returns a warning if other users of this host can read the token."""
    path = _token_file()
    with contextlib.suppress(OSError):
        if os.name == "posix" and "RAY_AUTH_TOKEN" not in os.environ and path.stat().st_mode & 0o077:
            return [
                f"other users of this host can read the token of the Ray cluster, which lets them run any code on its "
                f"nodes. Use chmod 600 {path}"
            ]
    return []


def _check_reachable(address: str) -> None:
    """Checks that a Ray cluster at an address accepts this program.

    Without a cluster, `ray.init` ends the whole process or waits without end. So another process asks first.

    Raises:
        UsageError: There is no cluster, it cannot be reached, or it refuses the connection.
    """
    from ray._private import services

    try:
        found = str(services.canonicalize_bootstrap_address(_named(address)))
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
    except (OSError, ValueError) as error:
        fault = " ".join(str(error).split())[:_MOST_SIGNS].rstrip(".")
        raise UsageError(f"there is no usable Ray cluster at {address}: {fault}. {_START}") from error
    refused = (
        f"the Ray cluster at {address} refuses the connection, because the token is missing or wrong. Set "
        f"RAY_AUTH_MODE=token, and copy the token of its head node to {_token_file()}."
    )
    if _lacks_token():  # Ray would abort
        raise UsageError(refused)
    command = [sys.executable, "-P", "-m", "ray.scripts.scripts", "health-check", "--address", found]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"there is no usable Ray cluster at {address}: something listens there, but it does not answer as the head "
            f"of a cluster within {_ANSWER_S:g} s. Set evaluator.address to the HOST:PORT that `ray start --head` "
            "printed."
        ) from None
    if "AuthenticationError" in said.stderr:
        raise UsageError(refused)
    if said.returncode != 0:
        fault = (said.stderr.strip().splitlines() or ["it is not healthy"])[-1][:_MOST_SIGNS].rstrip(".")
        raise UsageError(f"there is no usable Ray cluster at {address}: {fault}. {_START}")


def _named(address: str) -> str:
    """Returns an address, or that of Ray's environment variable instead of `auto`."""
    return os.environ.get("RAY_ADDRESS", address) if address == "auto" else address


def _last_line(error: BaseException) -> str:
    """Returns the last line of an error of Ray, which has the cause, as a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{(lines or [type(error).__name__])[-1].rstrip('.')}."


def _reason_of(error: BaseException) -> str:
    """Returns why a place ended, in few words. Ray's own texts name processes and addresses."""
    name = type(error).__name__
    texts = {
        "ActorUnschedulableError": "its node is gone",
        "NodeDiedError": "its node ended",
        "ActorDiedError": "its process or node ended",
        "ActorUnavailableError": "its node does not answer",
    }
    if "creation task" in str(error):
        return f"its process could not start: {_last_line(error)[:_MOST_SIGNS]} Install hilo-nas[ray] on the node"
    return texts.get(name, f"Ray reports {name}")
