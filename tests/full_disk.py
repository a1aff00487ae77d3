"""A disk that takes no more: a process of its own that may write only 4 KiB to a file.

The kernel refuses the rest as a full disk does, with an error, where the signal that comes with it (SIGXFSZ) is
ignored. It is another process because that signal ends one that does not ignore it, and libraries that the tests load
(triton's compiler, for one) set its handling anew.
"""

import subprocess
import sys
import textwrap

_LIMIT = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
"""


def run_on_full_disk(script, *arguments):
    """Runs a script, limited after its imports, with `sys.argv[1:]` as given; returns what it printed.

    The script marks where the limit begins by a line `# full`.
    """
    before, after = textwrap.dedent(script).split("# full\n")
    command = [sys.executable, "-c", before + _LIMIT + after, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
