import importlib.resources
import re

import numpy as np
import pytest

from echograd.workbench.data import load, slope_envelope

pytestmark = [pytest.mark.precision_free, pytest.mark.fast]

NAMES = ["ecg-rhythm", "ecg-afib", "ecg-rhythm-envelope", "ecg-afib-envelope"]


@pytest.fixture(scope="module", params=NAMES)
def dataset(request):
    return load(request.param)


@pytest.fixture(scope="module")
def packed():
    file = importlib.resources.files("echograd.workbench.data").joinpath("_bundled", "ecg_rhythm.npz")
    with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
        return dict(arrays)


def test_nobody_is_on_two_sides(dataset):
    patients = [set(split.groups.tolist()) for split in dataset.splits.values()]
    assert len(patients) == 3
    assert len(set.union(*patients)) == sum(map(len, patients))


def test_the_two_records_of_one_patient_are_one_group(packed):
    groups = packed["patients"][np.isin(packed["records"], [201, 202])]
    assert groups.size > 0
    assert set(groups.tolist()) == {201}
    elsewhere = ~np.isin(packed["records"], [202])
    np.testing.assert_array_equal(packed["patients"][elsewhere], packed["records"][elsewhere])


def test_every_class_is_on_every_side(dataset):
    for split in dataset.splits.values():
        assert (split.class_counts(dataset.classes) >= 20).all()
    assert dataset.classes == (2 if "afib" in dataset.name else 4)
    assert (dataset.train.class_counts(dataset.classes) > 0).all()


def test_no_patient_dominates(packed):
    caps = np.array([30, 100, 100, 60])
    for patient in np.unique(packed["patients"]):
        labels = packed["labels"][packed["patients"] == patient]
        assert (np.bincount(labels, minlength=4) <= caps).all()


def test_windows_do_not_overlap(packed):
    for record in np.unique(packed["records"]):
        starts = np.sort(packed["starts"][packed["records"] == record])
        assert (np.diff(starts) >= 3600).all()
        assert starts[0] >= 0
        assert starts[-1] + 3600 <= 650_000


def test_the_signals_are_ecg_in_millivolt():
    dataset = load("ecg-rhythm")
    assert (dataset.length, dataset.inputs_dim, dataset.sample_rate) == (900, 2, 90.0)
    signals = np.concatenate([split.inputs for split in dataset.splits.values()])
    assert 0.1 < signals.std() < 1.0
    assert np.abs(signals).max() < 10.0
    # The high-pass took the baseline, and no window is flat.
    assert np.abs(signals.mean(axis=1)).max() < 0.5
    assert signals.std(axis=1).min() > 0.01
    spectrum = (np.abs(np.fft.rfft(signals, axis=1)) ** 2).mean(axis=(0, 2))
    frequency = np.fft.rfftfreq(900, 1 / 90)
    # Above the pass band are only the 10 microvolt of rounding, and what leaks through the window's ends.
    assert spectrum[frequency > 44.5].mean() < 1e-3 * spectrum[(frequency > 1) & (frequency < 20)].mean()


def test_the_smaller_sets_are_part_of_the_larger():
    whole, part = load("ecg-rhythm"), load("ecg-afib")
    for name, split in part.splits.items():
        larger = whole.splits[name]
        here = larger.targets < 2
        np.testing.assert_array_equal(split.inputs, larger.inputs[here])
        np.testing.assert_array_equal(split.targets, larger.targets[here])
        np.testing.assert_array_equal(split.groups, larger.groups[here])


def test_the_description_tells_the_numbers(dataset):
    for label, name in enumerate(dataset.class_names):
        for side, split in dataset.splits.items():
            line = next(line for line in dataset.description.splitlines() if line.startswith(f"- {name}, {side}:"))
            total, detail = re.fullmatch(r".*: (\d+) windows \(by record, (.*)\)", line).groups()
            by_record = [int(item.split(": ")[1]) for item in detail.split(", ")]
            assert int(total) == sum(by_record) == split.class_counts(dataset.classes)[label]
    assert "ODC-By" in dataset.licence
    assert "physionet.org" in dataset.source


