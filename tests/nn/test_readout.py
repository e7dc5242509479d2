"""What surrounds the blocks of a state-space model: patches and taps, pooling, both directions of time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

pytestmark = pytest.mark.least_effort

STEPS, LENGTHS = 45, (45, 17, 32)


def make(gradient=None, **options):
    options = {"hidden": 4, "units": 3, "blocks": 2, "dropout": 0.0, "unit": "damped"} | options
    return eqx.nn.make_with_state(eg.nn.HSSM)(2, 3, gradient=gradient, key=jax.random.key(3), **options)


def batch(new_key):
    x = jax.random.normal(new_key(), (len(LENGTHS), STEPS, 2))
    return x, jnp.arange(STEPS)[None] < jnp.asarray(LENGTHS)[:, None]


@eqx.filter_jit
def logits_of(model, x, mask, state=None):
    return model(x, state, mask=mask)


@pytest.mark.float64_only
@pytest.mark.parametrize(
    "options",
    [
        {"pooling": "mean_max_deviation", "patch": 4, "taps": 3, "bidirectional": True, "norm": "batch"},
        {"pooling": "last", "patch": 2, "unit": "linear"},
        {"head": "regression", "patch": 3, "every": 6, "bidirectional": True, "unit": "linear"},
    ],
)
def test_the_echo_equals_backprop_for_every_leaf(options, new_key):
    x, mask = batch(new_key)

    @eqx.filter_jit
    def gradient(model, state):
        def loss(arguments):
            model, x = arguments
            outputs = model(x, state, mask=mask)[0] if "norm" in options else model(x, mask=mask)
            return jnp.sum(jnp.sin(outputs))

        return eqx.filter_grad(loss)((model, x))

    found, exact = gradient(*make(**options)), gradient(*make(eg.Backprop(), **options))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(exact), strict=True):
        assert jnp.linalg.norm(a - b) < 1e-9 * jnp.linalg.norm(b), jax.tree_util.keystr(path)


@pytest.mark.parametrize("pooling", ["mean", "mean_max_deviation", "last"])
def test_streams_and_chunks_equal_the_whole_sequence(pooling, new_key):
    model, _ = make(pooling=pooling, patch=3, taps=2)
    x, mask = batch(new_key)
    whole = logits_of(model, x, mask)[0]

    @eqx.filter_jit
    def streamed(model, x):
        return jax.lax.scan(model.step, model.initial_state(), x.reshape(-1, 3, 2))[1]

    @eqx.filter_jit
    def chunked(model, x):
        stream, first = model.chunk(model.initial_state(), x[:12])
        return jnp.concatenate([first, model.chunk(stream, x[12:])[1]])

    steps = streamed(model, x[0])
    np.testing.assert_allclose(steps[-1], whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(chunked(model, x[0]), steps, rtol=1e-4, atol=1e-5)


def test_pooled_features_are_those_of_the_valid_steps(new_key):
    """With one output, a decoder of one entry reads each pooled feature of the rows that regression reads out."""
    x, mask = batch(new_key)
    model, _ = make(pooling="mean_max_deviation")
    rows_model, _ = make(head="regression")
    rows_model = eqx.tree_at(
        lambda m: (m.encoder, m.blocks, m.decoder.weight, m.decoder.bias),
        rows_model,
        (model.encoder, model.blocks, jnp.eye(4), jnp.zeros(4)),
    )
    model = eqx.tree_at(lambda m: (m.decoder.weight, m.decoder.bias), model, (jnp.eye(12), jnp.zeros(12)))
    rows, found = np.asarray(logits_of(rows_model, x, mask)), np.asarray(logits_of(model, x, mask))
    for row, features, length in zip(rows, found, LENGTHS, strict=True):
        valid = row[:length]
        expected = np.concatenate([valid.mean(0), valid.max(0), np.sqrt(valid.var(0) + 1e-5) - np.sqrt(1e-5)])
        np.testing.assert_allclose(features, expected, rtol=2e-4, atol=2e-5)


def test_the_encoder_is_a_strided_causal_convolution(new_key):
    """A model whose blocks pass their input on reads out the encoded rows."""
    x = jax.random.normal(new_key(), (1, STEPS, 2))
    model, _ = make(head="regression", patch=4, taps=2, blocks=1)
    block = model.blocks[0]
    model = eqx.tree_at(
        lambda m: (m.blocks[0].value.weight, m.blocks[0].value.bias, m.decoder.weight, m.decoder.bias),
        model,
        (jnp.zeros_like(block.value.weight), jnp.zeros_like(block.value.bias), jnp.eye(4), jnp.zeros(4)),
    )
    found = logits_of(model, x, jnp.ones((1, STEPS), bool))[0]
    weight = model.encoder.weight.reshape(4, 2, 4, 2)  # (hidden, tap, sample in the patch, input)
    kernel = jnp.concatenate([weight[:, 1], weight[:, 0]], 1)  # the older patch first
    expected = jax.lax.conv_general_dilated(
        jnp.moveaxis(jnp.pad(x, ((0, 0), (4, 0), (0, 0))), -1, 1), jnp.moveaxis(kernel, -1, 1), (4,), "VALID"
    )
    np.testing.assert_allclose(found, expected[0].T + model.encoder.bias[None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [{"pooling": "mean_max_deviation", "patch": 4, "taps": 2}, {"head": "regression", "patch": 3, "every": 9}],
)
def test_a_model_is_its_encoder_its_blocks_and_its_decoder(options, new_key):
    model, _ = make(**options)
    x, _ = batch(new_key)

    @eqx.filter_jit
    def piecewise(model, x):
        rows = model.encode(x)
        for block in model.blocks:
            rows, _ = block(rows)
        return model.decode(rows)

    whole = logits_of(model, x, jnp.ones(x.shape[:2], bool))
    np.testing.assert_allclose(piecewise(model, x), whole, rtol=1e-4, atol=1e-5)


def test_both_directions_see_the_same(new_key):
    """A reversed input with the two stacks, and their halves of the decoder, exchanged gives the same logits."""
    model, _ = make(bidirectional=True, pooling="mean_max_deviation")
    x, mask = batch(new_key)
    turned = jnp.stack(
        [jnp.concatenate([row[:n][::-1], row[n:]]) for row, n in zip(x, LENGTHS, strict=True)],
    )
    half = model.decoder.weight.shape[1] // 2
    exchanged = eqx.tree_at(
        lambda m: (m.blocks, m.reversed_blocks, m.decoder.weight),
        model,
        (model.reversed_blocks, model.blocks, jnp.roll(model.decoder.weight, half, 1)),
    )
    there, back = logits_of(model, x, mask), logits_of(exchanged, turned, mask)
    np.testing.assert_allclose(there, back, rtol=1e-4, atol=1e-5)
    assert np.abs(there - logits_of(model, turned, mask)).max() > 1e-3


def test_wrong_use_is_refused(new_key):
    with pytest.raises(eg.ArgumentError, match="must be a multiple of 4"):
        make(head="regression", patch=4, every=6)
    with pytest.raises(eg.ArgumentError, match="pooling='max'"):
        make(pooling="max")
    with pytest.raises(eg.ArgumentError, match="cannot stream"):
        make(bidirectional=True)[0].initial_state()
    model, _ = make(patch=3)
    with pytest.raises(eg.ArgumentError, match="2 samples are given, and one step takes patch=3"):
        model.step(model.initial_state(), jnp.ones((2, 2)))
    with pytest.raises(eg.ArgumentError, match="7 samples are given"):
        model.chunk(model.initial_state(), jnp.ones((7, 2)))
