"""Arguments that cannot be drawn are refused in one sentence; every axis of a figure has a label."""

import math
import types

import numpy as np
import pytest
from test_figures import COSTS, HISTORY, ROWS, sweep

import echograd as eg
from echograd import plot as P
from echograd.workbench import report

pytestmark = pytest.mark.precision_free

NAN = math.nan
AUDIT = [types.SimpleNamespace(rule="echo", error=1e-15, passes=2.0, forward_only=True)]
SWEEP = sweep((0.1, 0.02, 0.02, 1e-3, 0.019, None))
SURVEY = types.SimpleNamespace(
    rows=[{"imperfection": "drift", "strength": 0.1, "error": 0.2, "bias": 0.1, "ideal_error": 0.2}], floor=1e-3
)
T, PATH = np.linspace(0, 1, 5), np.ones((5, 2)) * np.arange(5)[:, None]

DRAWN = {
    "audit": lambda ax: P.audit(ax, AUDIT),
    "confusion_matrix": lambda ax: P.confusion_matrix(ax, [[1, 2], [3, 4]], ["a", "b"]),
    "costs in bytes": lambda ax: P.costs(ax, COSTS, "bytes"),
    "costs in seconds": lambda ax: P.costs(ax, COSTS, "seconds"),
    "departure": lambda ax: P.departure(ax, T, T, T),
    "device_survey": lambda ax: P.device_survey(ax, SURVEY),
    "echo_in_time": lambda ax: P.echo_in_time(ax, T, T, T),
    "echo_path": lambda ax: P.echo_path(ax, PATH, PATH, names=("x in m", "y in m")),
    "gradient_agreement": lambda ax: P.gradient_agreement(ax, ROWS),
    "learning_curve": lambda ax: P.learning_curve(ax, HISTORY),
    "nudge_sweep": lambda ax: P.nudge_sweep(ax, SWEEP),
    "predicted_against_true": lambda ax: P.predicted_against_true(ax, T, T, unit="bpm"),
    "signal_with_prediction": lambda ax: P.signal_with_prediction(ax, PATH, truth="a", prediction="b"),
}


@pytest.fixture
def ax():
    with P.style():
        yield P.figure(4, 3)[1]


@pytest.mark.parametrize("name", DRAWN)
def test_every_axis_has_a_label(ax, name):
    """In the house style the title labels the vertical axis."""
    DRAWN[name](ax)
    assert ax.axison
    assert ax.get_xlabel()
    assert ax.get_ylabel() or ax.get_title(loc="left")


