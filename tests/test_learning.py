"""Hamiltonian echo backpropagation: exact in the averaged form, with a systematic error in the simple form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import chain, solve
from echograd.systems import KerrLattice

pytestmark = pytest.mark.least_effort

AMPLITUDE = 16 / 25 * (0.4 + 14 / 39)  # one of the published scan
PATTERNS = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def cavity_array(kappa=0.3, hopping=10.0, kerr=-2.0):
    """Four modes coupled to the corners of a 4 x 4 lattice, as published."""
    line = np.eye(4, k=1) + np.eye(4, k=-1)
    k = np.zeros((20, 20))
    k[4:, 4:] = hopping * (np.kron(line, np.eye(4)) + np.kron(np.eye(4), line))
    for mode, site in enumerate((0, 3, 12, 15)):
        k[mode, 4 + site] = k[4 + site, mode] = kappa
    return KerrLattice(k, 0.0, kerr)


def distance(q, p, target):
    """Squared distance of the last mode from its target, a real amplitude."""
    return 0.5 * ((q[3] - 2**0.5 * target) ** 2 + p[3] ** 2)


def example(pattern):
    psi = jnp.zeros(4, complex).at[:2].set((AMPLITUDE * pattern).astype(complex))
    return eg.canonical(psi), 0.5 * AMPLITUDE * pattern[0] * pattern[1]


def machine(**options):
    return eg.SelfLearningMachine(cavity_array(), distance, dt=20 / 500, steps=500, **options)


def field():
    amplitudes = np.random.default_rng(0).uniform(size=16)
    return eg.canonical(jnp.asarray(amplitudes / np.linalg.norm(amplitudes)))


@pytest.mark.float64_only
def test_the_gradient_of_the_cavity_array():
    """At the published strength and mass, and at a mass where the error of the simple form is large."""
    evaluation, target = example(PATTERNS[1])
    start = field()

    @jax.jit
    def cost(theta):
        return distance(*machine().run((theta, start[1]), evaluation)[1], target)

    @eqx.filter_jit
    def measured(mass):
        forms = (machine(eta=1e-4, mass=mass, averaged=averaged) for averaged in (False, True))
        return [form.gradient(start, evaluation, target) for form in forms]

    # By finite differences with the published step, at all sites.
    exact = jnp.stack([(cost(start[0] + h) - cost(start[0] - h)) / 2e-5 for h in 1e-5 * jnp.eye(16)])
    errors = {
        mass: [float(jnp.linalg.norm(x - exact) / jnp.linalg.norm(exact)) for x in measured(jnp.asarray(mass))]
        for mass in (1e-3, 1.0)
    }
    simple, averaged = errors[1e-3]
    assert averaged < 1e-6 < 1e-4 < simple
    simple, averaged = errors[1.0]
    assert averaged < 1e-3 < 0.5 < simple


@pytest.mark.float64_only
def test_xor_is_learned_bit_by_bit():
    """At the published mass, until all four answers are right and the machine retraces its path."""
    teacher = machine(mass=1 / 300)

    def show(field, pattern):
        lesson = teacher.learn(field, *example(pattern))
        return lesson.field, (lesson.cost, lesson.retrace)

    @eqx.filter_jit
    def rounds(start):
        return jax.lax.scan(lambda f, _: jax.lax.scan(show, f, PATTERNS), start, None, length=64)

    (_, momentum), (costs, retrace) = rounds(field())
    costs /= (0.5 * AMPLITUDE) ** 2
    assert jnp.max(costs[0]) > 1  # worse than an answer of zero
    assert jnp.max(costs[-8:]) < 0.25**2  # every answer within a quarter of its target
    assert jnp.max(retrace) < 1e-2
    assert jnp.max(jnp.abs(momentum)) < 1e-40  # friction has turned it into displacement


def pushed():
    """A chain, and the cost of where its masses have gone."""
    point = chain()
    return Still(point.system), (point.q, point.p), lambda q, p, target: (q[2] - target) ** 2 + 0.1 * p[0] * q[1]


@pytest.mark.float64_only
def test_it_equals_the_echo_with_the_slopes_of_its_forms():
    """δπ = -η dC/dθ, for the initial parameters of the moving system: Backprop's and Echo's gradient."""
    system, evaluation, cost = pushed()
    moving = eg.MovingParameters(system, 30.0)
    theta, target = moving.parameters(), jnp.asarray(0.7)

    @eqx.filter_jit
    def gradients(theta):
        def loss(theta, gradient):
            start = eg.InitialValue((evaluation[0], theta), (evaluation[1], jax.tree.map(jnp.zeros_like, theta)))
            sol = solve(moving, start, dt=0.1, steps=20, gradient=gradient, save=eg.FinalNode())
            return cost(sol.q[0], sol.p[0], target)

        return [jax.grad(loss)(theta, gradient) for gradient in (eg.Backprop(), eg.Echo())]

    @eqx.filter_jit
    def errors(eta):
        teacher = eg.SelfLearningMachine(moving, cost, dt=0.1, steps=20, mass=30.0)
        rest = teacher.rest(theta)
        up, down = (teacher.echo(rest, evaluation, target, sign * eta) for sign in (1, -1))
        momentum, back = jnp.concatenate(up.field[1]), jnp.concatenate(down.field[1])
        teacher = eg.SelfLearningMachine(moving, cost, dt=0.1, steps=20, eta=eta, mass=30.0)
        averaged = jnp.concatenate(teacher.gradient(rest, evaluation, target))
        found = (-momentum / eta, (back - momentum) / (2 * eta), averaged)
        return jnp.stack([*(jnp.linalg.norm(x - exact) for x in found), up.retrace])

    exact, echo = (jnp.concatenate(x) for x in gradients(theta))
    np.testing.assert_allclose(echo, exact, rtol=1e-9)
    slopes = np.log2(errors(jnp.asarray(0.02)) / errors(jnp.asarray(0.01)))
    # One echo; the difference of two; the displacement by two, whose error cancels to first order; the retrace error.
    np.testing.assert_allclose(slopes, [1, 2, 1, 1], atol=0.15)


class Still(eg.SeparableHamiltonian):
    """The chain without its drive."""

    chain: eg.SeparableHamiltonian

    def kinetic(self, t, p):
        return self.chain.kinetic(t, p)

    def potential(self, t, q, u):
        return self.chain.potential(t, q, jnp.zeros(()))


@pytest.mark.float64_only
def test_a_light_parameter_leaks_and_the_average_cancels_it():
    """The lighter the parameter, the more the cost depends on its momentum."""
    still, evaluation, cost = pushed()
    target = jnp.asarray(0.7)

    @eqx.filter_jit
    def errors(mass):
        moving = eg.MovingParameters(still, mass)
        theta = moving.parameters()

        def loss(theta):
            teacher = eg.SelfLearningMachine(moving, cost, dt=0.1, steps=20)
            return cost(*teacher.run(teacher.rest(theta), evaluation)[1], target)

        exact = jnp.concatenate(jax.grad(loss)(theta))
        found = []
        for averaged in (False, True):
            teacher = eg.SelfLearningMachine(moving, cost, dt=0.1, steps=20, eta=1e-4, mass=mass, averaged=averaged)
            found.append(jnp.concatenate(teacher.gradient(teacher.rest(theta), evaluation, target)))
        return [jnp.linalg.norm(x - exact) / jnp.linalg.norm(exact) for x in found]

    for mass in (3.0, 300.0):
        simple, averaged = errors(jnp.asarray(mass))
        assert averaged < 1e-4
        assert simple > 0.1  # with equal masses in motion and decay, the error is of order T for any mass


@pytest.mark.float64_only
def test_a_machine_that_does_not_retrace_says_so():
    ring = np.array([[0, np.exp(0.5j), 0, 1], [np.exp(-0.5j), 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])
    retraces = []
    for reflection in ([1, 0, 3, 2], None):
        lattice = KerrLattice(ring, 0.1, 0.5, reflection=reflection)
        teacher = eg.SelfLearningMachine(lattice, lambda q, p, x: (q[0] - x) ** 2, dt=0.1, steps=10)
        start = teacher.rest(jnp.asarray([0.4, -0.3]))
        lesson = eqx.filter_jit(teacher.learn)(start, (jnp.ones(2), jnp.zeros(2)), 0.1)
        retraces.append(lesson.retrace)
    assert retraces[0] < 1e-3
    assert retraces[1] > 1e-2
    with pytest.raises(eqx.EquinoxRuntimeError, match="does not run back along its path"):
        teacher.gradient(start, (jnp.ones(2), jnp.zeros(2)), 0.1)


class Pulsed(eg.SeparableHamiltonian):
    """A spring that a pulse stiffens at some time of a run that lasts 2."""

    stiffness: jax.Array
    at: float = eqx.field(static=True)

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        return 0.5 * jnp.sum(self.stiffness * q**2) * (1 + jnp.exp(-((t - self.at) ** 2)))


@pytest.mark.float64_only
def test_a_pulse_must_be_the_same_on_the_way_back():
    evaluation, cost = (jnp.asarray([0.4]), jnp.asarray([0.2])), lambda q, p, target: jnp.sum((q - target) ** 2)

    def gradients(at):
        moving = eg.MovingParameters(Pulsed(jnp.asarray([1.3]), at), mass=1e9)
        teacher = eg.SelfLearningMachine(moving, cost, dt=0.1, steps=20, eta=1e-5)

        def loss(system):
            sol = solve(system, eg.InitialValue(*evaluation), dt=0.1, steps=20, gradient=eg.Backprop())
            return cost(sol.q[-1], sol.p[-1], 0.5)

        return teacher.gradient(teacher.rest(moving.parameters()), evaluation, 0.5), jax.grad(loss)(moving.system)

    found, expected = gradients(1.0)
    assert np.allclose(found[0], expected.stiffness, rtol=1e-6)
    with pytest.raises(eqx.EquinoxRuntimeError, match="symmetrically about half the run"):
        gradients(0.7)


def test_a_lesson_without_a_kick_is_refused():
    """A target that is NaN, a cost without a slope, and costs that are not one number."""
    moving = eg.MovingParameters(Pulsed(jnp.ones(1), 0.0), 1.0)
    evaluation = jnp.ones(1), jnp.zeros(1)

    def learn(cost, target=0.5):
        student = eg.SelfLearningMachine(moving, cost, dt=0.1, steps=2, averaged=False)
        return student.learn(student.rest(moving.parameters()), evaluation, target)

    def off(q, p, target):
        return jnp.sum((q - target) ** 2)

    assert jnp.isfinite(learn(off).cost)
    for cost, target in ((off, jnp.nan), (lambda q, p, target: jnp.sqrt(jnp.sum((0 * q) ** 2)), 0.5)):
        with pytest.raises(eqx.EquinoxRuntimeError, match="the cost of the output or its slope is not finite"):
            learn(cost, target)
    for cost in (lambda q, p, target: q, lambda q, p, target: 1, lambda q, p, target: None):
        with pytest.raises(ValueError, match="must return one real number, but returned"):
            learn(cost)


def test_what_makes_no_machine():
    for name in ("eta", "mass"):
        with pytest.raises(ValueError, match=f"{name}=0.0"):
            machine(**{name: 0})
    with pytest.raises(ValueError, match="friction"):
        machine(friction=0.0)
    with pytest.raises(TypeError, match="not a function"):
        eg.SelfLearningMachine(cavity_array(), 1.0, dt=0.1, steps=1)
    with pytest.raises(eqx.EquinoxRuntimeError, match="finite and not zero"):
        eqx.filter_jit(lambda eta: machine(eta=eta).eta)(jnp.zeros(()))
    with pytest.raises(TypeError, match="not a Hamiltonian"):
        eg.SelfLearningMachine("lattice", distance, dt=0.1, steps=1)
    for mass in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be positive"):
            eg.MovingParameters(chain(), mass)
    with pytest.raises(TypeError, match="pair"):
        machine().run(jnp.ones(16), example(PATTERNS[0])[0])
    moving = eg.MovingParameters(Pulsed(jnp.ones(1), 0.0), 1.0)
    with pytest.raises(ValueError, match="but the moving parameters have shapes"):
        moving.at([jnp.ones(2)])
