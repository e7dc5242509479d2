"""The report: whole, self-contained, escaped, and with the numbers of the run."""

import base64
import dataclasses
import hashlib
import html
import html.parser
import io
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import echograd as eg
from echograd import plot
from echograd.workbench import report
from echograd.workbench.report import _costs, _measure, _scores, _write
from echograd.workbench.report._html import Html, join, table, tag
from echograd.workbench.report._page import Page, check_ours
from echograd.workbench.training import Run, fit
from waves import SMALL, sums, waves

pytestmark = pytest.mark.least_effort

# A run has its own precision, so the other leg would show the same page; what is measured for it runs in both.
one_page = pytest.mark.float64_only

HOSTILE = ('<b>slow</b> & "$x_{$" \u202eabc', "</style><script>alert(1)</script>")


class Document(html.parser.HTMLParser):
    """Reads a page, and refuses tags that do not close in order."""

    VOID = ("meta", "img", "source", "br")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, name, attributes):
        self.tags.append(name)
        self.attributes += [(name, key, value) for key, value in attributes]
        if name not in self.VOID:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())


@pytest.fixture(scope="module", autouse=True)
def _quick():
    """Measure at few steps, draw coarsely."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_write, "_OSCILLATOR_STEPS", (50,))
        patch.setattr(_write, "_MULTIPLES", (2,))
        patch.setattr(_write, "_CHECKED_STEPS", 12)
        patch.setattr(_costs, "_SECONDS", 0.1)
        patch.setattr("echograd.plot.png.__kwdefaults__", {"dpi": 40})
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    dataset = dataclasses.replace(
        waves(), class_names=HOSTILE, description="<i>About</i> it.\n- more", source="<u>me</u>"
    )
    return fit(SMALL, dataset, out=tmp_path_factory.mktemp("runs") / "waves")


@pytest.fixture(scope="module")
def written(run):
    said = []
    path = report.write(run, title="Waves & <echoes>", command="make \u202ewaves", say=said.append)
    assert path == run.folder / "report.html"
    assert len(said) == 6
    return path, path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def document(written):
    return Document(written[1])


@one_page
def test_the_page_needs_nothing_else(document, written):
    fetched = [(name, key, value) for name, key, value in document.attributes if key in ("src", "srcset", "href")]
    assert fetched
    assert all(value.startswith("data:image/png;base64,") for _, _, value in fetched)
    assert not {"script", "link", "iframe", "object"} & set(document.tags)
    css = re.search(r"<style>(.*?)</style>", written[1], re.DOTALL).group(1)
    assert "url(" not in css
    assert "@import" not in css
    assert "prefers-color-scheme: dark" in css
    assert "@media print" in css
    assert ("meta", "content", "width=device-width, initial-scale=1") in document.attributes


@one_page
def test_the_page_allows_itself_nothing_from_elsewhere(document, written):
    """No script, no address, and no style but its own, by the digest of what stands in it."""
    ((policy,),) = [[value for name, key, value in document.attributes if value.startswith("default-src")]]
    css = re.search(r"<style>(.*?)</style>", written[1], re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; img-src data:; style-src 'sha256-{digest}';")
    assert ("meta", "http-equiv", "Content-Security-Policy") in document.attributes
    assert not [key for _, key, _ in document.attributes if key == "style" or key.startswith("on")]
    assert written[1].index("Content-Security-Policy") < written[1].index("<style>")


@one_page
def test_names_keep_their_direction_of_writing_to_themselves(written):
    """A name may hold characters that turn round whatever follows them."""
    for name in (*HOSTILE, "Waves & <echoes>"):
        assert f"<bdi>{html.escape(name)}</bdi>" in written[1]
    assert "\u202e" not in re.sub(r"<bdi>.*?</bdi>|<title>.*?</title>|alt=\"[^\"]*\"", "", written[1])


@one_page
def test_names_are_escaped(document):
    assert HOSTILE[0] in document.text
    assert HOSTILE[1] in document.text
    assert "Waves & <echoes>" in document.text
    assert "<i>About</i> it." in document.text
    assert {"b", "i", "u", "script"}.isdisjoint(document.tags)


@one_page
def test_the_numbers_of_the_results_are_there(document, run):
    results = run.results
    for name in ("accuracy", "balanced_accuracy", "f1"):
        assert f"{results['test'][name]:.3f}" in document.text
    assert f"{results['majority']['balanced_accuracy']:.3f}" in document.text
    assert f"epoch {results['best_epoch']} of {results['epochs']}" in document.text
    confusion = np.array(results["test"]["confusion"])
    for recall in np.diag(confusion) / confusion.sum(1):
        assert f"{recall:.3f}" in document.text
    assert f"{results['parameters']} parameters" in document.text


@one_page
def test_all_scores_are_there(document):
    for heading in (
        "How well",
        "How it was learned",
        "Can its probabilities be trusted?",
        "Examples",
        "Hard cases",
        "Where the decision was made",
        "What the oscillators became",
        "Echo against backpropagation",
        "An echo",
        "What it costs",
        "How to repeat it",
    ):
        assert heading in document.text
    assert "make \\u202ewaves" in document.text
    assert "blocks[0].unit.angle" in document.text
    assert "That is rounding." in document.text
    assert jax.__version__ in document.text
    assert SMALL.precision in document.text


@one_page
def test_the_figures_lie_beside_it_and_in_it(written, document):
    files = sorted(path.name for path in (written[0].parent / "figures").iterdir())
    assert {"loss.png", "balanced_accuracy.png", "confusion.png", "gradients.png", "echo-time.png"} <= set(files)
    for name in files:
        with Image.open(written[0].parent / "figures" / name) as image:
            assert image.format == "PNG"
    assert document.tags.count("img") == document.tags.count("source") == len(files)
    alts = [value for name, key, value in document.attributes if (name, key) == ("img", "alt")]
    assert len(alts) == len(files)
    assert all(alts)


@one_page
def test_a_report_is_written_over_and_nothing_else_is(run, tmp_path, written):
    check_ours(written[0])
    mine = tmp_path / "report.html"
    mine.write_text("<p>my thesis</p>")
    with pytest.raises(FileExistsError, match="was not written by echograd"):
        report.write(run, tmp_path)
    assert mine.read_text() == "<p>my thesis</p>"


def test_there_must_be_a_run_with_results(tmp_path, run):
    with pytest.raises(FileNotFoundError, match="no training run"):
        report.write(tmp_path)
    (tmp_path / "config.json").write_bytes((run.folder / "config.json").read_bytes())
    with pytest.raises(FileNotFoundError, match="Resume it"):
        report.write(tmp_path)


def test_a_folder_that_cannot_be_is_refused_before_anything_is_measured(run, tmp_path):
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(FileExistsError, match=r"broken link\. Choose another folder"):
        report.write(run, tmp_path / "link", say=lambda _: pytest.fail("it has begun"))


@pytest.fixture
def undrawn(monkeypatch):
    """Make figures, but not their pixels."""
    monkeypatch.setattr("echograd.plot.png", lambda _: b"png")


@one_page
@pytest.mark.parametrize("times", [None, 4])
@pytest.mark.usefixtures("undrawn")
def test_a_regression_run(times, tmp_path, monkeypatch):
    """One number a case, and one number now and then. What the tests below measure is not measured here."""
    dataset, rows = (
        sums(times=times),
        [plot.CostRow(gradient=g, steps=9, bytes=9, seconds=1.0) for g in ("echo", "backprop")],
    )
    agreed = {"candidate": "echo", "parameter": "x", "relative_error": 3e-8, "cosine": 1.0, "norm_ratio": 1.0}
    found = eg.GradientReport([{**agreed, "reference_norm": 1.0, "taylor_slope": None}])
    monkeypatch.setattr(_write, "check_model", lambda _: found)
    monkeypatch.setattr(_write, "model_costs", lambda *_: rows)
    monkeypatch.setattr(_write, "oscillator_costs", lambda *_: rows)
    run = fit(dataclasses.replace(SMALL, epochs=1, gradient="backprop"), dataset, out=tmp_path / "run")
    document = Document(report.write(run, tmp_path / "page").read_text(encoding="utf-8"))
    results = run.results
    assert f"{results['test']['mae']:.4g}" in document.text
    assert f"{results['mean']['mae']:.4g}" in document.text
    assert "learned by backpropagation" in document.text
    assert "more than the 1.0 × 10−9 that an exact gradient may have" in document.text
    assert ("Examples" in document.text) == (times is None)
    assert ("Hard cases" in document.text) == ("Where the decision was made" in document.text) == (times is None)
    for name in ("predictions", "residuals", "spectrum"):
        assert (tmp_path / "page" / "figures" / f"{name}.png").is_file()
    assert not (run.folder / "report.html").exists()


@pytest.mark.parametrize(("constant", "label"), [("majority", "majority class"), ("mean", "mean of the targets")])
def test_the_baseline_of_a_curve_has_its_name(constant, label, monkeypatch):
    drawn = {}
    monkeypatch.setattr(Page, "figures", lambda *_: None)
    monkeypatch.setattr(_scores, "draw", lambda _, paint, **__: paint(None, None))
    monkeypatch.setattr(
        _scores.plot, "learning_curve", lambda _, __, metric, **options: drawn.update({metric: options})
    )
    results = {"monitor": "mae", "best_epoch": 1, "epochs": 2, constant: {"mae": 0.7}}
    dataset = types.SimpleNamespace(splits={"validation": [1, 2, 3]})
    run = types.SimpleNamespace(results=results, history=lambda: [{}], dataset=dataset)
    _scores.history(Page("a run"), run)
    assert (drawn["mae"]["baseline_label"], drawn["mae"]["baseline"]) == (label, 0.7)
    drawn.clear()
    page, run.history = Page("a run"), list
    _scores.history(page, run)
    assert not drawn
    assert "metrics.jsonl" in page.html()


@one_page
@pytest.mark.usefixtures("undrawn")
def test_a_run_of_damped_oscillators(tmp_path):
    """They have no echo to show; gradients are by reversed errors."""
    run = fit(dataclasses.replace(SMALL, model="damped", epochs=1), waves(), out=tmp_path / "damped")
    page = Document(report.write(run).read_text(encoding="utf-8"))
    for words in ("learned by reversed errors", "Reversed errors against backpropagation", "memory, reciprocal"):
        assert words in page.text
    assert "blocks[0].unit.log_decay" in page.text
    assert "That is rounding." in page.text
    assert "An echo" not in page.text


def subject(run, cases=4):
    return _measure.Subject.of(run.model, run.state, run.prepared.test, cases)


def test_gradients_are_compared_in_float64(run):
    found = _measure.check_model(subject(run))
    assert found.ok(1e-9)
    assert any(row["taylor_slope"] is not None for row in found.rows)
    assert jax.config.jax_enable_x64 == jnp.ones(()).dtype.itemsize // 8


def test_the_echo_retraces_and_the_nudged_one_leaves(run):
    few = subject(run)
    found = _measure.retrace(few, 1)
    steps = int(few.mask[1].sum())
    assert found.forward.shape == found.echo.shape == found.nudged.shape == (steps + 1, 2)
    np.testing.assert_array_equal(found.forward[0], 0)
    assert found.echo_error.max() < 1e-4
    assert found.nudged_error[0] > 100 * found.echo_error.max()
    # Nothing has been pushed yet where the echo begins.
    assert found.nudged_error[-1] < 1e-6
    shift = np.abs(found.nudged - found.echo)[:, 0].max()
    assert shift == pytest.approx(0.6 * found.forward[:, 0].std(), rel=0.2)


def test_the_push_is_the_slope_of_the_loss(run):
    """What leaves with the nudge is the gradient: the response to it gives the derivative of the loss by the inputs."""
    few = subject(run)
    a, b = _measure.retrace(few, 0, shift=0.3), _measure.retrace(few, 0, shift=0.6)
    assert (a.unit, b.beta) == (b.unit, pytest.approx(2 * a.beta))
    # Linear oscillators respond in proportion.
    np.testing.assert_allclose(2 * (a.nudged - a.echo), b.nudged - b.echo, rtol=0, atol=2e-3 * np.abs(b.nudged).max())


def test_costs_are_measured():
    def loss_of(n):
        def loss(stiffness, gradient):
            class Oscillator(eg.SeparableHamiltonian):
                k: jax.Array

                def kinetic(self, t, p):
                    return 0.5 * jnp.sum(p**2)

                def potential(self, t, q, u):
                    return 0.5 * jnp.sum(self.k * q**2)

            start = eg.InitialValue(jnp.ones(4), jnp.zeros(4))
            sol = eg.solve(
                Oscillator(stiffness),
                start,
                dt=0.1,
                steps=n,
                gradient=gradient,
                save=eg.FinalNode(),
                cost=lambda t, q, p: jnp.sum(q**2),
            )
            return sol.cost

        return loss

    rows = _costs.measure(loss_of, jnp.ones(4), (200, 800), repeats=2)
    assert [(row["steps"], row["gradient"]) for row in rows] == [
        (200, "echo"),
        (200, "backprop"),
        (800, "echo"),
        (800, "backprop"),
    ]
    size = {(row["gradient"], row["steps"]): row["bytes"] for row in rows}
    assert size["echo", 800] < 1.2 * size["echo", 200]
    assert size["backprop", 800] > 3 * size["backprop", 200]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.fast
def test_text_is_escaped_and_html_is_not():
    assert tag("p", "a < b", tag("b", '"'), class_='x"y') == '<p class="x&quot;y">a &lt; b<b>&quot;</b></p>'
    assert join(["&", Html("&amp;")]) == "&amp;&amp;"
    assert '<td><bdi>n&lt;</bdi></td><td class="number">1</td>' in table(["a", "b"], [["n<", "1"]])
    page = Page("</title>")
    page.text("<script>", kind="remark")
    assert "<script>" not in page.html()


def test_the_run_opens_from_its_folder(run):
    assert Run.open(run.folder).results == run.results


def test_png_in_memory_is_a_png():
    with plot.style():
        fig, _ = plot.figure(1, 1)
        with Image.open(io.BytesIO(plot.png(fig, dpi=50))) as image:
            assert image.size == (50, 50)


def test_cases_of_unequal_lengths_can_be_stretched():
    mask = jnp.asarray([[True, True, False], [True, True, True]])
    model = eg.nn.HSSM(1, 2, hidden=2, units=2, key=jax.random.key(0))
    short = _measure.Subject(model, None, jnp.ones((2, 3, 1)), mask, jnp.zeros(2, jnp.int32))
    np.testing.assert_array_equal(jnp.sum(short.stretched(7).mask, 1), [5, 7])
    assert bool(short.stretched(7).mask[0, :5].all())
