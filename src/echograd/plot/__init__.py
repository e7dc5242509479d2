"""Figures of training results and of gradients. Needs the extra `plot`.

Every function draws on the axes that it is given, and returns them. None of them uses pyplot: `figure` makes a figure,
`style` applies the house style in a block of code, and `png` turns a figure into bytes.

Example:
    ```python
    from echograd import plot

    with plot.style("dark"):
        fig, axes = plot.figure(4.2, 2.8)
        plot.confusion_matrix(axes, [[42, 3], [5, 17]], ["sinus rhythm", "atrial fibrillation"])
        png = plot.png(fig)
    ```
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'echograd.plot needs matplotlib, which is not installed. Install it with: pip install "echograd[plot]"'
    ) from error

from ._agreement import gradient_agreement as gradient_agreement
from ._audit import audit as audit
from ._confusion import confusion_matrix as confusion_matrix
from ._costs import CostRow as CostRow, costs as costs
from ._curves import learning_curve as learning_curve
from ._regression import predicted_against_true as predicted_against_true
from ._retrace import departure as departure, echo_in_time as echo_in_time, echo_path as echo_path
from ._signals import signal_with_prediction as signal_with_prediction
from ._style import Theme as Theme, figure as figure, png as png, style as style
from ._survey import device_survey as device_survey
from ._sweep import nudge_sweep as nudge_sweep
