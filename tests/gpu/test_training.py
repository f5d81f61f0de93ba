"""Training on a GPU: agreement with the CPU, the challenge's own models at their own sizes, resuming, waiting.

The tolerances: float32 on both devices (no TF32), sums in another order: 1e-4 of a loss, 1e-3 of a gradient's norm.
"""

from __future__ import annotations

import math

import pytest
import torch

from pipeline_steps.estimates.estimates import MEMORY_FACTOR
from pipeline_steps.estimates.traces import known_traces, make_trace, request
from tests.gpu.models import MEASURED, batch, challenge_recipe, train, trainer_of
from tests.gpu.synchronisations import counted_by_torch, listing, synchronisations


@pytest.fixture
def same_draws(monkeypatch):
    """Anchors and proposals drawn from the front, and the proposals of the first pass in all others: the generators of
    a CPU and a GPU differ, and so does the order of proposals with almost equal scores."""
    import pipeline_steps.modeling.rcnn as rcnn
    import pipeline_steps.modeling.roi_heads as roi_heads

    def first_ones(labels, count, positive_fraction, background, generators):
        drawn = []
        for own in labels:
            positive = ((own != -1) & (own != background)).nonzero()[: int(count * positive_fraction), 0]
            drawn.append((positive, (own == background).nonzero()[: count - len(positive), 0]))
        return drawn

    monkeypatch.setattr(rcnn, "sample_labels", first_ones)
    monkeypatch.setattr(roi_heads, "sample_labels", first_ones)
    kept = []
    propose = rcnn.LvisRPN.predict_proposals

    def same_proposals(self, *arguments):
        if not kept:
            kept.extend(image.to("cpu") for image in propose(self, *arguments))
        return [image.to(arguments[1][0].device) for image in kept]

    monkeypatch.setattr(rcnn.LvisRPN, "predict_proposals", same_proposals)


def losses_and_gradients(model, samples):
    from detectron2.utils.events import EventStorage

    model.zero_grad()
    with EventStorage():
        losses = model(samples)
    sum(losses.values()).backward()
    return {name: loss.item() for name, loss in losses.items()}, {
        name: parameter.grad.cpu() for name, parameter in model.named_parameters() if parameter.grad is not None
    }


