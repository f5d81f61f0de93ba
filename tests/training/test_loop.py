"""The loop on small models: accumulation, processes, stopping, and what must stop it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pipeline_steps.common.errors import UserError
from pipeline_steps.recipe.training import Training
from pipeline_steps.training.distributed import Processes
from pipeline_steps.training.loop import Trainer
from pipeline_steps.training.metrics_file import Averages, MetricsWriter
from pipeline_steps.training.optimizer import parameter_groups
from pipeline_steps.training.schedule import split_batch

ALONE = Processes(0, 1, 0, torch.device("cpu"))


class Regression(nn.Module):
    """A 'detector' whose samples are numbers: losses are means over the samples of a step."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 1)

    def forward(self, samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        x = torch.stack([sample["image"] for sample in samples])
        error = self.layer(x)[:, 0] - x.sum(dim=1)
        return {"loss_square": (error**2).mean(), "loss_absolute": error.abs().mean()}


def settings(**values: Any) -> Training:
    schedule = {
        "images": 80,
        "warmup_images": 0,
        "learning_rate": 0.01,
        "reference_batch": 8,
        **values.pop("schedule", {}),
    }
    return Training(**{"images_per_batch": 8, "max_images_per_gpu": 8, "schedule": schedule, **values})


def batches(per_step: int, start: int = 0) -> Iterator[list[dict[str, Any]]]:
    position = start
    while True:
        generator = [torch.Generator().manual_seed(position + i) for i in range(per_step)]
        yield [
            {"image": torch.randn(3, generator=g), "file_name": f"{position + i}.jpg", "image_id": position + i}
            for i, g in enumerate(generator)
        ]
        position += per_step


def run(trainer: Trainer, data: Iterator | None = None, report=None, save=lambda: None, stop=lambda: False) -> bool:
    data = data or batches(trainer.split.images_per_step, trainer.images_seen)
    return trainer.run(data, report, save, stop)


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]).clone()


class TestAccumulation:
    @pytest.mark.parametrize("most", [1, 2, 4])
    def test_smaller_steps_give_the_same_weights(self, most):
        whole, parts = settings(), settings(max_images_per_gpu=most)
        a = Trainer(Regression(), whole, split_batch(8, 8, 1), ALONE)
        b = Trainer(Regression(), parts, split_batch(8, most, 1), ALONE)
        assert b.split.steps == 8 // most
        assert run(a)
        assert run(b)
        torch.testing.assert_close(weights(a), weights(b), rtol=1e-5, atol=1e-7)

    def test_optimizer_is_plain_sgd_on_the_sum_of_losses(self):
        """Two iterations written out."""
        trainer = Trainer(
            Regression(), settings(schedule={"images": 16, "weight_decay": 0}), split_batch(8, 8, 1), ALONE
        )
        model = Regression()
        velocity = [torch.zeros_like(p) for p in model.parameters()]
        for k, samples in zip(range(2), batches(8)):
            sum(model(samples).values()).backward()
            with torch.no_grad():
                for parameter, v in zip(model.parameters(), velocity):
                    decay = 1e-4 if parameter.ndim == 1 else 0  # weight_decay_bias
                    v.mul_(0.9).add_(parameter.grad + decay * parameter)
                    parameter -= 0.01 * 0.1 ** ((k == 1 and 8 >= 0.6667 * 16) + 0) * v
            model.zero_grad()
        run(trainer)
        torch.testing.assert_close(weights(trainer), torch.cat([p.detach().flatten() for p in model.parameters()]))


class TestHalfPrecision:
    @pytest.mark.parametrize("limit", [0.0, 5.0])
    def test_steps_that_the_scaler_skips_leave_no_trace(self, limit):
        """Also the first, which torch's fused SGD would follow with a momentum of uninitialised memory."""
        training = settings(precision="fp16", schedule={"clip_gradient_norm": limit})
        fused, plain = (Trainer(Regression(), training, split_batch(8, 8, 1), ALONE) for _ in range(2))
        groups = parameter_groups(plain.model, training.schedule)
        plain.optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9, foreach=False)
        before = weights(fused)
        for trainer in (fused, plain):
            trainer.iterations = 1
            run(trainer)
            assert torch.equal(weights(trainer), before)  # the scale of 65,536 overflows
            trainer.iterations = 10
            run(trainer)
            assert trainer.scaler.get_scale() < 65536
        torch.testing.assert_close(weights(fused), weights(plain), rtol=1e-5, atol=1e-7)
        assert not torch.equal(weights(fused), before)


class TestResume:
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    @pytest.mark.parametrize("at", [1, 4, 9])
    def test_state_taken_anywhere_continues_bit_for_bit(self, at, precision):
        def trainer() -> Trainer:
            return Trainer(Regression(), settings(precision=precision), split_batch(8, 8, 1), ALONE)

        straight, first, second = trainer(), trainer(), trainer()
        run(straight)
        assert run(first, stop=lambda: first.iteration + 1 == at) is False
        second.load_state(first.state())
        assert second.iteration == at
        run(second)
        assert second.scaler.state_dict() == straight.scaler.state_dict()
        assert torch.equal(weights(second), weights(straight))

    def test_state_brings_back_the_random_generators(self):
        import random

        import numpy as np

        trainer = Trainer(Regression(), settings(), split_batch(8, 8, 1), ALONE)
        torch.rand(3), random.random(), np.random.rand(), random.gauss(0, 1)
        state = json.loads(json.dumps(trainer.state()["random"][0], default=lambda t: t.tolist()))
        drawn = (torch.rand(1).item(), random.random(), np.random.rand(), random.gauss(0, 1))
        state["torch"] = torch.tensor(state["torch"], dtype=torch.uint8)
        from pipeline_steps.training.checkpoint import restore_random_state

        restore_random_state(state, torch.device("cpu"))
        assert (torch.rand(1).item(), random.random(), np.random.rand(), random.gauss(0, 1)) == drawn

    def test_checkpoints_fall_on_multiples_of_their_interval(self):
        saved = []
        trainer = Trainer(Regression(), settings(checkpoint_images=24), split_batch(8, 8, 1), ALONE)
        run(trainer, save=lambda: saved.append(trainer.images_seen))
        assert saved == [24, 48, 72]


