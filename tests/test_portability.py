"""What the package needs of a system. Modules and names that Windows lacks are hidden from a process on Linux."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hilo_nas

PACKAGE = Path(hilo_nas.__file__).parent
UNIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
UNIX_NAMES = {
    "os": (
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "WNOHANG"),
        *("fork", "forkpty", "wait", "waitid", "wait3", "wait4", "killpg", "setsid", "nice", "uname", "sysconf"),
        *("getuid", "geteuid", "getgid", "getegid", "getgroups", "getpgid", "getpgrp", "getloadavg", "getpriority"),
        *("chown", "lchown", "fchmod", "fchown", "fchdir", "mkfifo", "mknod", "statvfs", "fstatvfs", "sync"),
        *("pread", "pwrite", "preadv", "pwritev", "sendfile", "posix_fadvise", "posix_fallocate", "posix_spawn"),
        *("sched_getaffinity", "sched_setaffinity", "sched_yield", "sysconf_names"),
    ),
    "signal": ("SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCHLD", "setitimer", "pthread_sigmask"),
    "time": ("pthread_getcpuclockid", "clock_gettime"),
}

CHILD = """
import ast, contextlib, importlib.util, json, os, signal, sys, time
from pathlib import Path

modules, names, folder = json.loads(sys.argv[1])
package = Path(importlib.util.find_spec("hilo_nas").origin).parent

# Other packages are imported first: they may use what this system has.
for path in package.rglob("*.py"):
    for node in ast.parse(path.read_text("utf-8")).body:
        wanted = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        wanted += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in wanted:
            if name.partition(".")[0] not in ("hilo_nas", *modules):
                with contextlib.suppress(ImportError):
                    importlib.import_module(name)

for name in modules:
    sys.modules[name] = None
for owner, hidden in names.items():
    for name in hidden:
        vars(sys.modules[owner]).pop(name, None)
os.supports_dir_fd = set()

faults, found = {}, []
for path in sorted(package.rglob("*.py")):
    parts = path.relative_to(package.parent).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    if parts[-1] == "__main__":
        continue
    try:
        importlib.import_module(name)
        found.append(name)
    except ModuleNotFoundError as error:  # an optional library
        if error.name in modules or error.name.startswith("hilo_nas"):
            faults[name] = str(error)
    except Exception as error:
        faults[name] = repr(error)
print(json.dumps([found, faults]))
"""

USE = """
from windows import FakeMsvcrt
from hilo_nas.data.ownership import mark_cache, remove_folder
from hilo_nas.data.spot_checks import find_changed, take_samples
from hilo_nas.files.file_lock import WindowsLocks
from hilo_nas.files.plain_files import read_bytes
from hilo_nas.study.records import write_atomically
from hilo_nas.timing.exclusive import Claim, hold

os.environ["HILO_NAS_LOCKS_DIR"] = str(Path(folder) / "locks")
claims = [Claim(device="cpu", alone=False), Claim(device="mps", alone=True)]
with hold(claims, "a timing", print, system=WindowsLocks(FakeMsvcrt())):
    assert [card.name for card in Path(folder).glob("locks/mps/*.json")] == [f"{os.getpid()}.json"]
assert list(Path(folder).glob("locks/*/*.json")) == []

record, image_set = Path(folder) / "0001.json", Path(folder) / "set"
write_atomically(record, b"a\\r\\nb")
assert read_bytes(record, 100) == b"a\\r\\nb"
assert find_changed(take_samples([str(record)], "0")) is None
image_set.mkdir()
(image_set / "images.npy").touch()
remove_folder(image_set)
assert not image_set.exists()
cache = Path(folder) / "cache"
cache.mkdir()
mark_cache(cache)
assert (cache / "CACHEDIR.TAG").is_file()
"""


def run_without_unix(script, folder):
    """Runs a script in a process without the modules and names of Unix, and returns its standard output."""
    path = os.pathsep.join([str(PACKAGE.parent), str(Path(__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps([UNIX_MODULES, UNIX_NAMES, str(folder)])],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_module_is_imported_and_files_are_locked_without_what_windows_lacks(tmp_path):
    found, faults = json.loads(run_without_unix(CHILD + USE, tmp_path))
    assert faults == {}
    assert len(found) > 250
    assert {"hilo_nas.timing.worker", "hilo_nas.timing.exclusive", "hilo_nas.data.cache", "hilo_nas.cli"} <= set(found)


def test_a_module_of_unix_alone_would_be_seen(tmp_path):
    script = CHILD.replace("faults, found = {}, []", "importlib.import_module('fcntl')")
    with pytest.raises(AssertionError, match="import of fcntl halted"):
        run_without_unix(script, tmp_path)


def test_no_module_imports_one_of_unix_alone():
    """Not even inside a function: only the file lock loads such a module, by its name."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert not {name.partition(".")[0] for name in names} & {*UNIX_MODULES, "msvcrt"}, path


def test_processes_are_started_and_never_forked():
    """A fork copies the threads and locks of torch. All processes are started by `subprocess`."""
    forks = {"fork", "forkpty", "get_context", "set_start_method", "Process", "Pool", "ProcessPoolExecutor"}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
        assert not used & forks, path
