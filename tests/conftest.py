import os

# Tiny networks gain nothing from a second thread, which only waits where others want the core. It must be said
# before torch is imported, and the workers that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
