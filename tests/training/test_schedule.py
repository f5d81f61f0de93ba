"""Learning rate, length, batch split, optimizer groups, settings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.sampling import rank_batches
from pipeline_steps.recipe import load_recipe, resolve_recipe
from pipeline_steps.recipe.training import Schedule
from pipeline_steps.training.optimizer import build_optimizer, parameter_groups
from pipeline_steps.training.schedule import check_batches, iteration_count, learning_rate, split_batch
from pipeline_steps.training.settings import differences, digest

CONFIG = Path(__file__).parents[2] / "config"
ALONE = {"members": [{"name": "x101"}]}
DETECTRON2_1X = Schedule(images=1_440_000, warmup_images=16_000, learning_rate=0.02, reference_batch=16)


class TestLearningRate:
    @pytest.mark.parametrize(
        ("iteration", "expected"),
        [(499, 0.01), (999, 0.02), (1000, 0.02), (59_999, 0.02), (60_003, 0.002), (80_001, 0.0002), (89_999, 0.0002)],
    )
    def test_detectron2_1x_schedule(self, iteration, expected):
        assert learning_rate(DETECTRON2_1X, 16, iteration) == pytest.approx(expected)
        assert iteration_count(DETECTRON2_1X, 16) == 90_000

    @given(st.integers(1000, 44_999))
    def test_linear_rule_after_the_warm_up_a_batch_twice_as_large_has_twice_the_rate_at_the_same_images(
        self, iteration
    ):
        rate = learning_rate(DETECTRON2_1X, 32, iteration)
        assert rate == pytest.approx(2 * learning_rate(DETECTRON2_1X, 16, 2 * iteration + 1), rel=1e-9)

    def test_cosine_falls_from_the_base_rate_to_zero(self):
        schedule = Schedule(images=800, warmup_images=0, decay="cosine", learning_rate=0.06, reference_batch=8)
        rates = [learning_rate(schedule, 8, k) for k in range(100)]
        assert rates[0] == pytest.approx(0.06)
        assert rates[50] == pytest.approx(0.03)
        assert 0 < rates[99] < 0.0001
        assert rates == sorted(rates, reverse=True)

    def test_warm_up_rises_linearly_and_never_starts_at_zero(self):
        schedule = Schedule(images=800, warmup_images=80, warmup_iterations_min=0, learning_rate=1.0, reference_batch=8)
        assert [round(learning_rate(schedule, 8, k), 6) for k in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]

    @pytest.mark.parametrize(("batch", "length"), [(8, 2000), (16, 1000), (32, 1000), (64, 1000)])
    def test_warm_up_is_never_shorter_than_in_detectron2(self, batch, length):
        """Of the challenge recipe; small batches see its 16,000 images."""
        model = load_recipe(CONFIG / "challenge.yaml").models[0]
        schedule = load_recipe(CONFIG / "challenge.yaml").training_of(model).schedule
        rates = [learning_rate(schedule, batch, iteration) for iteration in range(length + 100)]
        full = 0.02 * batch / 16
        assert rates == pytest.approx([full * min(1, (k + 1) / length) for k in range(length + 100)])

    def test_a_warm_up_of_no_images_is_none_and_the_mini_recipes_is_counted_in_images(self):
        assert learning_rate(Schedule(warmup_images=0), 64, 0) == pytest.approx(0.08)
        mini = load_recipe(CONFIG / "mini.yaml").training
        rates = [learning_rate(mini.schedule, mini.images_per_batch, iteration) for iteration in range(800)]
        assert rates == [  # as written before there was a lower limit
            0.06 * ((8 * k + 8) / 400 if k < 49 else 1) * 0.5 * (1 + math.cos(math.pi * (8 * k / 6400)))
            for k in range(800)
        ]

    def test_last_batch_is_full(self):
        assert iteration_count(Schedule(images=17), 8) == 3


class TestBatchSplit:
    @pytest.mark.parametrize(
        ("batch", "most", "world", "per_step", "steps"),
        [
            *(
                (16, 2, 8, 2, 1),
                (16, 2, 4, 2, 2),
                (16, 3, 2, 2, 4),
                (8, 8, 1, 8, 1),
                (16, 1, 16, 1, 1),
                (12, 4, 4, 3, 1),
            ),
            *((32, 2, 16, 2, 1), (32, 2, 32, 1, 1), (64, 2, 16, 2, 2), (64, 2, 32, 2, 1), (64, 2, 64, 1, 1)),
            *((24, 2, 24, 1, 1), (48, 2, 24, 2, 1), (96, 2, 24, 2, 2)),
        ],
    )
    def test_as_few_steps_as_fit(self, batch, most, world, per_step, steps):
        split = split_batch(batch, most, world)
        assert (split.images_per_step, split.steps) == (per_step, steps)
        shares = [list(rank_batches(0, 2, batch, per_step, rank, world)) for rank in range(world)]
        seen = [position for share in shares for positions in share for position in positions]
        assert sorted(seen) == list(range(2 * batch)), "every image of a batch once, by one process"

    @pytest.mark.parametrize("world", [3, 32])
    def test_processes_that_do_not_divide_the_batch_are_refused_with_those_that_do(self, world):
        with pytest.raises(UserError, match=rf"16 cannot be divided among {world} GPUs: use 1 or 2 or 4 or 8 or 16"):
            split_batch(16, 2, world)

    @pytest.mark.parametrize("nodes", [1, 2, 4, 8])
    def test_the_challenge_recipe_runs_on_up_to_64_gpus_with_the_batch_as_the_only_change(self, nodes):
        for batch in (16, 32, 64):
            overlay = {"training": {"images_per_batch": batch}, "compute": {"training_nodes": nodes}}
            recipe = resolve_recipe({"extends": "challenge.yaml", **overlay})
            if batch >= 8 * nodes:
                check_batches(recipe)
                continue
            advice = f"x101_coco: .*{batch} cannot be divided among {8 * nodes} GPUs: .* set the batch to {8 * nodes}"
            with pytest.raises(UserError, match=advice):
                check_batches(recipe)

    def test_a_batch_of_its_own_is_checked_for_each_model(self):
        experts = [{**resolve_recipe({"extends": "challenge.yaml"}).experts[0].model_dump()}]
        experts[0]["training"]["images_per_batch"] = 12
        with pytest.raises(UserError, match=r"coco_expert: .*12 cannot be divided among 8 GPUs: .*set the batch to 16"):
            check_batches(resolve_recipe({"extends": "challenge.yaml", "experts": experts, "ensemble": ALONE}))


class TestOptimizer:
    def test_each_kind_of_parameter_has_its_weight_decay(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.Linear(4, 2))
        model[3].weight.requires_grad_(False)
        schedule = Schedule(weight_decay=0.1, weight_decay_norm=0.2, weight_decay_bias=0.3)
        groups = {group["name"]: group for group in parameter_groups(model, schedule)}
        assert {name: group["weight_decay"] for name, group in groups.items()} == {
            "weight": 0.1,
            "norm": 0.2,
            "bias": 0.3,
        }
        assert groups["weight"]["params"] == [model[0].weight]
        assert len(groups["norm"]["params"]) == 4
        assert groups["bias"]["params"] == [model[0].bias, model[3].bias]

    def test_a_shared_parameter_is_updated_once(self):
        first = nn.Linear(2, 2)
        second = nn.Linear(2, 2)
        second.weight = first.weight
        groups = parameter_groups(nn.Sequential(first, second), Schedule())
        assert sum(len(group["params"]) for group in groups) == 3

    def test_groups_agree_with_detectron2s_defaults(self):
        from detectron2.solver.build import get_default_optimizer_params

        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))
        schedule = Schedule(weight_decay=0.1, weight_decay_norm=0.2, weight_decay_bias=0.1)
        theirs = get_default_optimizer_params(model, base_lr=1.0, weight_decay=0.1, weight_decay_norm=0.2)
        expected = {id(p): group["weight_decay"] for group in theirs for p in group["params"]}
        mine = {id(p): g["weight_decay"] for g in parameter_groups(model, schedule) for p in g["params"]}
        assert mine == expected

    def test_fused_update_equals_sgd_written_out(self):
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        weight, velocity = model.weight.detach().clone(), torch.zeros(2, 3)
        optimizer = build_optimizer(model, Schedule(momentum=0.9, nesterov=True, weight_decay=0.01, learning_rate=0.1))
        for _ in range(3):
            gradient = torch.randn(2, 3)
            model.weight.grad, model.bias.grad = gradient.clone(), torch.zeros(2)
            optimizer.step()
            gradient = gradient + 0.01 * weight
            velocity = 0.9 * velocity + gradient
            weight = weight - 0.1 * (gradient + 0.9 * velocity)
        torch.testing.assert_close(model.weight.detach(), weight)


class TestSettings:
    def test_differences_are_named_key_by_key(self):
        old = {"training": {"loss": "eql", "schedule": {"images": 8}}, "seed": 0}
        new = {"training": {"loss": "eql", "schedule": {"images": 16}}, "seed": 0, "init": "ab"}
        assert differences(old, new) == ["init: absent -> ab", "training.schedule.images: 8 -> 16"]
        assert differences(old, old) == []

    def test_digest_depends_on_values_and_not_on_the_order_of_keys(self):
        assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        assert digest({"a": 1}) != digest({"a": 2})
