"""Figures: the data of the artists, refused arguments, and no change of global settings."""

import subprocess
import sys
import types

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex

from echograd import plot

pytestmark = pytest.mark.precision_free

HISTORY = [
    {"epoch": 1, "train": {"loss": 0.9}, "validation": {"loss": 0.8, "balanced_accuracy": 0.5}},
    {"epoch": 2, "train": {"loss": 0.5}, "validation": {"loss": 0.6, "balanced_accuracy": 0.75}},
    {"epoch": 3, "train": {"loss": 0.4}, "validation": {"loss": 0.7, "balanced_accuracy": 0.7}},
]
ROWS = [
    {"candidate": "echo", "parameter": "stiffness", "relative_error": 3e-15},
    {"candidate": "echo", "parameter": "mass", "relative_error": 0.0},
    {"candidate": "symmetric", "parameter": "stiffness", "relative_error": 2e-4},
    {"candidate": "symmetric", "parameter": "mass", "relative_error": float("inf")},
]
COSTS = [
    plot.CostRow(gradient=name, steps=n, bytes=size, seconds=1e-6 * n)
    for n in (1000, 4000, 16000)
    for name, size in (("echo", 9000), ("backprop", 500 * n))
]


@pytest.fixture
def axes():
    with plot.style():
        yield plot.figure(4, 3)[1]


def lines(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_learning_curves(axes):
    assert plot.learning_curve(axes, HISTORY, "loss", best_epoch=2) is axes
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["training"].get_xydata(), [[1, 0.9], [2, 0.5], [3, 0.4]])
    np.testing.assert_array_equal(drawn["validation"].get_xydata(), [[1, 0.8], [2, 0.6], [3, 0.7]])
    np.testing.assert_array_equal(drawn["kept"].get_xydata(), [[2, 0.6]])
    assert drawn["training"].get_linestyle() != drawn["validation"].get_linestyle()
    assert axes.get_xlabel() == "epoch"
    assert axes.get_yscale() == "linear"


def test_a_metric_of_one_side_and_its_baseline(axes):
    plot.learning_curve(axes, HISTORY, "balanced_accuracy", baseline=0.5)
    drawn = lines(axes)
    assert set(drawn) == {"validation", "majority class"}
    assert set(drawn["majority class"].get_ydata()) == {0.5}
    assert axes.get_title(loc="left") == "Balanced accuracy"


def test_a_baseline_has_its_name(axes):
    plot.learning_curve(axes, HISTORY, "loss", baseline=0.9, baseline_label="mean of the targets")
    assert "mean of the targets" in lines(axes)


def test_a_single_epoch_is_visible(axes):
    """A line through one point is invisible, and so is a level line from an epoch to itself."""
    plot.learning_curve(axes, HISTORY[:1], "loss", baseline=0.9)
    drawn = lines(axes)
    assert drawn["training"].get_marker() == drawn["validation"].get_marker() == "s"
    first, last = drawn["majority class"].get_xdata()
    assert first < 1 < last
    assert [tick for tick in axes.get_xticks() if first < tick < last] == [1]
    plot.learning_curve(axes, HISTORY, "loss")
    assert lines(axes)["training"].get_marker() == "None"


def test_a_loss_that_falls_far_is_logarithmic(axes):
    history = [{"epoch": i, "train": {"loss": 10.0**-i}, "validation": None} for i in range(4)]
    plot.learning_curve(axes, history)
    assert axes.get_yscale() == "log"


def test_an_unknown_metric_is_refused(axes):
    with pytest.raises(ValueError, match="no epoch of the history has 'f1'"):
        plot.learning_curve(axes, HISTORY, "f1")


def test_confusion_matrix(axes):
    plot.confusion_matrix(axes, [[9, 1, 0], [2, 6, 0], [0, 0, 0]], ["a", "b", "nobody"])
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.9, 0.1, 0], [0.25, 0.75, 0], [0, 0, 0]])
    assert texts(axes)[:5] == ["90 %\n9", "10 %\n1", "0 %\n0", "25 %\n2", "75 %\n6"]
    assert [label.get_text().strip() for label in axes.get_xticklabels()] == ["a", "b", "nobody"]
    assert axes.get_xlabel() == "predicted class"
    # Rows are the true classes: the first one on top.
    assert axes.get_ylim()[0] > axes.get_ylim()[1]


