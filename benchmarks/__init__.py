"""The benchmark suite: time, memory and error of gradients, ours beside others, each contender in its own process.

`measure` runs it and writes JSON, `write_page` makes a page with plots from the JSON alone; `make bench` does both.
"""

from ._contest import Effort as Effort
from ._page import write_page as write_page
from ._rows import ROWS as ROWS
from ._suite import measure as measure, planned as planned
