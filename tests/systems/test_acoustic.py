"""Acoustic waves: exact gradients through an absorbing border, accuracy, reflection, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd.friction import Border
from echograd.systems import AcousticField

pytestmark = [pytest.mark.least_effort]


def field_of(shape, order, density, surface):
    rng = np.random.default_rng(0)
    axes = len(shape)
    return AcousticField(
        jnp.asarray(1500 + 300 * rng.random(shape)),
        10.0,
        order=order,
        density=jnp.asarray(1 + 0.3 * rng.random(shape)) if density else None,
        sources=[[33.0, 41.0, 52.0][:axes], [60.0, 51.0, 35.0][:axes]],
        receivers=[[61.0, 22.0, 33.0][:axes], [25.0, 55.0, 44.0][:axes]],
        free_surface=surface,
    )


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("shape", "order", "density", "surface"), [((10, 8), 4, False, False), ((9, 7, 8), 8, True, True)]
)
def test_rewinding_through_the_border_is_exact_for_every_leaf(shape, order, density, surface):
    field = field_of(shape, order, density, surface)
    sides = [(axis, end) for axis in range(len(shape)) for end in (0, 1) if not surface or (axis, end) != (0, 0)]
    damped = eg.Damped(field, Border.quadratic(3, 1800.0, 10.0, sides, nepers=1.5))
    rng = np.random.default_rng(1)
    q, p = (jnp.asarray(0.1 * rng.normal(size=shape)) for _ in "qp")

    def loss(arguments, rule):
        damped, q, p, u, dt = arguments
        saved = eg.solve(
            damped, eg.InitialValue(q, p), u, dt=dt, integrator=eg.Leapfrog(exact=True, bits=40), gradient=rule,
            save=lambda t, q, p: damped.system.received(q),
        ).saved  # fmt: skip
        return jnp.sum(jnp.sin(saved) * jnp.arange(1.0, 26.0)[:, None])

    @eqx.filter_jit
    def gradients(arguments):
        return [eqx.filter_grad(loss)(arguments, rule) for rule in (eg.Rewind(), eg.Backprop())]

    arguments = damped, q, p, jnp.asarray(0.1 * rng.normal(size=(24, 2))), jnp.asarray(0.002)
    found, expected = gradients(arguments)
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    assert len(pairs) == 8 + density
    assert all(np.linalg.norm(b) > 0 and np.linalg.norm(a - b) <= 1e-9 * np.linalg.norm(b) for a, b in pairs)


@pytest.mark.float64_only
@pytest.mark.parametrize("density", [False, True])
@pytest.mark.parametrize("order", [2, 4, 8])
def test_the_frequency_of_a_standing_wave_has_the_order_of_the_differences(order, density):
    """A mode between two free surfaces across the first axis; the last row is far from the odd continuation."""

    def error(n):
        length, k = 1.0, 3
        spacing = length / (n + 1)
        speed = jnp.full((n, n), 2.0)
        field = AcousticField(speed, spacing, order=order, density=jnp.ones((n, n)) if density else None)
        x = spacing * jnp.arange(1.0, n + 1.0)
        mode = jnp.sin(k * jnp.pi * x)[:, None] * jnp.sin(k * jnp.pi * x)[None]
        force = jax.grad(lambda q: field.potential(0.0, q, None))(mode) / (field.reference * spacing)
        inside = slice(n // 4, -(n // 4))
        exact = 2 * (k * jnp.pi) ** 2 * mode
        return jnp.max(jnp.abs(force - exact)[inside, inside]) / jnp.max(exact)

    coarse, fine = error(31), error(63)
    assert coarse < {2: 0.05, 4: 0.005, 8: 1e-4}[order]
    assert np.log2(coarse / fine) > order - 0.4


@pytest.mark.float64_only
@pytest.mark.parametrize("order", [4, 8])
def test_the_free_surface_keeps_the_order_at_the_first_row(order):
    def error(n):
        spacing = 1.0 / (n + 1)
        field = AcousticField(jnp.ones((n, n)), spacing, order=order, free_surface=True)
        x = spacing * jnp.arange(1.0, n + 1.0)
        mode = jnp.sin(3 * x)[:, None] * jnp.ones((1, n))
        force = jax.grad(lambda q: field.potential(0.0, q, None))(mode) / (field.reference * spacing)
        middle = n // 2
        return jnp.max(jnp.abs(force[:6, middle] - 9 * mode[:6, middle]))

    assert error(20) < {4: 1e-4, 8: 1e-8}[order]
    assert np.log2(error(10) / error(20)) > order - 0.5


def reflected(wavelength):
    """Return the reflection of 20 cells in dB at this wavelength in cells, at normal incidence."""
    steps, n = 1000, 160
    times = 0.5 * np.arange(steps)
    phase = np.pi * (times / 10.0 - 1.5)
    pulse = jnp.asarray(((1 - 2 * phase**2) * np.exp(-(phase**2)))[:, None])

    def trace(longer):
        shape = (n + 20 + longer, 1)
        field = AcousticField(jnp.ones(shape), 1.0, sources=[[80.0, 0.0]], receivers=[[140.0, 0.0]], reference=1.0)
        border = Border.quadratic(20, 1.0, 1.0, [(0, 1)])
        system = eg.Damped(Slab(field), border)
        rest = eg.InitialValue(jnp.zeros(shape), jnp.zeros(shape))
        save = lambda t, q, p: q[140, 0]  # noqa: E731
        sol = eg.solve(system, rest, pulse, dt=0.5, integrator=eg.Leapfrog(), gradient=eg.Backprop(), save=save)
        return np.gradient(np.asarray(sol.saved))

    short, long = trace(0), trace(400)
    spectrum = lambda x: np.abs(np.fft.rfft(x, 8 * steps))  # noqa: E731
    i = np.argmin(np.abs(np.fft.rfftfreq(8 * steps, 0.5) - 1 / wavelength))
    return 20 * np.log10(spectrum(short - long)[i] / spectrum(long)[i])


class Slab(eg.SeparableHamiltonian):
    """Plane waves along the first axis: the field of one column, without the walls beside it."""

    field: AcousticField

    def kinetic(self, t, p):
        return self.field.kinetic(t, p)

    def potential(self, t, q, u):
        # The walls at both sides of a single column add 5/2 q per cell at order 4.
        return self.field.potential(t, q, None) - 0.5 * 2.5 * jnp.sum(q**2) - u[0] * q[80, 0]


@pytest.mark.float64_only
def test_a_border_of_20_cells_reflects_less_than_minus_50_db():
    assert max(reflected(wavelength) for wavelength in (5, 8, 10)) < -50


def test_interpolated_sources_and_receivers():
    field = field_of((10, 8), 4, False, False)
    rows, columns = jnp.meshgrid(10.0 * jnp.arange(10.0), 10.0 * jnp.arange(8.0), indexing="ij")
    plane = 2.0 * rows - 3.0 * columns + 1.0
    expected = [2 * x - 3 * y + 1 for x, y in ((61.0, 22.0), (25.0, 55.0))]
    assert np.allclose(field.received(plane), expected, rtol=1e-5)
    force = jax.grad(lambda q: -field.potential(0.0, q, jnp.asarray([1.0, 0.0])))(jnp.zeros((10, 8)))
    moments = jnp.sum(force * rows) / jnp.sum(force), jnp.sum(force * columns) / jnp.sum(force)
    assert np.allclose(moments, (33.0, 41.0), rtol=1e-5)
    assert np.isclose(jnp.sum(force), field.reference * field.spacing / field.spacing**2, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda f: f.resolution(0.004, 10.0), "Courant number c dt / spacing is 0.7"),
        (lambda f: f.resolution(0.001, 60.0), "points per shortest wavelength, and differences of order 4 need 5"),
        (lambda f: AcousticField(jnp.ones((4, 4)), sources=[[5.0, 1.0]]), "outside of the grid"),
        (lambda f: AcousticField(jnp.ones(4)), "two or three axes"),
        (lambda f: AcousticField(jnp.ones((4, 4)), order=6), "order 2, 4 and 8"),
        (lambda f: AcousticField(jnp.ones((4, 4))).received(jnp.ones((4, 4))), "no receivers"),
        (lambda f: f.potential(0.0, jnp.ones((10, 8)), jnp.ones(3)), "2 sources"),
        (lambda f: jax.jit(lambda c: AcousticField(c).speed)(jnp.ones((4, 4))), "Pass reference="),
        (lambda f: eg.Damped(f, Border([0.1] * 6)).over_one_step(jnp.asarray(0.1), jnp.ones((10, 8))), "do not fit"),
    ],
)
def test_refusals(make, says):
    with pytest.raises(eg.ArgumentError, match=says):
        make(field_of((10, 8), 4, False, False))


def test_strips_cover_the_border_once():
    """The same rates for all momenta give the same run."""
    pond = eg.systems.WaveField(jnp.ones((9, 8)))
    rates = jnp.asarray([0.1, 0.3])
    rows, columns = np.zeros(9), np.zeros(8)
    rows[:2] += [0.3, 0.1]
    rows[-2:] += [0.1, 0.3]
    columns[-2:] += [0.1, 0.3]
    border = Border(rates, sides=[(0, 0), (0, 1), (1, 1)])
    start = eg.InitialValue(*pond.start())
    options = {"dt": 0.3, "steps": 30, "integrator": eg.Leapfrog(exact=True, bits=18)}
    strips = eg.solve(eg.Damped(pond, border), start, **options)
    whole = eg.solve(eg.Damped(pond, jnp.asarray(rows[:, None] + columns[None])), start, **options)
    assert jnp.allclose(strips.q, whole.q, atol=1e-4)
    assert float(jnp.abs(strips.q[-1]).max()) > 1e-3
