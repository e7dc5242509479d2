import dataclasses

import numpy as np
import pytest

from echograd.workbench.data import Dataset, Split

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]


def make_split(cases=12, length=7, channels=2, classes=3, seed=0, groups=None, lengths=None):
    rng = np.random.default_rng(seed)
    if lengths is None:
        lengths = rng.integers(3, length + 1, size=cases)
    series = [rng.normal(5.0, 2.0, size=(n, channels)) for n in lengths]
    return Split.from_series(series, np.arange(cases) % classes, groups, length=length)


def make_dataset(**changes):
    fields = {
        "name": "toy",
        "train": make_split(),
        "validation": None,
        "test": make_split(9, seed=1),
        "task": "classification",
        "class_names": ("a", "b", "c"),
        "channel_names": ("x", "y"),
        "sample_rate": 10.0,
        "description": "",
        "source": "",
        "licence": "",
    }
    return Dataset(**{**fields, **changes})


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


class TestSplit:
    def test_from_series_pads_with_zeros_and_keeps_every_value(self):
        series = [np.arange(6.0).reshape(3, 2), np.ones((5, 2)), np.full((1, 2), 7.0)]
        split = Split.from_series(series, np.array([0, 1, 0]))
        assert split.inputs.dtype == np.float32
        assert split.targets.dtype == np.int32
        np.testing.assert_array_equal(split.lengths, [3, 5, 1])
        for row, length, case in zip(split.inputs, split.lengths, series, strict=True):
            np.testing.assert_array_equal(row[:length], case)
            assert not row[length:].any()
        np.testing.assert_array_equal(split.mask.sum(axis=1), split.lengths)
        assert not split.equal_length

    def test_take_keeps_rows_together(self):
        split = make_split(groups=np.arange(100, 112))
        taken = split.take([7, 2, 2])
        np.testing.assert_array_equal(taken.inputs, split.inputs[[7, 2, 2]])
        np.testing.assert_array_equal(taken.targets, split.targets[[7, 2, 2]])
        np.testing.assert_array_equal(taken.lengths, split.lengths[[7, 2, 2]])
        np.testing.assert_array_equal(taken.groups, [107, 102, 102])

    def test_class_counts_include_absent_classes(self):
        np.testing.assert_array_equal(make_split(cases=5).class_counts(4), [2, 2, 1, 0])

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_value_that_is_not_finite_is_named(self, value):
        split = make_split()
        with pytest.raises(ValueError, match=r"case 4 are .* at step 1, channel 0"):
            dataclasses.replace(split, inputs=with_value(split.inputs, (4, 1, 0), value))

    def test_a_missing_target_is_refused(self):
        split = make_split()
        targets = with_value(np.zeros(12, np.float32), 3, np.nan)
        with pytest.raises(ValueError, match="target of case 3"):
            dataclasses.replace(split, targets=targets)

    def test_padding_must_be_zero(self):
        split = make_split(lengths=np.full(12, 5))
        with pytest.raises(ValueError, match="padding"):
            dataclasses.replace(split, inputs=with_value(split.inputs, (0, 6, 1), 1e-3))

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"inputs": np.zeros((12, 7, 2))}, TypeError, "float32"),
            ({"inputs": np.zeros((12, 7), np.float32)}, ValueError, r"\(cases, length, channels\)"),
            ({"inputs": np.zeros((0, 7, 2), np.float32)}, ValueError, "without 0"),
            ({"targets": np.zeros(12, np.int64)}, TypeError, "int32"),
            ({"targets": np.zeros(11, np.int32)}, ValueError, "targets has shape"),
            ({"lengths": np.full(12, 8, np.int32)}, ValueError, "from 1 to 7"),
            ({"lengths": np.zeros(12, np.int32)}, ValueError, "from 1 to 7"),
            ({"lengths": np.full(11, 7, np.int32)}, ValueError, "lengths has shape"),
            ({"groups": np.zeros(13)}, ValueError, "groups has shape"),
        ],
    )
    def test_wrong_arrays_are_refused(self, changes, error, message):
        split = make_split(lengths=np.full(12, 7))
        with pytest.raises(error, match=message):
            dataclasses.replace(split, **changes)

    def test_series_must_have_the_same_channels(self):
        with pytest.raises(ValueError, match="same number of channels"):
            Split.from_series([np.zeros((3, 2)), np.zeros((3, 1))], np.array([0, 1]))

    def test_series_must_not_be_cut(self):
        with pytest.raises(ValueError, match=r"length=2; .* of at least 3"):
            Split.from_series([np.zeros((3, 2))], np.array([0]), length=2)


