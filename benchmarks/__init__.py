"""The benchmark suite: time, memory and error of our gradients and of others, each contender in its own process.

`measure` runs the suite and writes JSON. `write_page` writes a page with plots from these files. `make bench` does
both.
"""

from ._contest import Effort as Effort
from ._page import write_page as write_page
from ._suite import ROWS as ROWS, measure as measure, planned as planned
