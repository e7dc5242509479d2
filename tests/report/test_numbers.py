"""The numbers on a report: areas, calibration, where a decision is made, spectra, comparisons of runs."""

import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from echograd.workbench import report
from echograd.workbench.data import Dataset, Split
from echograd.workbench.report import _attribution, _comparison, _curves, _hard, _pairs, _rankings, _spectrum, _where
from echograd.workbench.report._calibration import calibration
from echograd.workbench.report._examples import log_odds, probabilities
from echograd.workbench.report._page import Page
from echograd.workbench.training import Config, Network, Optimiser, fit, initial_model

# Runs have their own precision, and the rest is NumPy: one leg is enough.
pytestmark = [pytest.mark.least_effort, pytest.mark.precision_free]

STEPS, BUMP = 32, slice(12, 16)
PLANTED = Config(
    "bumps",
    network=Network(hidden=8, units=8, blocks=1, dropout=0.0),
    optimiser=Optimiser(learning_rate=3e-2),
    epochs=12,
    batch_size=16,
    precision="float64",
)


def bumps(cases=48, seed=0):
    """Noise (class 0), or noise with a bump in steps 12 to 15 of the first channel (class 1)."""
    rng = np.random.default_rng(seed)

    def split():
        targets = (np.arange(cases) % 2).astype(np.int32)
        inputs = 0.2 * rng.normal(size=(cases, STEPS, 2)).astype(np.float32)
        inputs[targets == 1, BUMP, 0] += 2
        return Split(inputs, targets, np.full(cases, STEPS, np.int32))

    about = {"description": "", "source": "", "licence": ""}
    names = ("flat", "bump")
    return Dataset("bumps", split(), split(), split(), "classification", names, ("a", "b"), 8.0, **about)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(folder):
    run = fit(PLANTED, bumps(), out=folder / "planted")
    assert run.results["test"]["accuracy"] > 0.9
    return run


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch):
    """Make figures, but not their pixels."""
    monkeypatch.setattr("echograd.plot.png", lambda _: b"png")


def test_areas_are_those_of_a_count_over_all_pairs():
    rng = np.random.default_rng(1)
    positive = rng.random(60) < 0.3
    scores = np.round(rng.normal(size=60) + positive, 1)  # with ties
    assert len(np.unique(scores)) < 60
    found = _rankings.ranking(scores, positive)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert found.roc_area == pytest.approx(np.mean(pairs), abs=1e-12)
    area, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = scores >= threshold
        recall = (taken & positive).sum() / positive.sum()
        area += (recall - before) * (taken & positive).sum() / taken.sum()
        before = recall
    assert found.average_precision == pytest.approx(area, abs=1e-12)
    assert found.share == positive.mean()


def test_perfect_and_useless_scores():
    positive = np.array([True, True, False, False])
    best = _rankings.ranking(np.array([4.0, 3.0, 2.0, 1.0]), positive)
    assert (best.roc_area, best.average_precision) == (1, 1)
    same = _rankings.ranking(np.zeros(4), positive)
    assert (same.roc_area, same.average_precision) == (0.5, 0.5)
    worst = _rankings.ranking(np.array([1.0, 2.0, 3.0, 4.0]), positive)
    assert worst.roc_area == 0
    assert _rankings.ranking(np.zeros(3), np.ones(3, bool)) is None
    assert _rankings.ranking(np.zeros(3), np.zeros(3, bool)) is None


def test_log_odds_tell_probabilities_close_to_one_apart():
    logits = np.array([[60.0, 0.0, 0.0], [50.0, 0.0, 0.0], [1.0, 2.0, 3.0]])
    p = probabilities(logits)
    assert p[0, 0] == p[1, 0] == 1
    odds = log_odds(logits)
    assert odds[0, 0] - odds[1, 0] == pytest.approx(10)
    np.testing.assert_allclose(odds[2], np.log(p[2] / (1 - p[2])))
    np.testing.assert_allclose(
        _hard.losses(logits, np.array([1, 0, 2]))[[0, 2]], [60 + np.log1p(1e-26), -np.log(p[2, 2])]
    )


def test_calibration_of_a_hand_example():
    confidence = np.array([0.55, 0.55, 0.95, 0.95, 0.95, 1.0])
    right = np.array([True, False, True, True, False, True])
    found = calibration(confidence, right)
    np.testing.assert_array_equal(found.counts, [0, 0, 0, 0, 0, 2, 0, 0, 0, 4])
    assert found.accuracy[5] == 0.5
    assert found.accuracy[9] == 0.75
    assert found.confidence[9] == pytest.approx(0.9625)
    assert found.error == pytest.approx((2 * 0.05 + 4 * 0.2125) / 6)
    assert found.excess == pytest.approx(confidence.mean() - right.mean())


