"""Repeat-factor sampling and the data order."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_steps.data.sampling import DataOrder, category_frequencies, rank_batches, repeat_factors


def ragged(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([c for one in lists for c in one], dtype=np.int32), np.cumsum([0, *map(len, lists)])


class TestRepeatFactors:
    def test_factors_by_hand(self):
        """Ten images: category 0 in 9 of them, category 1 in one, category 2 in none; t = 0.4."""
        positives, offsets = ragged([[0], [0], [0], [0], [0], [0], [0], [0], [0, 1], []])
        factors = repeat_factors(positives, offsets, 3, 0.4)
        assert factors[0] == 1.0  # max(1, sqrt(0.4 / 0.9))
        assert factors[8] == 2.0  # sqrt(0.4 / 0.1), the larger of its two categories
        assert factors[9] == 1.0  # no annotations

    def test_report_threshold_at_real_size(self):
        """A category with one of 57,000 images and t = 0.001 repeats its image sqrt(57) times."""
        positives, offsets = ragged([[0, 1], *([[0]] * 56_999)])
        factors = repeat_factors(positives, offsets, 2, 0.001)
        assert factors[0] == pytest.approx(math.sqrt(57))
        assert (factors[1:] == 1).all()

    @given(
        st.lists(st.lists(st.integers(0, 6), max_size=4, unique=True), min_size=1, max_size=20),
        st.floats(0, 1, exclude_min=True),
    )
    def test_equals_the_formula_written_as_loops(self, images, threshold):
        expected = []
        for image in images:
            factor = 1.0
            for category in image:
                frequency = sum(category in other for other in images) / len(images)
                factor = max(factor, math.sqrt(threshold / frequency))
            expected.append(factor)
        positives, offsets = ragged(images)
        np.testing.assert_allclose(repeat_factors(positives, offsets, 7, threshold), expected, rtol=1e-12)

    def test_agrees_with_detectron2(self):
        from detectron2.data.samplers import RepeatFactorTrainingSampler

        generator = np.random.default_rng(0)
        images = [sorted(set(generator.integers(0, 40, 3).tolist())) for _ in range(200)]
        records = [{"annotations": [{"category_id": c} for c in image]} for image in images]
        expected = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(records, 0.05).numpy()
        np.testing.assert_allclose(repeat_factors(*ragged(images), 40, 0.05), expected, rtol=1e-6)

    def test_threshold_zero_takes_every_image_once(self):
        assert (repeat_factors(*ragged([[0], [0, 1], []]), 2, 0.0) == 1).all()

    def test_frequencies_count_images_without_annotations(self):
        assert category_frequencies(*ragged([[0], [], [], [0]]), 2).tolist() == [0.5, 0.0]


class TestDataOrder:
    def test_every_image_occurs_floor_or_ceil_of_its_factor_times_in_an_epoch(self):
        factors = np.array([1.0, 2.0, 1.5, 3.25] * 50)
        order = DataOrder(factors, seed=3)
        for epoch in range(4):
            counts = Counter(order.epoch(epoch).tolist())
            assert all(math.floor(f) <= counts[i] <= math.ceil(f) for i, f in enumerate(factors))

    def test_stochastic_rounding_is_right_on_average(self):
        order = DataOrder(np.array([1.0, 1.3, 2.75]), seed=0)
        counts = Counter(int(i) for epoch in range(2000) for i in order.epoch(epoch))
        assert counts[0] == 2000
        assert counts[1] / 2000 == pytest.approx(1.3, abs=0.04)
        assert counts[2] / 2000 == pytest.approx(2.75, abs=0.04)

    def test_any_position_can_be_asked_for_first(self):
        factors = np.array([1.0, 1.5, 2.25, 1.0, 1.1])
        whole = DataOrder(factors, seed=5)
        sequence = [whole[position] for position in range(60)]
        for start in (0, 1, 17, 42, 59):
            fresh = DataOrder(factors, seed=5)
            assert [fresh[position] for position in range(start, 60)] == sequence[start:]

    def test_epochs_differ_and_seeds_differ(self):
        order, other = DataOrder(np.ones(50), seed=0), DataOrder(np.ones(50), seed=1)
        assert order.epoch(0).tolist() != order.epoch(1).tolist()
        assert order.epoch(0).tolist() != other.epoch(0).tolist()
        assert sorted(order.epoch(1).tolist()) == list(range(50))

    def test_grouping_gives_batches_of_one_orientation_and_loses_no_image(self):
        factors = np.where(np.arange(103) % 7 == 0, 2.5, 1.0)
        landscape = np.arange(103) % 3 > 0
        order = DataOrder(factors, seed=1, landscape=landscape, group_size=8)
        plain = DataOrder(factors, seed=1)
        batches = [[order[8 * batch + i] for i in range(8)] for batch in range(100)]
        mixed = sum(len({bool(landscape[i]) for i in batch}) == 2 for batch in batches)
        epochs = order.epoch_of(799) + 1
        assert mixed <= 3 * epochs  # the lead and the remainders of an epoch
        assert mixed < 30
        for epoch in range(epochs):
            assert Counter(order.epoch(epoch).tolist()) == Counter(plain.epoch(epoch).tolist())

    def test_lengths_that_do_not_match_are_refused(self):
        with pytest.raises(ValueError, match="orientations"):
            DataOrder(np.ones(3), 0, landscape=np.ones(4, dtype=bool), group_size=2)
        with pytest.raises(ValueError, match="at least 1"):
            DataOrder(np.array([0.5, 1.0]), 0)
        with pytest.raises(ValueError, match="no images"):
            DataOrder(np.zeros(0), 0)


class TestRankBatches:
    @pytest.mark.parametrize(("world_size", "per_step"), [(1, 8), (2, 4), (4, 1), (1, 2), (8, 1)])
    def test_all_processes_together_see_the_same_images_whatever_their_number(self, world_size, per_step):
        shares = [list(rank_batches(3, 6, 8, per_step, rank, world_size)) for rank in range(world_size)]
        steps = 8 // (world_size * per_step)
        for k in range(3):
            of_iteration = [p for share in shares for batch in share[k * steps : (k + 1) * steps] for p in batch]
            assert sorted(of_iteration) == list(range((3 + k) * 8, (4 + k) * 8))

    def test_a_batch_that_does_not_divide_is_refused(self):
        with pytest.raises(ValueError, match="do not divide"):
            list(rank_batches(0, 1, 8, 3, 0, 2))