def test_it_is_small_enough_to_ship():
    file = importlib.resources.files("echograd.workbench.data").joinpath("_bundled", "ecg_rhythm.npz")
    assert len(file.read_bytes()) < 3_500_000


def test_loading_needs_neither_folder_nor_network(dataset, tmp_path):
    again = load(dataset.name, root=tmp_path / "nowhere", download=False)
    np.testing.assert_array_equal(again.test.inputs, dataset.test.inputs)


def test_irregular_beats_can_be_seen_in_the_envelope():
    """A hand-made measure of irregularity tells atrial fibrillation from sinus rhythm in unseen patients."""
    dataset = load("ecg-afib-envelope")

    def irregularity(split):
        signal = split.inputs[..., 0] - split.inputs[..., 0].mean(axis=1, keepdims=True)
        power = np.abs(np.fft.rfft(signal, 1024, axis=1)) ** 2
        correlation = np.fft.irfft(power, axis=1)
        correlation = correlation / correlation[:, :1]
        # A regular rhythm comes back to itself after one, two, three... beats of 0.4 to 2 s.
        return -correlation[:, 18:90].max(axis=1)

    train, test = irregularity(dataset.train), irregularity(dataset.test)
    candidates = np.quantile(train, np.linspace(0.02, 0.98, 97))

    def balanced_accuracy(score, targets, threshold):
        fibrillation = score > threshold
        return (fibrillation[targets == 1].mean() + (~fibrillation[targets == 0]).mean()) / 2

    best = max(candidates, key=lambda c: balanced_accuracy(train, dataset.train.targets, c))
    assert balanced_accuracy(test, dataset.test.targets, best) > 0.7


class TestSlopeEnvelope:
    def beats(self, times, rate=90.0, leads=((1.0, 0.4),)):
        t = np.arange(900) / rate
        wave = sum(np.exp(-((t - time) ** 2) / (2 * 0.015**2)) for time in times)
        return np.stack([np.stack([gain * wave for gain in pair], axis=1) for pair in leads])

    def test_it_peaks_where_the_beats_are(self):
        times = np.array([1.0, 1.9, 2.7, 4.1, 5.0, 6.2, 7.0, 8.4])
        envelope = slope_envelope(self.beats(times), 90.0)
        assert envelope.shape == (1, 450, 1)
        assert envelope.dtype == np.float32
        for time in times:
            around = envelope[0, round(time * 45) - 4 : round(time * 45) + 5, 0]
            assert around.max() > 0.8 * envelope.max()
        between = envelope[0, round(3.4 * 45), 0]
        assert between < 0.05 * envelope.max()

    def test_gain_and_polarity_do_not_matter(self):
        one = slope_envelope(self.beats([1.0, 3.0, 7.0]), 90.0)
        other = slope_envelope(self.beats([1.0, 3.0, 7.0], leads=((-30.0, 0.02),)), 90.0)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

    def test_cases_do_not_mix(self):
        both = self.beats([1.0, 3.0], leads=((1.0, 2.0), (5.0, -1.0)))
        both[1] += np.random.default_rng(0).normal(size=both[1].shape)
        np.testing.assert_allclose(slope_envelope(both, 90.0)[:1], slope_envelope(both[:1], 90.0), rtol=1e-6)

    def test_a_flat_lead_is_refused(self):
        with pytest.raises(ValueError, match="lead 1 of case 0 is constant"):
            slope_envelope(self.beats([1.0], leads=((1.0, 0.0),)), 90.0)

    def test_a_low_rate_is_refused(self):
        with pytest.raises(ValueError, match=r"at least 18\.75 Hz"):
            slope_envelope(self.beats([1.0]), 15.0)