class TestWhatStops:
    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_a_loss_that_is_not_finite_names_iteration_losses_and_images_before_the_update(self, value):
        trainer = Trainer(Regression(), settings(), split_batch(8, 8, 1), ALONE)

        def poisoned() -> Iterator[list[dict[str, Any]]]:
            for k, samples in enumerate(batches(8)):
                if k == 3:
                    self.before = weights(trainer)
                    samples[2]["image"][0] = value
                yield samples

        with pytest.raises(UserError) as caught:
            run(trainer, poisoned())
        message = str(caught.value)
        assert "not finite in iteration 4" in message
        assert "loss_square" in message
        assert "26.jpg (id 26)" in message
        assert torch.equal(weights(trainer), self.before)

    def test_weights_that_are_not_finite_are_never_saved(self):
        trainer = Trainer(Regression(), settings(), split_batch(8, 8, 1), ALONE)
        trainer.check_finite()
        with torch.no_grad():
            trainer.model.layer.weight[0, 1] = math.nan
        with pytest.raises(UserError, match=r"layer\.weight is not finite"):
            trainer.check_finite()

    def test_unreadable_images_are_counted_once_each_and_stop_above_the_limit(self, caplog):
        def data() -> Iterator[list[dict[str, Any]]]:
            for k, samples in enumerate(batches(8)):
                samples[0]["unreadable"] = [(f"bad{k // 2}.jpg", "truncated")]
                yield samples

        trainer = Trainer(Regression(), settings(), split_batch(8, 8, 1), ALONE, max_unreadable_images=2)
        with pytest.raises(UserError, match=r"3 images cannot be read, 2 are allowed.*bad0.jpg: truncated.*bad2.jpg"):
            run(trainer, data())
        assert trainer.iteration == 4
        assert [r.message for r in caplog.records if "bad1" in r.message] == [
            "unreadable image 2, skipped: bad1.jpg (truncated)"
        ]

    def test_unreadable_images_are_remembered_in_the_state(self):
        trainer = Trainer(Regression(), settings(), split_batch(8, 8, 1), ALONE, max_unreadable_images=2)
        trainer.unreadable = {"a.jpg": "truncated"}
        other = Trainer(Regression(), settings(), split_batch(8, 8, 1), ALONE)
        other.load_state(trainer.state())
        assert other.unreadable == {"a.jpg": "truncated"}

    def test_a_wish_to_stop_ends_after_the_iteration_with_a_checkpoint(self):
        saved = []
        trainer = Trainer(Regression(), settings(), split_batch(8, 8, 1), ALONE)
        assert run(trainer, save=lambda: saved.append(trainer.iteration), stop=lambda: trainer.iteration == 5) is False
        assert saved == [6]


class TestReport:
    def test_lines_after_the_restart_point_and_half_lines_are_removed(self, tmp_path: Path):
        path = tmp_path / "metrics.jsonl"
        lines = [json.dumps({"iteration": k, "images": 8 * k}) for k in (10, 20, 30)]
        path.write_text("\n".join(lines) + '\n{"iteration": 4')
        report = MetricsWriter(tmp_path, "x", 40, 20)
        report.write(30, 240, {"loss_a": 1.0, "learning_rate": 0.1}, 5)
        report.close()
        assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == [10, 20, 30]

    def test_every_iteration_is_averaged_exactly_once_also_across_a_restart(self, tmp_path: Path):
        def values(folder: Path) -> list[tuple[int, float]]:
            lines = (folder / "metrics.jsonl").read_text().splitlines()
            return [(line["iteration"], line["loss_square"]) for line in map(json.loads, lines)]

        training = settings(log_images=24)
        straight = Trainer(Regression(), training, split_batch(8, 8, 1), ALONE)
        run(straight, report=MetricsWriter(tmp_path / "a", "x", 10, 0))
        first = Trainer(Regression(), training, split_batch(8, 8, 1), ALONE)
        states = []
        run(first, report=MetricsWriter(tmp_path / "b", "x", 10, 0), save=lambda: states.append(first.state()),
            stop=lambda: first.iteration == 4)  # fmt: skip
        second = Trainer(Regression(), training, split_batch(8, 8, 1), ALONE)
        second.load_state(states[0])
        run(second, report=MetricsWriter(tmp_path / "b", "x", 10, 5))
        assert values(tmp_path / "a") == values(tmp_path / "b")
        assert [k for k, _ in values(tmp_path / "a")] == [1, 3, 6, 9, 10]

    def test_averages(self):
        averages = Averages()
        averages.add({"a": 1.0, "b": 5.0})
        averages.add({"a": 3.0})
        assert averages.take() == {"a": 2.0, "b": 5.0}
        assert averages.take() == {}