class TestDataset:
    def test_properties(self):
        dataset = make_dataset()
        assert (dataset.inputs_dim, dataset.length, dataset.classes) == (2, 7, 3)
        assert list(dataset.splits) == ["train", "test"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"test": make_split(length=8)}, r"test: cases of shape \(8, 2\)"),
            ({"validation": make_split(channels=3)}, r"validation: cases of shape \(7, 3\)"),
            ({"class_names": ("a", "b")}, "from 0 to 1"),
            ({"class_names": ()}, "class_names"),
            ({"task": "regression"}, "class_names"),
            ({"task": "regression", "class_names": ()}, "int32 targets do not fit regression"),
            ({"channel_names": ("x",)}, "1 names for 2 channels"),
        ],
    )
    def test_what_does_not_fit_together_is_refused(self, changes, message):
        with pytest.raises(ValueError, match=message):
            make_dataset(**changes)

    def test_class_weights_balance_the_training_cases(self):
        labels = np.array([0] * 6 + [1] * 3 + [2] * 1)
        train = dataclasses.replace(make_split(10), targets=labels.astype(np.int32))
        weights = make_dataset(train=train).class_weights()
        np.testing.assert_allclose(weights * np.bincount(labels), 10 / 3, rtol=1e-6)
        assert weights[labels].mean() == pytest.approx(1.0)

    def test_a_class_without_training_cases_has_no_weight(self):
        with pytest.raises(ValueError, match="class 'd'"):
            make_dataset(class_names=("a", "b", "c", "d")).class_weights()


class TestStandardised:
    def test_training_steps_get_mean_0_and_deviation_1(self):
        dataset = make_dataset().standardised()
        valid = dataset.train.inputs[dataset.train.mask]
        np.testing.assert_allclose(valid.mean(axis=0), 0.0, atol=1e-5)
        np.testing.assert_allclose(valid.std(axis=0), 1.0, atol=1e-5)

    def test_nothing_of_the_test_cases_reaches_the_training_cases(self):
        plain = make_dataset(validation=make_split(seed=5))
        far = dataclasses.replace(
            plain.test, inputs=(plain.test.inputs * 1000.0 * plain.test.mask[..., None]).astype(np.float32)
        )
        changed = dataclasses.replace(plain, test=far, validation=far)
        np.testing.assert_array_equal(
            changed.standardised().train.inputs, plain.standardised().train.inputs, strict=True
        )

    def test_test_cases_are_scaled_with_the_training_numbers(self):
        dataset = make_dataset()
        valid = dataset.train.inputs[dataset.train.mask].astype(np.float64)
        expected = (dataset.test.inputs - valid.mean(axis=0)) / valid.std(axis=0)
        expected[~dataset.test.mask] = 0.0
        np.testing.assert_allclose(dataset.standardised().test.inputs, expected, atol=1e-5)

    def test_padding_has_no_part_in_it(self):
        dataset = make_dataset()
        longer = {
            side: dataclasses.replace(split, inputs=np.pad(split.inputs, ((0, 0), (0, 50), (0, 0))))
            for side, split in dataset.splits.items()
        }
        scaled = dataclasses.replace(dataset, **longer).standardised()
        np.testing.assert_array_equal(scaled.train.inputs[:, :7], dataset.standardised().train.inputs)
        assert not scaled.train.inputs[:, 7:].any()

    def test_a_constant_channel_is_only_centred(self):
        def flat(split):
            return dataclasses.replace(split, inputs=with_value(split.inputs, (split.mask, 1), 3.1))

        dataset = make_dataset(train=flat(make_split()), test=flat(make_split(9, seed=1)))
        scaled = dataset.standardised()
        np.testing.assert_allclose(scaled.train.inputs[..., 1], 0.0, atol=1e-5)
        np.testing.assert_allclose(scaled.test.inputs[..., 1], 0.0, atol=1e-5)

    def test_regression_targets_can_be_scaled_and_scaled_back(self):
        rng = np.random.default_rng(0)

        def regression(split):
            return dataclasses.replace(split, targets=rng.normal(70, 9, (len(split), 3, 1)).astype(np.float32))

        dataset = make_dataset(
            train=regression(make_split()), test=regression(make_split(9)), task="regression", class_names=()
        )
        mean, std = dataset.target_scale()
        scaled = dataset.standardised(targets=True)
        assert scaled.train.targets.std() == pytest.approx(1.0, abs=1e-5)
        np.testing.assert_allclose(scaled.test.targets * std + mean, dataset.test.targets, rtol=1e-5)
        np.testing.assert_array_equal(dataset.standardised().test.targets, dataset.test.targets)

    def test_classes_have_no_scale(self):
        with pytest.raises(ValueError, match="no scale"):
            make_dataset().standardised(targets=True)