def test_mcnemar_of_a_hand_example():
    first = np.array([True] * 5 + [True] * 9 + [False] * 1 + [False] * 2)
    second = np.array([True] * 5 + [False] * 9 + [True] * 1 + [False] * 2)
    found = _pairs.Agreement.of(first, second)
    assert dataclasses.astuple(found) == (5, 9, 1, 2)
    assert found.p_value == pytest.approx(2 * (1 + 10) / 2**10)
    assert _pairs.Agreement.of(first, first).p_value == 1
    assert _pairs.sign_test(3000, 0) == pytest.approx(0, abs=1e-300)


def test_masking_finds_what_a_score_looks_at():
    """A score that reads steps 12 to 15 of one channel; only their windows have an effect, which is known."""
    case = bumps().test.take(np.array([1]))
    edges = _attribution.window_edges(STEPS)
    assert (edges[0], edges[-1], len(edges)) == (0, STEPS, STEPS + 1)
    neutral = np.array([0.25, -1], np.float32)
    effect = _attribution.occlusion(lambda split: split.inputs[:, BUMP, 0].sum(1), case, edges[::4], neutral)
    expected = np.zeros(8)
    expected[3] = case.inputs[0, BUMP, 0].sum() - 4 * 0.25
    np.testing.assert_allclose(effect, expected, rtol=0, atol=1e-5)
    assert expected[3] > 4


def test_the_planted_bump_is_found(run, monkeypatch):
    """Both maps of a trained model: the bump raises the probability of its class, more than any other window."""
    monkeypatch.setattr(_attribution, "WINDOWS", 8)
    outputs, targets = run.predict("test"), run.dataset.test.targets
    found = [one for one in _where.decisions(run, outputs) if targets[one.case] == outputs[one.case].argmax() == 1]
    assert found
    for decision in found:
        assert set(decision.strips) == {"masking", "gradient"}
        for effect in decision.strips.values():
            best = int(np.argmax(np.abs(effect)))
            assert (decision.edges[best], decision.edges[best + 1]) == (BUMP.start, BUMP.stop), decision
            assert effect[best] > 0


