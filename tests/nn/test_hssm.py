"""State-space models: exact gradients through the stack, masks, streaming, norms, heads."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from echograd.nn import _dropout, _layout, _sequence

pytestmark = pytest.mark.least_effort


def make(gradient=None, **options):
    options = {"hidden": 5, "units": 4, "blocks": 2, "dropout": 0.0} | options
    return eqx.nn.make_with_state(eg.nn.HSSM)(3, 2, gradient=gradient, key=jax.random.key(7), **options)


def batched(model, state, x, mask, keys):
    if any(isinstance(block.norm, eg.nn.BatchNorm) for block in model.blocks):

        def run(x, mask, key):
            return model(x, state, mask=mask, key=key)

        return jax.vmap(run, axis_name="batch", out_axes=(0, None))(x, mask, keys)
    return jax.vmap(lambda x, mask, key: model(x, mask=mask, key=key))(x, mask, keys), state


run_batched = eqx.filter_jit(batched)


@pytest.mark.float64_only
@pytest.mark.parametrize(("unit", "norm"), [("linear", "batch"), ("nonlinear", "layer"), ("damped", "batch")])
def test_the_echo_equals_backprop_for_every_leaf(unit, norm, new_key):
    x = jax.random.normal(new_key(), (4, 30, 3))
    mask = jnp.arange(30)[None] < jnp.asarray([30, 20, 11, 30])[:, None]
    keys = jax.random.split(new_key(), 4)

    @eqx.filter_jit
    def gradient(model, state):
        def loss(arguments):
            model, x = arguments
            logits, _ = batched(model, state, x, mask, keys)
            return -jnp.sum(jax.nn.log_softmax(logits)[:, 0])

        return eqx.filter_grad(loss)((model, x))

    options = {"unit": unit, "norm": norm}
    echo, exact = gradient(*make(None, **options)), gradient(*make(eg.Backprop(), **options))
    errors = {
        jax.tree_util.keystr(path): float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(echo), jax.tree.leaves(exact), strict=True)
    }
    assert max(errors.values()) < 1e-9, errors


@pytest.mark.parametrize(("norm", "unit"), [("layer", "damped"), ("batch", "linear")])
def test_streaming_equals_the_sequence_form(norm, unit, new_key):
    model, state = make(norm=norm, unit=unit)
    x = jax.random.normal(new_key(), (8, 20, 3))
    if norm == "batch":  # update the statistics with one batch first
        _, state = run_batched(model, state, x, jnp.ones((8, 20), bool), None)
    model = eqx.nn.inference_mode(model)
    used = state if norm == "batch" else None

    @eqx.filter_jit
    def stream(model, x):
        """Return logits and state from single steps, and from steps with a chunk in the middle."""
        start = model.initial_state(used)
        mixed, first = jax.lax.scan(model.step, start, x[:4])
        mixed, chunk = model.chunk(mixed, x[4:17])
        mixed, last = jax.lax.scan(model.step, mixed, x[17:])
        state, logits = jax.lax.scan(model.step, start, x)
        return (logits, state), (jnp.concatenate([first, chunk, last]), mixed)

    @eqx.filter_jit
    def sequence(model, x):
        return model(x, used)[0] if norm == "batch" else model(x)

    def streamed_logits(model, x):
        single, mixed = stream(model, x)
        for a, b in zip(jax.tree.leaves(mixed), jax.tree.leaves(single), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        return single[0]

    streamed = streamed_logits(model, x[0])
    for steps in (1, 7, 20):
        whole = sequence(model, x[0, :steps])
        np.testing.assert_allclose(streamed[steps - 1], whole, rtol=1e-4, atol=1e-5)

    if norm == "batch":
        return
    model, _ = make(head="regression", every=5)
    streamed, logits = streamed_logits(model, x[0]), sequence(model, x[0])
    assert logits.shape == (4, 2)
    np.testing.assert_allclose(streamed[4::5], logits, rtol=1e-4, atol=1e-5)


@pytest.mark.float64_only
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_a_batch_is_what_vmap_makes_of_it(norm, new_key):
    model, state = make(norm=norm)
    x = jax.random.normal(new_key(), (4, 30, 3))
    mask = jnp.arange(30)[None] < jnp.asarray([30, 20, 11, 30])[:, None]

    def gradient(run):
        def loss(model):
            logits, new = run(model)
            return jnp.sum(logits**2), (logits, new)

        return eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))(model)

    def native(model):
        out = model(x, state if norm == "batch" else None, mask=mask)
        return out if norm == "batch" else (out, state)

    one, other = gradient(native), gradient(lambda model: batched(model, state, x, mask, None))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    ("head", "unit", "norm"), [("classification", "linear", "batch"), ("regression", "damped", "layer")]
)
def test_a_batch_of_several_blocks_of_steps(head, unit, norm, new_key, monkeypatch):
    """Check the store of all layers, statistics merged from blocks, and padding of the last block."""
    monkeypatch.setattr(_sequence, "limits", lambda: (4096, 32))  # 90 steps: three blocks, the last one padded
    x = 1 + jnp.linspace(0, 2, 90)[None, :, None] * jax.random.normal(new_key(), (3, 90, 3))
    mask = jnp.arange(90)[None] < jnp.asarray([90, 70, 20])[:, None] if head == "classification" else None

    @eqx.filter_jit
    def gradient(model, state):
        def loss(arguments):
            model, x = arguments
            logits, new = model(x, state, mask=mask, key=jax.random.key(3))
            return jnp.sum(jnp.sin(logits)), (logits, new)

        return eqx.filter_grad(loss, has_aux=True)((model, x))

    options = {"norm": norm, "head": head, "unit": unit, "every": 7, "dropout": 0.2, "blocks": 3}
    echo, exact = (gradient(*make(g, **options)) for g in (None, eg.Backprop()))
    for a, b in zip(jax.tree.leaves(echo), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a - b) <= 1e-9 * jnp.linalg.norm(b)


@pytest.mark.parametrize("trained", [lambda model: model.encoder, lambda model: model.blocks[0].unit])
def test_an_echo_that_does_not_come_back_stops_whatever_is_trained(trained, new_key):
    """Also parameters before the failing block, which depend on it only through cotangents."""
    model, _ = make(eg.Echo(retrace_tolerance=1e-30), dropout=0.0)
    x = jax.random.normal(new_key(), (2, 40, 3))

    @eqx.filter_jit
    @eqx.filter_grad
    def gradient(part):
        return jnp.sum(eqx.tree_at(trained, model, part)(x) ** 2)

    with pytest.raises(eqx.EquinoxRuntimeError, match="did not come back to their initial state"):
        gradient(trained(model))


def test_what_is_encoded_again_is_encoded_with_all_digits(new_key, monkeypatch):
    """Otherwise a GPU rounds factors to ten bits, differently each time, and the echo gets another drive."""
    model, state = make(eg.Echo(), norm="batch", hidden=11)
    seen, product = [], _layout.product
    monkeypatch.setattr(_layout, "product", lambda a, b: seen.append(a.shape) or product(a, b))
    jax.make_jaxpr(lambda x: eqx.filter_grad(lambda x: jnp.sum(model(x, state)[0] ** 2))(x))(jnp.ones((2, 37, 3)))
    assert seen.count(model.encoder.weight.shape) >= 4  # for the moments, forth, back, and for its own cotangents


@pytest.mark.float64_only
@pytest.mark.parametrize("head", ["classification", "regression"])
def test_what_grows_with_the_sequence_are_the_outputs_of_the_blocks(head):
    """Cotangents reuse this memory. The last outputs are stored only if needed, those of the encoder never."""
    model, state = make(eg.Echo(), hidden=16, units=2, blocks=3, norm="batch", head=head, every=7)
    arrays, static = eqx.partition(model, eqx.is_inexact_array)

    def temporary(steps):
        def loss(arrays, x):
            return jnp.sum(eqx.combine(arrays, static)(x, state)[0] ** 2)

        compiled = jax.jit(jax.grad(loss)).lower(arrays, jnp.ones((2, steps, 3))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    more = 48 * _sequence.block_length(100_000, 2)
    place = more * 2 * 16 * arrays.encoder.weight.itemsize
    places = 2 if head == "classification" else 3
    assert places <= (temporary(2 * more) - temporary(more)) / place < places + 0.5  # inputs and mask, too


@pytest.mark.float64_only
def test_blocks_that_differ_run_one_after_the_other(new_key):
    model, _ = make()
    x = jax.random.normal(new_key(), (30, 3))
    other = eqx.tree_at(lambda m: m.blocks[1].unit.gradient, model, eg.Backprop())
    assert jax.tree.structure(other) != jax.tree.structure(model)
    np.testing.assert_allclose(other(x), model(x), rtol=1e-12)


@pytest.mark.float64_only
def test_echo_and_backprop_drop_the_same_features(new_key):
    x, key = jax.random.normal(new_key(), (2, 700, 3)), new_key()
    echo, exact = (
        eqx.filter_jit(eqx.filter_grad(lambda model: jnp.sum(model(x, key=key) ** 2)))(make(g, dropout=0.3)[0])
        for g in (eg.Echo(), eg.Backprop())
    )
    for a, b in zip(jax.tree.leaves(echo), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a - b) < 1e-9 * jnp.linalg.norm(b)


def test_coins_are_fair_and_independent(new_key):
    """Frequencies within five standard deviations; no correlation of halves, neighbours, rows, blocks and seeds."""
    shape, probability = (2, 512, 64), 0.3

    def dropped(seed, block):
        keep = _dropout.make_dropout(seed, probability, shape, block)
        return [np.asarray(keep(jnp.ones(shape), half) == 0, float) - probability for half in (0, 1)]

    seed = jax.random.bits(new_key(), (2,), jnp.uint32)
    low, high = dropped(seed, 0)
    next_block, other_seed = dropped(seed, 1)[0], dropped(seed + jnp.uint32(1), 0)[0]
    deviation = 5 / np.sqrt(low.size)
    for coins in (low, high, next_block, other_seed):
        assert abs(coins.mean()) < deviation * np.sqrt(0.21)
    for a, b in (
        (low, high),
        (low, next_block),
        (low, other_seed),
        (low[..., 1:], low[..., :-1]),
        (low[:, 1:], low[:, :-1]),
        (low[1], low[0]),
    ):
        assert abs((a * b).mean()) < 2 * deviation * 0.21
    # Words are hashes of sums, one term from the row and one from the step: the corners of rectangles are independent.
    corners = low[:, 1:, 1:] * low[:, 1:, :-1] * low[:, :-1, 1:] * low[:, :-1, :-1]
    assert abs(corners.mean()) < deviation * 0.21**2
    kept = _dropout.make_dropout(seed, probability, shape, 0)(jnp.ones(shape), 0)
    assert abs(float(kept.mean()) - 1) < deviation  # the mean stays


@pytest.mark.fast
@pytest.mark.parametrize(("norm", "unit"), [("layer", "linear"), ("batch", "damped")])
def test_masked_steps_make_no_difference(norm, unit, new_key):
    model, state = make(norm=norm, unit=unit)
    x = jax.random.normal(new_key(), (3, 20, 3))
    mask = jnp.arange(20)[None] < jnp.asarray([20, 12, 5])[:, None]
    junk = jnp.where(mask[..., None], x, jnp.nan)
    a, state_a = run_batched(model, state, x, mask, None)
    b, state_b = run_batched(model, state, junk, mask, None)
    np.testing.assert_array_equal(a, b)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(state_a), jax.tree.leaves(state_b))
    # And a mask does make a difference where steps are valid.
    c, _ = run_batched(model, state, x, jnp.ones_like(mask), None)
    assert jnp.max(jnp.abs(a[1:] - c[1:])) > 1e-4


def test_padding_takes_no_digits_from_an_echo(new_key):
    """With a batch norm, padding could drive the oscillators so far that a float32 echo loses the earlier path."""
    model, state = make(norm="batch")
    x = jax.random.normal(new_key(), (2, 45, 3))
    mask = jnp.arange(45)[None] < jnp.asarray([45, 1])[:, None]
    gradient = eqx.filter_jit(eqx.filter_grad(lambda model, x: jnp.sum(model(x, state, mask=mask)[0] ** 2)))
    clean, padded = gradient(model, x), gradient(model, jnp.where(mask[..., None], x, 1e6))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(padded), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batch_norm_normalises_over_batch_and_time(new_key):
    norm, state = eqx.nn.make_with_state(eg.nn.BatchNorm)(3, momentum=0.5)
    x = 5 + 2 * jax.random.normal(new_key(), (16, 40, 3))
    y, state = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")(x, state)
    np.testing.assert_allclose(jnp.mean(y, (0, 1)), 0, atol=1e-4)
    np.testing.assert_allclose(jnp.std(y, (0, 1)), 1, rtol=1e-3)
    # After one batch inference already uses its statistics, not a blend with the initial zeros.
    y, _ = eqx.nn.inference_mode(norm)(x[0], state)
    np.testing.assert_allclose(y, (x[0] - jnp.mean(x, (0, 1))[None]) / jnp.std(x, (0, 1))[None], rtol=1e-2, atol=1e-3)


def test_dropout_needs_a_key_and_differs_between_examples(new_key):
    model, _ = make(dropout=0.5)
    x = jnp.ones((10, 3))
    with pytest.raises(RuntimeError, match="key"):
        model(x)
    logits = jax.vmap(lambda key: model(x, key=key))(jax.random.split(new_key(), 4))
    assert len({float(v) for v in logits[:, 0]}) == 4
    assert eqx.nn.inference_mode(model)(x).shape == (2,)


@pytest.mark.parametrize(("unit", "name"), [("linear", "LinearHRU"), ("damped", "DampedHRU")])
def test_a_model_survives_serialisation_and_repr(unit, name, tmp_path):
    model, state = make(norm="batch", unit=unit)
    eqx.tree_serialise_leaves(tmp_path / "model.eqx", (model, state))
    other = make(norm="batch", unit=unit)
    loaded = eqx.tree_deserialise_leaves(tmp_path / "model.eqx", other)
    for a, b in zip(jax.tree.leaves((model, state)), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(a, b)
    assert name in repr(model)


def test_the_strength_of_a_nudge_is_not_a_parameter():
    model, _ = make(eg.Echo(eg.Symmetric(1e-3)))
    plain, _ = make(eg.Echo())
    assert len(jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))) == len(
        jax.tree.leaves(eqx.filter(plain, eqx.is_inexact_array))
    )


@pytest.mark.fast
def test_wrong_use_is_refused():
    for options, message in (
        ({"unit": "quadratic"}, "choose one of 'linear', 'nonlinear'"),
        ({"norm": "group"}, "choose one of"),
        ({"head": "ranking"}, "choose one of"),
        ({"blocks": 0}, "blocks"),
        ({"dropout": 1.5}, "probability"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**options)
    model, _ = make()
    with pytest.raises(ValueError, match="steps, 3"):
        model(jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="mask"):
        model(jnp.ones((4, 3)), mask=jnp.ones(5, bool))
    with pytest.raises(TypeError, match="mask is int32"):
        model(jnp.ones((2, 4, 3)), mask=jnp.ones((2, 4), jnp.int32))
    with pytest.raises(RuntimeError, match="masked step before a valid one"):
        model(jnp.ones((2, 4, 3)), mask=jnp.asarray([[True] * 4, [False, True, True, True]]))
    sparse, _ = make(head="regression", every=5)
    with pytest.raises(ValueError, match="4 steps give no output"):
        sparse(jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="so it is empty"):
        model(jnp.ones((0, 4, 3)))
    with pytest.raises(TypeError, match="the input is int32"):
        model(jnp.ones((4, 3), jnp.int32))
    with pytest.raises(ValueError, match=r"\(2, 3\), and \(3,\) is needed"):
        model.step(model.initial_state(), jnp.ones((2, 3)))
    model, _ = make(dropout=0.5)
    with pytest.raises(TypeError, match="one random key"):
        model(jnp.ones((2, 4, 3)), key=jax.random.split(jax.random.key(0)))
    model, state = make(norm="batch")
    with pytest.raises(ValueError, match="make_with_state"):
        model(jnp.ones((4, 3)))
    with pytest.raises(ValueError, match="make_with_state"):
        model.initial_state()
    with pytest.raises(ValueError, match="batch axis"):
        model(jnp.ones((4, 3)), state)