def rows(split):
    return {row.tobytes() for row in split.inputs}


class TestWithValidation:
    def test_every_case_is_on_one_side_and_the_test_split_stays(self):
        plain = make_dataset(train=make_split(40))
        dataset = plain.with_validation(0.25, seed=3)
        assert dataset.test is plain.test
        assert rows(dataset.train) | rows(dataset.validation) == rows(plain.train)
        assert not rows(dataset.train) & rows(dataset.validation)
        assert len(dataset.train) + len(dataset.validation) == 40

    def test_inputs_and_targets_stay_together(self):
        plain = make_dataset(train=make_split(40))
        target = {row.tobytes(): label for row, label in zip(plain.train.inputs, plain.train.targets, strict=True)}
        dataset = plain.with_validation(0.25)
        for split in (dataset.train, dataset.validation):
            assert [target[row.tobytes()] for row in split.inputs] == split.targets.tolist()

    def test_classes_keep_their_shares(self):
        labels = np.array([0] * 60 + [1] * 30 + [2] * 10, np.int32)
        train = dataclasses.replace(make_split(100), targets=labels)
        dataset = make_dataset(train=train).with_validation(0.2)
        np.testing.assert_array_equal(dataset.validation.class_counts(3), [12, 6, 2])

    def test_the_seed_decides(self):
        plain = make_dataset(train=make_split(40))
        first, again, other = (rows(plain.with_validation(0.25, seed=s).validation) for s in (1, 1, 2))
        assert first == again
        assert first != other

    @pytest.mark.parametrize("seed", range(5))
    def test_groups_are_never_divided(self, seed):
        groups = np.repeat(np.arange(10), 6)
        dataset = make_dataset(train=make_split(60, groups=groups)).with_validation(0.3, seed=seed)
        assert not set(dataset.train.groups) & set(dataset.validation.groups)
        np.testing.assert_array_equal(dataset.validation.class_counts(3), [6, 6, 6])

    def test_a_class_of_one_group_stays_in_training(self):
        groups = np.repeat(np.arange(6), 5)
        labels = np.where(groups == 2, 2, np.arange(30) % 2).astype(np.int32)
        train = dataclasses.replace(make_split(30, groups=groups), targets=labels)
        for seed in range(5):
            dataset = make_dataset(train=train).with_validation(0.3, seed=seed)
            assert 2 not in dataset.validation.groups

    def test_an_impossible_split_is_refused(self):
        train = make_split(6, groups=np.zeros(6))
        with pytest.raises(ValueError, match="leaves every class in training"):
            make_dataset(train=train).with_validation(0.5)

    def test_a_published_validation_split_is_not_thrown_away(self):
        with pytest.raises(ValueError, match="of its own"):
            make_dataset(validation=make_split(seed=2)).with_validation()

    @pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
    def test_the_fraction_must_make_sense(self, fraction):
        with pytest.raises(ValueError, match="between 0 and 1"):
            make_dataset().with_validation(fraction)
