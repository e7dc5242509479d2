"""The figure of an audit shows the errors of the rows, and distinguishes forward-only rules."""

import types

import pytest

from echograd import plot

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


def test_the_errors_are_on_the_axis():
    rows = [
        types.SimpleNamespace(rule="echo", error=1e-15, passes=2.0, forward_only=True),
        types.SimpleNamespace(rule="fixed", error=0.0, passes=11.0, forward_only=False),
    ]
    with plot.style():
        _, axes = plot.figure(5, 3)
        plot.audit(axes, rows)
        forward, other = axes.get_lines()
        assert list(forward.get_xdata()) == [1e-15]
        assert other.get_xdata()[0] < 1e-16
        assert forward.get_fillstyle() != other.get_fillstyle()
        assert [label.get_text() for label in axes.get_yticklabels()] == ["echo", "fixed"]
        assert {text.get_text() for text in axes.texts} == {"2 passes", "11 passes"}
        with pytest.raises(ValueError, match="no rows"):
            plot.audit(axes, [])
