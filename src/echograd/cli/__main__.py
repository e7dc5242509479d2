"""`python -m echograd.cli` is `echograd`."""

import sys

from ._main import main

sys.exit(main())
