"""`python -m hilo_nas`: the command line."""

import sys

from hilo_nas.cli import main

sys.exit(main())
