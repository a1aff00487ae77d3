"""Other processes as the kernel lists them under /proc, and waiting for what they do."""

import time
from pathlib import Path


def read_stat(pid):
    """What `/proc/PID/stat` says after the name of the process, as words; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_alive(pid):
    """Whether the process still runs: not gone, and no zombie that only waits to be reaped."""
    return read_stat(pid)[:1] not in ([], ["Z"])


def list_descendants(pid):
    """Every living process below `pid`."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        child = int(path.name)
        if read_stat(child)[1:2] == [str(pid)] and is_alive(child):
            found += [child, *list_descendants(child)]
    return found


def wait_for(condition, seconds=60):
    """Waits until the condition holds; returns whether it did. The time is far more than a busy machine needs."""
    deadline = time.monotonic() + seconds
    while not (held := condition()) and time.monotonic() < deadline:
        time.sleep(0.005)
    return held
