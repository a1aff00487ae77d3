import atexit
import os
import shutil
import signal
import tempfile

# A run in the background of a shell script is started with Ctrl-C ignored, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny networks gain nothing from a second thread, which only waits where others want the core. It must be said
# before torch is imported, and the workers that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Locks of this run's own: the tests and other users of the machine do not wait for each other. What tests start
# inherits it.
os.environ["HILO_NAS_LOCKS_DIR"] = tempfile.mkdtemp(prefix="hilo-nas-test-locks-")
atexit.register(shutil.rmtree, os.environ["HILO_NAS_LOCKS_DIR"], ignore_errors=True)
