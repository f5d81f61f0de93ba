"""Synchronised normalisation on CPUs: two processes against one on the joined batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pipeline_steps.modeling.normalization import ProcessBatchNorm2d, synchronise_on_cpu
from tests.modeling import workers


def test_two_processes_equal_batch_normalisation_of_the_joined_batch_forward_and_backward(tmp_path):
    """Processes hold different numbers of values, and channels far from zero."""
    channels = 6
    generator = torch.Generator().manual_seed(0)
    offsets = torch.linspace(0, 300, channels)[:, None, None]
    parts = [torch.randn(count, channels, 7, 5, generator=generator) + offsets for count in (1, 3)]
    seeds = [torch.randn(part.shape, generator=generator) for part in parts]

    layer = nn.BatchNorm2d(channels)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(0.5, 2, channels))
    joined = torch.cat(parts).requires_grad_()
    expected = layer(joined)
    (expected * torch.cat(seeds)).sum().backward()
    layer(torch.cat(parts) * 2)

    results = workers.run_in_processes(workers.normalise, tmp_path, parts, seeds, channels)
    torch.testing.assert_close(torch.cat([r["out"] for r in results]), expected.detach(), rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(torch.cat([r["x"] for r in results]), joined.grad, rtol=1e-4, atol=2e-4)
    for result in results:
        gradients = torch.cat([layer.weight.grad, layer.bias.grad])
        torch.testing.assert_close(result["parameters"], gradients, rtol=1e-4, atol=1e-3)
        for name, value in layer.state_dict().items():
            torch.testing.assert_close(result["state"][name], value, rtol=1e-5, atol=1e-5, msg=name)


def test_detector_on_two_processes_has_the_gradient_of_one_process_on_the_joined_batch(tmp_path):
    """The shares differ widely in their numbers of masks, and one has an image without any."""
    joined = workers.detector_gradients(0, [[0, 1, 2, 3]])
    for result in workers.run_in_processes(workers.detector_gradients, tmp_path, [[0, 1], [2, 3]]):
        for name, value in joined["losses"].items():
            torch.testing.assert_close(result["losses"][name], value, rtol=1e-3, atol=1e-5, msg=name)
        for name, gradient in joined["gradients"].items():
            scale = gradient.abs().max()
            torch.testing.assert_close(result["gradients"][name] / scale, gradient / scale, rtol=0, atol=5e-3, msg=name)


@pytest.mark.parametrize("training", [True, False])
def test_one_process_is_plain_batch_normalisation(training):
    ours, plain = ProcessBatchNorm2d(3).train(training), nn.BatchNorm2d(3).train(training)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(ours(x), plain(x))
    assert torch.equal(ours.running_var, plain.running_var)


def test_replacing_synchronised_layers_keeps_names_and_values():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.SyncBatchNorm(4, eps=1e-3, momentum=0.2)), nn.ReLU())
    nn.init.uniform_(model[1][0].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    synchronise_on_cpu(model)
    assert type(model[1][0]) is ProcessBatchNorm2d
    assert (model[1][0].eps, model[1][0].momentum) == (1e-3, 0.2)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
