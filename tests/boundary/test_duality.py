"""The algebra of boundary conditions: duals, defects, and errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import echograd as eg
from conftest import X64

pytestmark = [pytest.mark.fast, pytest.mark.least_effort]

TOLERANCE = 1e-10 if X64 else 2e-4


def random_rows(seed, n):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(2 * n, 4 * n)))


def dual_rows(rows):
    return eg.dual(eg.LinearBoundary(rows, jnp.zeros(len(rows)))).B


def projector(rows):
    """The projector on a row space: equal for equal conditions."""
    q = np.linalg.qr(np.asarray(rows).T)[0]
    return q @ q.T


def null(rows):
    return np.linalg.svd(np.asarray(rows))[2][len(rows) :].T


@given(seed=st.integers(0, 10_000), n=st.integers(1, 3))
def test_the_dual_is_the_symplectic_complement(seed, n):
    rows = random_rows(seed, n)
    dual = dual_rows(rows)
    assert dual.shape == rows.shape
    assert np.linalg.matrix_rank(np.asarray(dual)) == 2 * n
    # The variations that one allows are Ω-orthogonal to those of the other, ...
    form = np.kron(np.kron([[-1, 0], [0, 1]], [[0, -1], [1, 0]]), np.eye(n))
    assert np.abs(null(rows).T @ form @ null(dual)).max() < TOLERANCE
    # ... and the dual of the dual is the condition.
    np.testing.assert_allclose(projector(dual_rows(dual)), projector(rows), atol=TOLERANCE)


@given(seed=st.integers(0, 10_000), n=st.integers(1, 3))
def test_the_defect_is_zero_if_and_only_if_self_dual(seed, n):
    rng = np.random.default_rng(seed)
    # p = ±K q with symmetric K at both ends, under a random symplectic shear: Lagrangian.
    k = rng.normal(size=(2, n, n))
    k = k + k.transpose(0, 2, 1)
    robin = eg.Robin(jnp.asarray(k[0]), jnp.asarray(k[1]))
    assert eg.defect(robin) < TOLERANCE
    if n > 1:
        skew = rng.normal(size=(n, n))
        other = eg.Robin(jnp.asarray(k[0] + skew - skew.T), jnp.asarray(k[1]))
        assert eg.defect(other) > 1e-3
    generic = eg.LinearBoundary(random_rows(seed, n), jnp.zeros(2 * n))
    own = np.abs(projector(dual_rows(generic.B)) - projector(generic.B)).max() < TOLERANCE
    assert own == bool(eg.defect(generic) < TOLERANCE)


Q = {"a": jnp.ones(2), "b": jnp.ones(())}


@pytest.mark.parametrize(
    ("boundary", "defect"),
    [
        (eg.InitialValue(Q, Q), 1),
        (eg.InitialValue(Q, v=Q), 1),
        (eg.FinalValue(Q, Q), 1),
        (eg.FixedEnds(Q, Q), 0),
        (eg.FreeEnds(), 0),
        (eg.FreeEnds(p0=Q), 0),
        (eg.MixedEnds(Q, Q), 0),
        (eg.MixedEnds(p0=Q, qN=Q), 0),
        (eg.Periodic(), 0),
        (eg.Periodic(-1), 0),
        (eg.Periodic([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), 0),
        (eg.Robin(0.3, -2.0), 0),
    ],
    ids=lambda x: type(x).__name__,
)
def test_the_defect_of_every_named_condition(boundary, defect):
    assert abs(float(eg.defect(boundary, like=Q)) - defect) < 1e-6


def test_initial_and_final_values_are_dual():
    start, stop = (jnp.asarray([1.0]), jnp.asarray([2.0])), (jnp.asarray([3.0]), jnp.asarray([4.0]))
    final = eg.dual(eg.InitialValue(*start), ends=(start, stop))
    assert isinstance(final, eg.FinalValue)
    assert (final.q, final.p) == stop
    initial = eg.dual(final, ends=(start, stop))
    assert isinstance(initial, eg.InitialValue)
    assert (initial.q, initial.p) == start
    rows = eg.dual(eg.InitialValue(*start)).B
    np.testing.assert_allclose(projector(rows), np.diag([0.0, 0, 1, 1]), atol=1e-6)
    ends = eg.FixedEnds(start[0], stop[0])
    assert eg.dual(ends) is ends


@pytest.mark.float64_only
def test_the_paper_s_example_that_is_not_its_own_dual():
    identity, zero = jnp.eye(1), jnp.zeros((1, 1))
    rows = jnp.block([[identity, zero, -identity, zero], [zero, identity, zero, -2 * identity]])
    boundary = eg.LinearBoundary(rows, jnp.zeros(2))  # q_0 = q_N, p_0 = 2 p_N
    assert eg.defect(boundary) > 0.1
    # Its dual swaps the factors: 2 q_0 = q_N, p_0 = p_N.
    expected = jnp.block([[2 * identity, zero, -identity, zero], [zero, identity, zero, -identity]])
    np.testing.assert_allclose(projector(eg.dual(boundary).B), projector(expected), atol=1e-6)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: eg.FixedEnds(jnp.ones(2), jnp.ones(3)), "shape"),
        (lambda: eg.FixedEnds({"a": jnp.ones(2)}, jnp.ones(2)), "different structures"),
        (lambda: eg.FreeEnds(jnp.ones(2), jnp.ones(3)), "shape"),
        (lambda: eg.MixedEnds(q0=jnp.ones(2), qN=jnp.ones(2)), "FixedEnds"),
        (lambda: eg.MixedEnds(q0=jnp.ones(2)), "one end and momenta"),
        (lambda: eg.FinalValue(jnp.ones(2)), "exactly one of `p`"),
        (lambda: eg.InitialValue(jnp.ones(2) * 1j, jnp.ones(2)), "complex"),
        (lambda: eg.Periodic(2.0), "LinearBoundary"),
        (lambda: eg.Periodic([[1.0, 1.0], [0.0, 1.0]]), "orthogonal"),
        (lambda: eg.Robin(jnp.ones(3), 1.0), "square matrix"),
        (lambda: eg.LinearBoundary(jnp.ones((2, 3)), jnp.ones(2)), "4n columns"),
        (lambda: eg.LinearBoundary(jnp.eye(2, 4), jnp.ones(3)), "rows"),
        (lambda: eg.LinearBoundary(jnp.ones((2, 4)), jnp.ones(2)), "rank 1"),
        (lambda: eg.LinearBoundary(jnp.full((2, 4), jnp.nan), jnp.ones(2)), "NaN"),
    ],
)
def test_what_cannot_be_a_condition_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