def test_a_large_confusion_matrix_is_drawn_without_numbers(axes):
    plot.confusion_matrix(axes, np.eye(52), [f"pig {i}" for i in range(52)])
    assert list(axes.texts) == []


@pytest.mark.parametrize("counts", [[[1, 2]], [[1, 2, 3], [1, 2, 3]], np.ones((3, 3))])
def test_a_confusion_matrix_of_another_size_is_refused(axes, counts):
    with pytest.raises(ValueError, match="2 classes need a table of shape"):
        plot.confusion_matrix(axes, counts, ["a", "b"])


def signal():
    t = np.arange(90) / 90
    return np.stack([np.sin(9 * t), 0.5 * np.cos(9 * t)], 1)


def test_a_signal_with_a_right_prediction(axes):
    x = signal()
    plot.signal_with_prediction(
        axes,
        x,
        truth="sinus",
        prediction="sinus",
        right=True,
        probability=0.87,
        sample_rate=90,
        channel_names=("I", "II"),
    )
    first, second = axes.lines
    np.testing.assert_allclose(np.diff(first.get_ydata()), np.diff(x[:, 0]))
    np.testing.assert_allclose(np.diff(second.get_ydata()), np.diff(x[:, 1]))
    assert second.get_ydata().max() < first.get_ydata().min()
    assert first.get_xdata()[-1] == pytest.approx(89 / 90)
    assert axes.get_xlabel() == "seconds"
    assert (axes.get_title(loc="left"), axes.get_title(loc="right")) == ("sinus", "✓ sinus, 87 %")
    assert texts(axes) == ["I", "II"]


def test_a_signal_with_a_wrong_prediction_differs_by_more_than_colour(axes):
    plot.signal_with_prediction(axes, signal(), truth="sinus", prediction="paced", right=False, probability=0.9999)
    assert axes.get_title(loc="right") == "✗ paced, > 99 %"
    assert axes.get_xlabel() == "steps"


def test_many_channels_are_cut(axes):
    plot.signal_with_prediction(axes, np.zeros((5, 61)), truth="1", prediction="2")
    assert len(axes.lines) == 4


def test_a_flat_array_is_no_signal(axes):
    with pytest.raises(ValueError, match=r"has shape \(90,\)"):
        plot.signal_with_prediction(axes, signal()[:, 0], truth="", prediction="")


def test_gradient_agreement(axes):
    plot.gradient_agreement(axes, ROWS)
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["echo"].get_xydata(), [[3e-15, 0]])
    np.testing.assert_array_equal(drawn["symmetric"].get_xydata(), [[2e-4, 0], [np.inf, 1]])
    zeros = [line for line in axes.lines if line.get_label() == "_zero" and len(line.get_xdata())]
    np.testing.assert_allclose(zeros[0].get_xydata(), [[2.0**-52 / 10, 1]])
    assert zeros[0].get_markerfacecolor() == "none"
    assert axes.get_xscale() == "log"
    assert axes.get_xlim()[1] > 2e-4
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stiffness", "mass"]
    assert {"rounding unit", "tolerance"} <= set(texts(axes))


def test_no_rows_are_refused(axes):
    with pytest.raises(ValueError, match="no rows"):
        plot.gradient_agreement(axes, [])
    with pytest.raises(ValueError, match="no rows"):
        plot.costs(axes, [], "bytes")


def test_costs(axes):
    plot.costs(axes, COSTS, "bytes")
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["echo"].get_ydata(), [9000, 9000, 9000])
    np.testing.assert_array_equal(drawn["backprop"].get_xydata(), [[1000, 5e5], [4000, 2e6], [16000, 8e6]])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1,000", "4,000", "16,000"]
    assert set(texts(axes)) == {"echo", "backprop"}
    assert axes.yaxis.get_major_formatter()(2.5e6) == "2.5 MB"


def test_costs_in_time_keep_their_names_apart(axes):
    plot.costs(axes, COSTS, "seconds")
    first, second = (text.get_position()[1] for text in axes.texts)
    assert abs(second - first) >= 9
    assert axes.yaxis.get_major_formatter()(2.5e-3) == "2.5 ms"


