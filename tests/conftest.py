import os
import signal

# A run in the background of a shell script is started with Ctrl-C ignored, and so would be what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Tiny networks gain nothing from a second thread, which only waits where others want the core. It must be said
# before torch is imported, and the workers that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