def test_losses_and_gradients_are_those_of_the_cpu(size, same_draws):
    recipe = challenge_recipe(size, precision="fp32", channels_last=False)
    reference = trainer_of(recipe, "x101", _on_cpu(size)).model
    samples = batch(256 if size.on_gpu else size.edges[-1])
    wanted, gradients = losses_and_gradients(reference, samples)
    model = trainer_of(recipe, "x101", size).model
    model.load_state_dict(reference.state_dict())
    found, found_gradients = losses_and_gradients(model, samples)
    assert found.keys() == wanted.keys() >= {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert found_gradients.keys() == gradients.keys()
    largest = max(float(gradient.norm()) for gradient in gradients.values())
    for name, gradient in gradients.items():
        difference = float((found_gradients[name] - gradient).norm())
        assert difference <= 1e-3 * float(gradient.norm()) + 1e-5 * largest, name


def _on_cpu(size):
    return type(size)(torch.device("cpu"), size.options, size.edges, size.iterations)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", ["x101", "se154"])
def test_the_challenge_models_train_at_their_own_sizes(size, name, precision, caplog):
    """Ten iterations of config/challenge.yaml on random images up to its largest, masks and boxes only; no fallback."""
    if not size.on_gpu and name == "se154":
        pytest.skip("SENet-154 cannot be made small; tests/modeling trains it on a CPU")
    recipe = challenge_recipe(size, precision=precision)
    trainer = trainer_of(recipe, name, size)
    if size.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    edges = [size.edges[number % len(size.edges)] for number in range(size.iterations)]
    losses = train(trainer, [batch(edge, seed=2 * number) for number, edge in enumerate(edges)])
    assert len(losses) == size.iterations
    assert all(math.isfinite(value) for of_one in losses for value in of_one.values())
    assert not [record for record in caplog.records if "CPU" in record.message or "memory" in record.message]
    if precision == "fp16":
        assert trainer.scaler.get_scale() > 1
    moved = [
        name for name, value in trainer.model.state_dict().items() if not bool(torch.isfinite(value.float()).all())
    ]
    assert not moved
    if size.on_gpu:
        check_peak(recipe, name, max(edges))


def check_peak(recipe, name, edge):
    """The measured peak lies between the estimate of the tensors and that with what is added for kernels."""
    wanted = request(recipe, name, "train", 2)
    trace = known_traces().get(wanted.key) or make_trace(recipe, name, wanted)
    estimated = trace.peak_at((edge + (-edge) % 32) * (edge * 4 // 3 + (-(edge * 4 // 3)) % 32)) / 2**30
    measured = torch.cuda.max_memory_allocated() / 2**30
    MEASURED.append(
        f"peak memory, {name} {wanted.precision}, 2 images of {edge} x {edge * 4 // 3}: {measured:.1f} GiB, estimate "
        f"{estimated:.1f} GiB ({measured / estimated:.2f} times)"
    )
    assert 0.8 * estimated < measured < MEMORY_FACTOR * estimated + 1, MEASURED[-1]


def same_bits(a, b):
    """Whether two states are equal, tensor by tensor and value by value."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a.cpu(), b.cpu())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same_bits, a, b))
    return a == b or (a != a and b != b)


def weights_after(recipe, size, batches, stop_at=None, file=None):
    trainer = trainer_of(recipe, "x101", size)
    if stop_at is None:
        train(trainer, batches)
    else:
        train(trainer, batches[:stop_at])
        torch.save(trainer.state(), file)
        saved = torch.load(file, map_location="cpu", weights_only=False)
        trainer = trainer_of(recipe, "x101", size, seed=1)
        trainer.load_state(saved)
        restored = trainer.state()
        assert same_bits(restored, saved)  # weights, momentum, scaler, counters, random states: every bit
        train(trainer, batches[stop_at:])
    return {name: value.float().cpu() for name, value in trainer.model.state_dict().items()}


def difference(a, b):
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_resuming_is_exact(size, tmp_path):
    """A training that was stopped and resumed ends as far from an uninterrupted one as a second uninterrupted one does:
    equal in every bit on a CPU; on a GPU some kernels add in whatever order (roi_align, deform_conv2d backward)."""
    recipe = challenge_recipe(size, precision="fp16" if size.on_gpu else "bf16")
    batches = [batch(size.edges[-1], seed=4 * number) for number in range(4)]
    straight, again = (weights_after(recipe, size, batches) for _ in range(2))
    resumed = weights_after(recipe, size, batches, 2, tmp_path / "state.pth")
    spread = difference(straight, again)
    MEASURED.append(f"resumed training: differs by {difference(straight, resumed):.3g}, a repeated one by {spread:.3g}")
    assert difference(straight, resumed) <= 3 * spread
    if not size.on_gpu:
        assert spread == 0


MOST_SYNCHRONISATIONS = 80
KNOWN = {"sample_labels", "_mask_loss", "_forward_backward", "_report", "from_samples"}
"""Functions of ours in which a step waits; ``from_samples`` looks at facts that are on the CPU."""


def test_a_training_step_waits_only_where_it_is_known(size):
    """Operators that make the CPU wait for the GPU, in one step of two images: the list of tests/gpu/README.md."""
    recipe = challenge_recipe(size)
    trainer = trainer_of(recipe, "x101", size)
    batches = [batch(size.edges[-1], seed=number) for number in range(5)]
    train(trainer, batches[:2])  # statistics are logged in some iterations only
    with synchronisations() as found:
        train(trainer, batches[2:3])
    text = listing(found)
    MEASURED.append(f"synchronisations of a training step of 2 images: {sum(found.values())}\n{text}")
    if size.on_gpu:
        seen = counted_by_torch(lambda: train(trainer, batches[3:4]))
        MEASURED.append(f"  torch counts {seen}")
    assert sum(found.values()) <= MOST_SYNCHRONISATIONS, text
    ours = {line.split()[-1] for _, line in found if line.startswith("pipeline_steps/")}
    assert ours <= KNOWN, text
