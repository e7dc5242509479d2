import numpy as np
import pytest

from echograd.workbench.data import Batches, Split

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


def make_split(cases, classes=3):
    """Cases whose first value is their own number."""
    lengths = 1 + np.arange(cases) % 4
    series = [np.full((n, 2), float(i)) for i, n in enumerate(lengths)]
    return Split.from_series(series, np.arange(cases) % classes, length=4)


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@pytest.mark.parametrize("cases", [1, 7, 8, 9, 24, 25])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_case_counts_exactly_once_an_epoch(cases, shuffle):
    batches = Batches(make_split(cases), 8, shuffle=shuffle)
    counted = [batch.cases[batch.weights == 1] for batch in batches.epoch(0)]
    assert sorted(np.concatenate(counted)) == list(range(cases))
    assert len(counted) == len(batches) == -(-cases // 8)


def test_all_batches_have_one_shape_and_rows_stay_together():
    split = make_split(21)
    for batch in Batches(split, 8).epoch(2):
        assert batch.inputs.shape == (8, 4, 2)
        np.testing.assert_array_equal(batch.inputs[:, 0, 0], batch.cases)
        np.testing.assert_array_equal(batch.targets, split.targets[batch.cases])
        np.testing.assert_array_equal(batch.mask.sum(axis=1), split.lengths[batch.cases])
        assert set(batch.weights) <= {0.0, 1.0}
        assert batch.weights.dtype == np.float32


@pytest.mark.parametrize(("size", "multiple", "shape"), [(7, 1, 7), (8, 1, 7), (10**12, 1, 7), (12, 4, 8), (4, 4, 4)])
def test_a_batch_larger_than_the_split_is_the_whole_split(size, multiple, shape):
    batches = Batches(make_split(7), size, multiple=multiple)
    assert len(batches) == (2 if size == 4 else 1)
    for batch in batches.epoch(0):
        assert batch.inputs.shape == (shape, 4, 2)
    counted = [batch.cases[batch.weights == 1] for batch in batches.epoch(0)]
    assert sorted(np.concatenate(counted)) == list(range(7))


def test_without_shuffling_the_order_is_the_splits():
    cases = np.concatenate([b.cases[b.weights == 1] for b in Batches(make_split(21), 8, shuffle=False).epoch(5)])
    np.testing.assert_array_equal(cases, np.arange(21))


@pytest.mark.parametrize("balanced", [True, False])
def test_going_on_anywhere_gives_what_an_unbroken_run_gives(balanced):
    split = make_split(21)
    unbroken = [batch for epoch in range(3) for batch in Batches(split, 8, seed=4, balanced=balanced).epoch(epoch)]
    for epoch in range(3):
        for index in range(3):
            anew = Batches(split, 8, seed=4, balanced=balanced)  # as after a restart
            resumed = [*anew.epoch(epoch, index)]
            for later in range(epoch + 1, 3):
                resumed += anew.epoch(later)
            for a, b in zip(resumed, unbroken[3 * epoch + index :], strict=True):
                assert_equal(a, b)
            assert_equal(anew.batch(epoch, index), unbroken[3 * epoch + index])


def test_epochs_and_seeds_differ():
    split = make_split(50)
    orders = {tuple(Batches(split, 8, seed=seed).order(epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_drop_leaves_out_other_cases_in_every_epoch():
    batches = Batches(make_split(21), 8, remainder="drop")
    seen = [np.concatenate([b.cases for b in batches.epoch(epoch)]) for epoch in range(20)]
    assert all(len(set(cases)) == 16 for cases in seen)
    assert all(b.weights.all() for b in batches.epoch(0))
    assert set(np.concatenate(seen)) == set(range(21))


def test_drop_keeps_a_last_batch_that_is_full():
    assert len(Batches(make_split(24), 8, remainder="drop")) == 3


def test_balanced_batches_draw_classes_equally():
    split = make_split(60)
    labels = np.array([0] * 50 + [1] * 8 + [2] * 2, np.int32)
    split = Split(split.inputs, labels, split.lengths)
    batches = Batches(split, 10, balanced=True, seed=1)
    for epoch in range(3):
        drawn = batches.order(epoch)
        np.testing.assert_array_equal(np.bincount(labels[drawn]), [20, 20, 20])
        # No case comes again before all others of its class have come.
        assert len(set(drawn[labels[drawn] == 0])) == 20
        np.testing.assert_array_equal(np.bincount(drawn, minlength=60)[58:], [10, 10])
        assert set(np.bincount(drawn, minlength=60)[50:58]) == {2, 3}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size=0; it must be a Python integer of at least 1"),
        ({"size": 6, "multiple": 4}, "size=6 is not a multiple of multiple=4"),
        ({"size": 2, "seed": -1}, "seed=-1; it must be a Python integer of at least 0"),
        ({"size": 2, "remainder": None}, "remainder=None; choose one of 'pad', 'drop'"),
        ({"size": 8, "remainder": "drop"}, "never full"),
        ({"size": 2, "remainder": "keep"}, "remainder='keep'; choose one of 'pad', 'drop'"),
        ({"size": 2, "balanced": True, "shuffle": False}, "shuffle=True"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Batches(make_split(7), **arguments)


def test_there_is_no_batch_after_the_last():
    batches = Batches(make_split(7), 4)
    for index in (-1, 2):
        with pytest.raises(IndexError, match="2 batches"):
            batches.batch(0, index)