def test_costs_of_nothing_are_refused(axes):
    with pytest.raises(ValueError, match="must be positive"):
        plot.costs(axes, [{**COSTS[0], "bytes": 0}], "bytes")


def test_echo_path(axes):
    forward = np.stack([np.linspace(0, 1, 5), np.linspace(0, 1, 5) ** 2], 1)
    nudged = forward[::-1] + np.linspace(0, 1, 5)[:, None]
    plot.echo_path(axes, forward, forward[::-1], nudged, potential=lambda x, y: x**2 + y**2)
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["echo"].get_xydata(), forward[::-1])
    np.testing.assert_array_equal(drawn["nudged echo"].get_xydata(), nudged)
    contours, path = axes.collections
    assert len(contours.get_paths()) > 3
    np.testing.assert_array_equal(path.get_segments(), np.stack([forward[:-1], forward[1:]], 1))
    assert texts(axes) == ["start", "end"]
    assert axes.get_aspect() == 1


def test_echo_in_time_and_departure(axes):
    t = np.linspace(0, 1, 4)
    plot.echo_in_time(axes, t, np.sin(t), np.sin(t) + 1e-9, np.cos(t))
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["echo"].get_ydata(), np.sin(t) + 1e-9)
    np.testing.assert_array_equal(drawn["nudged echo"].get_ydata(), np.cos(t))
    with plot.style():
        axes = plot.figure(4, 3)[1]
        plot.departure(axes, t, np.array([0, 1e-16, 1e-15, 0]), t)
    np.testing.assert_array_equal(lines(axes)["echo"].get_ydata(), [np.nan, 1e-16, 1e-15, np.nan])
    assert axes.get_yscale() == "log"


def sweep(*rows, noise=1e-4):
    names = ("beta", "error", "bias", "deviation", "estimate", "refused")
    rows = [dict(zip(names, row, strict=True)) for row in rows]
    return types.SimpleNamespace(rows=rows, nudge="Symmetric", noise=noise, repeats=16)


def test_nudge_sweep(axes):
    nan = float("nan")
    rows = [
        (0.1, 0.02, 0.02, 1e-3, 0.019, None),
        (1e-3, 0.1, 0.04, 0.1, 2e-6, None),
        (1e-2, 0.01, 6e-3, 0.01, 2e-4, None),
        ("auto", 0.012, 3e-4, 0.012, 3e-4, None),
        (1e-4, nan, nan, nan, nan, "lost in rounding"),
        (1e-19, nan, nan, nan, nan, "lost in rounding"),
    ]
    plot.nudge_sweep(axes, sweep(*rows))
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["error"].get_xydata(), [[1e-3, 0.1], [1e-2, 0.01], [0.1, 0.02]])
    np.testing.assert_array_equal(drawn["bias"].get_ydata(), [np.nan, 6e-3, 0.02])
    np.testing.assert_array_equal(drawn["deviation"].get_ydata(), [0.1, 0.01, 1e-3])
    np.testing.assert_array_equal(drawn["estimated bias"].get_ydata(), [2e-6, 2e-4, 0.019])
    assert set(drawn["error, auto"].get_ydata()) == {0.012}
    np.testing.assert_array_equal(drawn["refused"].get_xdata(), [1e-4])
    (best,) = [line for line in axes.lines if line.get_label() == "_best"]
    np.testing.assert_array_equal(best.get_xydata(), [[1e-2, 0.01]])
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert axes.get_xlabel() == "strength of Symmetric"
    with pytest.raises(ValueError, match="no numeric strength"):
        plot.nudge_sweep(axes, sweep(*rows[3:]))


def test_a_nudge_sweep_without_noise_shows_only_errors(axes):
    plot.nudge_sweep(axes, sweep((0.1, 0.02, 0.02, 0.0, 0.019, None), noise=0.0))
    assert set(lines(axes)) == {"error", "estimated bias"}