def test_the_gradient_is_the_first_order_of_masking(run):
    """The slope of the probability along the way to a slightly masked window, by differences."""
    cases, edges = run.prepared.test.take(np.array([0, 1])), _attribution.window_edges(STEPS)[::8]
    found = _attribution.gradient_times_input(run, cases, [edges, edges])
    neutral = _attribution.channel_means(run.prepared.train)
    with jax.enable_x64(True):
        for i, effect in enumerate(found):
            x = cases.inputs[i].astype(float)
            for window, (start, stop) in enumerate(itertools.pairwise(edges)):
                way = np.zeros_like(x)
                way[start:stop] = x[start:stop] - neutral
                pair = jnp.asarray(np.stack([x + 1e-4 * way, x - 1e-4 * way]))
                p = probabilities(np.asarray(run.model(pair, run.state)[0]))[:, cases.targets[i]]
                assert effect[window] == pytest.approx((p[0] - p[1]) / 2e-4, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("kind", ["linear", "nonlinear", "damped"])
def test_a_spectrum_is_that_of_one_step(kind):
    """Angles and decays against the eigenvalues of a step near rest."""
    with jax.enable_x64(True):
        config = dataclasses.replace(PLANTED, model=kind)
        model, _ = initial_model(config, bumps())
        (found,) = _spectrum.spectra(model)
        system = model.blocks[0].unit.system
        shape = (2, 8)

        def step(z):
            q, p = system.step((jnp.full(shape, z[0]), jnp.full(shape, z[1])), jnp.zeros(shape))
            return jnp.stack([q[0], p[0]])

        matrices = np.moveaxis(np.asarray(jax.jacfwd(step)(jnp.zeros(2))), 1, 0)
    values = np.linalg.eigvals(matrices)[:, 0]
    np.testing.assert_allclose(found.angle, np.abs(np.angle(values)), rtol=1e-6)
    decay = np.zeros(8) if found.decay is None else found.decay
    np.testing.assert_allclose(decay, -np.log(np.abs(values)), rtol=1e-6, atol=1e-9)
    assert (found.decay is None) == (kind != "damped")


def test_training_moves_the_oscillators(run):
    before, after = _spectrum.before_and_after(run)
    untrained, _ = initial_model(run.config, run.dataset)
    np.testing.assert_allclose(before[0].angle, np.asarray(untrained.blocks[0].unit.system.angle), rtol=1e-6)
    assert np.abs(after[0].angle / before[0].angle - 1).max() > 1e-2
    assert _spectrum.rate_of(run, run.model) == 8


def test_hard_cases_are_those_of_largest_loss(run):
    logits, targets = np.array([[4.0, 0.0], [3.0, 0.0], [0.0, 1.0]]), np.array([1, 0, 0], np.int32)
    test = Split(np.zeros((3, 4, 2), np.float32), targets, np.full(3, 4, np.int32))
    data = dataclasses.replace(bumps(), train=test, validation=None, test=test)
    page = Page("a run")
    _hard.hard_cases(page, types.SimpleNamespace(dataset=data), logits)
    text = page.html()
    assert "wrong in 2 of 3 test cases" in text
    assert "In 1 of them" in text
    rows = [row for row in text.split("<tr>") if "<td>" in row]
    assert [row.count("flat") for row in rows] == [1, 1]
    assert "0.018" in rows[0]  # p(true) of the case of largest loss comes first
    assert "4.02" in rows[0]
    assert "1.31" in rows[1]
    page = Page("a run")
    _hard.hard_cases(page, types.SimpleNamespace(dataset=data), 9 * np.eye(2)[targets])
    assert "no hard cases" in page.html()


def test_many_classes_and_classes_without_cases():
    rng = np.random.default_rng(0)
    names = tuple(f"class ${i}$" for i in range(52))
    targets = rng.integers(0, 50, 300)
    found = _rankings.rankings(rng.normal(size=(300, 52)) + 2 * np.eye(52)[targets], targets)
    assert found[50] is found[51] is None
    page = Page("many")
    _curves.rates(page, types.SimpleNamespace(class_names=names), found)
    assert [drawing.name for drawing in page.drawings] == ["roc", "precision-recall"]
    assert "4 classes of smallest area" in page.html()


@pytest.fixture(scope="module")
def others(folder, run):
    """The same settings with another seed, other settings, and a run that was interrupted."""
    short = dataclasses.replace(PLANTED, epochs=2)

    class Stop(BaseException):
        pass

    def stop(progress):
        if progress.epoch == 2:
            raise Stop

    seeds = [fit(dataclasses.replace(short, seed=seed), bumps(), out=folder / f"seed{seed}") for seed in (1, 2)]
    plain = fit(dataclasses.replace(short, class_weights=False, seed=1), bumps(), out=folder / "plain")
    with pytest.raises(Stop):
        fit(dataclasses.replace(short, seed=3), bumps(), out=folder / "half", progress=stop)
    half = type(run).open(folder / "half", bumps())
    assert not half.finished
    return [*seeds, plain, half]


def test_runs_side_by_side(others, tmp_path):
    said = []
    path = report.compare(others, tmp_path / "all.html", title="Four <runs>", say=said.append)
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "all.html"
    assert len(said) == 3
    assert "Four &lt;runs&gt;" in text
    for words in ("class_weights", "seed1", "plain", "Not finished", "half", "McNemar", "only A"):
        assert words in text
    first, second = (run.results["test"]["balanced_accuracy"] for run in others[:2])
    assert f"{np.mean([first, second]):.3f} ± {np.std([first, second], ddof=1):.3f}" in text
    right = [run.predict("test").argmax(1) == run.dataset.test.targets for run in others[:3]]
    for a, b in itertools.combinations(range(3), 2):
        only = np.sum(right[a] & ~right[b]), np.sum(~right[a] & right[b])
        cells = "".join(f'<td class="number">{n}</td>' for n in (np.sum(right[a] & right[b]), *only))
        assert cells in text
    assert (tmp_path / "figures" / "compare-loss.png").is_file()
    assert report.compare(others[:2], tmp_path).name == "comparison.html"


def test_groups_are_runs_that_differ_in_the_seed(others):
    compared = _comparison.Compared.of(others)
    assert list(compared.groups.values()) == [[0, 1, 3], [2]]
    assert compared.differing == ["class_weights", "seed"]
    assert compared.names == ["seed1", "seed2", "plain", "half"]
    assert _comparison.mean_and_deviation([0.5]) == "0.500"
    assert _comparison.mean_and_deviation([0.5, 0.7]) == "0.600 ± 0.141"


def test_wrong_runs_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match="pass at least two"):
        report.compare([run])
    with pytest.raises(TypeError, match=r"report\.write"):
        report.compare(run)
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(FileExistsError, match="was not written by echograd"):
        report.compare([run, run], tmp_path / "mine.html")


def test_a_run_that_is_not_finished_has_a_page(others, tmp_path):
    text = report.write(others[3], tmp_path / "half.html").read_text(encoding="utf-8")
    assert "Training is not finished: 1 epoch of 2" in text
    assert "How to repeat it" in text
    assert f"{others[3].history()[0]['validation']['accuracy']:.3f}" in text
