"""Command line as `python -m hilo_nas`."""

import sys

from hilo_nas.cli import main

sys.exit(main())