WRONG = [
    (lambda ax: P.learning_curve(ax, 5), "the history() of a training run"),
    (lambda ax: P.learning_curve(ax, []), "no rows"),
    (lambda ax: P.learning_curve(ax, [5]), "row 0 has no 'epoch'"),
    (lambda ax: P.learning_curve(ax, [{"epoch": 1, "train": 5}]), "no epoch of the history has 'loss'"),
    (lambda ax: P.learning_curve(ax, [{"epoch": 1, "train": {"loss": "x"}}]), "must be real numbers"),
    (lambda ax: P.learning_curve(ax, HISTORY, baseline="x"), "baseline='x'"),
    (lambda ax: P.echo_path(ax, np.ones((5, 3)), np.ones((5, 3))), "shape (5, 3); it must be (any, 2)"),
    (lambda ax: P.echo_path(ax, PATH, PATH * NAN), "echo contains NaN or infinite"),
    (lambda ax: P.echo_path(ax, PATH, np.ones((0, 2))), "echo has shape (0, 2): it is empty"),
    (lambda ax: P.echo_path(ax, PATH, PATH, potential=5), "potential=5"),
    (lambda ax: P.echo_in_time(ax, np.ones(5), np.ones(4), np.ones(5)), "forward has shape (4,); it must be (5)"),
    (lambda ax: P.echo_in_time(None, T, T, T), "axes is a NoneType"),
    (lambda ax: P.echo_in_time(np.asarray([ax]), T, T, T), "Pass one of them"),
    (lambda ax: P.departure(ax, T, T, "x"), "nudged must be real numbers, not 'x'"),
    (lambda ax: P.departure(ax, T, T, None), "nudged"),
    (lambda ax: P.costs(ax, [{}], "bytes"), "row 0 has no 'gradient'"),
    (lambda ax: P.costs(ax, COSTS, "mass"), "quantity='mass'"),
    (lambda ax: P.costs(ax, None, "bytes"), "got None"),
    (lambda ax: P.costs(ax, [{**COSTS[0], "bytes": NAN}], "bytes"), "must be positive"),
    (lambda ax: P.costs(ax, [{**COSTS[0], "bytes": "x"}], "bytes"), "must be positive"),
    (lambda ax: P.gradient_agreement(ax, [{"x": 1}]), "row 0 has no 'parameter'"),
    (lambda ax: P.gradient_agreement(ax, 5), "the result of echograd.check_gradients"),
    (lambda ax: P.nudge_sweep(ax, None), "the result of echograd.nudge_sweep"),
    (lambda ax: P.device_survey(ax, None), "the result of echograd.device.survey"),
    (lambda ax: P.device_survey(ax, types.SimpleNamespace(rows=[{}], floor=0.0)), "row 0 has no 'imperfection'"),
    (lambda ax: P.audit(ax, None), "the result of echograd.audit"),
    (lambda ax: P.audit(ax, [{"rule": "a"}]), "row 0 has no 'error'"),
    (lambda ax: P.confusion_matrix(ax, "x", ["a"]), "must be real numbers"),
    (lambda ax: P.confusion_matrix(ax, [[1, 2], [3]], ["a", "b"]), "must be real numbers"),
    (lambda ax: P.confusion_matrix(ax, [[1, -2], [3, 4]], ["a", "b"]), "not negative"),
    (lambda ax: P.confusion_matrix(ax, [[1, NAN], [3, 4]], ["a", "b"]), "must be finite"),
    (lambda ax: P.confusion_matrix(ax, [[1, 2], [3, 4]], "ab"), "classes='ab'"),
    (lambda ax: P.predicted_against_true(ax, None, T), "truth must be real numbers"),
    (lambda ax: P.signal_with_prediction(ax, PATH, truth="a", prediction="b", channel_names=("x",)), "1 channel_names"),
    (lambda ax: P.signal_with_prediction(ax, PATH * NAN, truth="a", prediction="b"), "NaN or infinite"),
    (lambda ax: P.signal_with_prediction(ax, PATH, truth="a", prediction="b", probability=2.0), "between 0 and 1"),
    (lambda ax: P.signal_with_prediction(ax, PATH, truth="a", prediction="b", sample_rate=-1), "must be positive"),
    (lambda ax: P.png(None), "None is not a figure"),
    (lambda ax: P.png(ax.figure, dpi=0), "dpi=0"),
    (lambda ax: P.figure(-1, 1), "width=-1"),
    (lambda ax: P.figure(NAN, 1), "width=nan"),
    (lambda ax: P.figure(4, "x"), "height='x'"),
    (lambda ax: P.figure(4, 3, rows=0), "rows=0"),
    (lambda ax: P.figure(4, 3, columns=1.5), "columns=1.5"),
    (lambda ax: report.write(None), "folder=None is not a path"),
    (lambda ax: report.measure(None, None, [1]), "loss_of=None"),
    (lambda ax: report.measure(lambda n: None, None, [1]), "loss_of(1) returned None"),
    (lambda ax: report.measure(lambda n: None, None, 5), "steps=5"),
    (lambda ax: report.measure(lambda n: None, None, []), "steps is empty"),
    (lambda ax: report.measure(lambda n: None, None, [0]), "steps=0"),
    (lambda ax: report.measure(lambda n: None, None, [1], repeats=0), "repeats=0"),
    (lambda ax: report.measure(lambda n: None, None, [1], gradients={}), "gradients={}"),
]


@pytest.mark.parametrize(("call", "words"), WRONG, ids=[f"{i} {words}" for i, (_, words) in enumerate(WRONG)])
def test_wrong_arguments_are_refused_in_one_sentence(ax, call, words):
    with pytest.raises((TypeError, ValueError)) as error:
        call(ax)
    text = str(error.value)
    assert words in text
    assert len(text) < 300
    assert "\n" not in text


def test_reports_are_drawn_as_they_are(ax):
    """Reports and plain lists of rows are accepted."""
    row = {"candidate": "echo", "parameter": "x", "relative_error": 1e-12, "cosine": 1.0, "norm_ratio": 1.0}
    gradients = eg.GradientReport([{**row, "reference_norm": 1.0, "taylor_slope": None}])
    P.gradient_agreement(ax, gradients)
    assert ax.get_yticklabels()[0].get_text() == "x"
    P.audit(P.figure(4, 3)[1], eg.AuditReport(AUDIT, {}))
    nothing = [types.SimpleNamespace(rule="lost", error=NAN, passes=2.0, forward_only=True)]
    drawn = P.audit(P.figure(4, 3)[1], [*AUDIT, *nothing])
    assert [label.get_text() for label in drawn.get_yticklabels()] == ["echo", "lost"]
