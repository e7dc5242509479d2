"""`python -m echograd.workbench.cli` is `echograd`."""

import sys

from ._main import main

sys.exit(main())