def test_device_survey(axes):
    """A line is solid, in the colour of a nudge, if averaging does not help."""
    rows = [
        {"imperfection": name, "strength": s, "error": e, "bias": b, "ideal_error": 2 * e}
        for name, s, e, b in (
            ("friction", 0.1, 0.2, 0.2),
            ("friction", 0.01, 0.02, 0.02),
            ("drift", 0.01, 0.05, 0.01),
            ("drift", 0.1, 0.5, 0.1),
        )
    ]
    found = types.SimpleNamespace(rows=rows, floor=1e-3)
    assert plot.device_survey(axes, found) is axes
    drawn = lines(axes)
    np.testing.assert_array_equal(drawn["friction"].get_xydata(), [[0.01, 0.02], [0.1, 0.2]])
    assert set(drawn["perfect machine"].get_ydata()) == {1e-3}
    assert (drawn["friction"].get_linestyle(), drawn["drift"].get_linestyle()) == ("-", "--")
    assert drawn["friction"].get_color() != drawn["drift"].get_color()
    assert drawn["friction"].get_marker() != drawn["drift"].get_marker()
    assert set(texts(axes)) == {"friction", "drift", "perfect machine"}
    assert axes.get_xscale() == axes.get_yscale() == "log"
    with pytest.raises(ValueError, match="choose one of 'error', 'ideal_error'"):
        plot.device_survey(axes, found, "bias")
    with pytest.raises(ValueError, match="no imperfection"):
        plot.device_survey(axes, types.SimpleNamespace(rows=[], floor=0.0))


def test_predicted_against_true(axes):
    plot.predicted_against_true(axes, [[60.0], [90.0]], [[65.0], [80.0]], unit="bpm")
    np.testing.assert_array_equal(lines(axes)["cases"].get_xydata(), [[60, 65], [90, 80]])
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlabel() == "true bpm"
    with pytest.raises(ValueError, match="differ"):
        plot.predicted_against_true(axes, [1.0], [1.0, 2.0])


def test_predictions_that_are_not_finite_are_left_out(axes):
    plot.predicted_against_true(axes, [1.0, 2.0, 3.0, 4.0], [np.inf, np.nan, 3.5, 4.0])
    np.testing.assert_array_equal(lines(axes)["cases"].get_xydata(), [[3, 3.5], [4, 4]])
    for truth, prediction in (([], []), ([1.0], [np.nan])):
        with pytest.raises(ValueError, match=r"both finite|is empty"):
            plot.predicted_against_true(axes, truth, prediction)


def test_empty_signals_and_exact_sweeps_are_refused(axes):
    with pytest.raises(ValueError, match=r"has shape \(0, 2\)"):
        plot.signal_with_prediction(axes, np.ones((0, 2)), truth="a", prediction="b")
    with pytest.raises(ValueError, match="every gradient is exact"):
        plot.nudge_sweep(axes, sweep((0.1, 0.0, 0.0, 0.0, 0.0, None), noise=0.0))


def test_a_theme_reaches_the_figure_and_ends_with_its_block():
    before = dict(matplotlib.rcParams)
    papers = []
    for name in ("light", "dark"):
        with plot.style(name) as colours:
            fig, axes = plot.figure(4, 3)
            plot.learning_curve(axes, HISTORY)
            papers.append(to_hex(fig.get_facecolor()))
            assert papers[-1] == colours.paper
            assert lines(axes)["validation"].get_color() == colours.echo
            png = plot.png(fig, dpi=30)
    assert png.startswith(b"\x89PNG")
    assert papers[0] != papers[1]
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="choose one of 'light', 'dark'"), plot.style("sepia"):
        pass


@pytest.mark.parametrize("name", ["light", "dark"])
def test_text_can_be_read(name):
    """Every colour of text has the contrast that WCAG requires, 4.5."""

    def luminance(colour):
        channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    def contrast(a, b):
        low, high = sorted([luminance(a), luminance(b)])
        return (high + 0.05) / (low + 0.05)

    with plot.style(name) as colours:
        for part in ("ink", "muted", "echo", "backprop"):
            assert contrast(getattr(colours, part), colours.paper) >= 4.5, part
        assert contrast(colours.nudge, colours.paper) >= 3.8


def test_pyplot_is_not_imported_and_a_missing_matplotlib_has_a_remedy():
    program = "import sys\nfrom echograd import plot\nassert 'matplotlib.pyplot' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    program = "import sys\nsys.modules['matplotlib'] = None\nimport echograd.plot"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert 'pip install "echograd[plot]"' in done.stderr.splitlines()[-1]
