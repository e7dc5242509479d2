"""`python -m echograd.workbench.cli` runs the command `echograd`."""

import sys

from ._main import main

sys.exit(main())
