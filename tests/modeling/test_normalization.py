"""Synchronised normalisation on CPUs: two processes against one on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pipeline_steps.modeling.cpu.normalization import ProcessBatchNorm2d, synchronise_on_cpu
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


def assert_equal_to_joined_batch(results: list[dict[str, Any]], joined: dict[str, Any]) -> None:
    for result in results:
        for name, value in joined["losses"].items():
            torch.testing.assert_close(result["losses"][name], value, rtol=1e-3, atol=1e-5, msg=name)
        for kind in ("gradients", "moved"):
            for name, expected in joined[kind].items():
                scale = expected.abs().max().clamp(min=1e-9)
                torch.testing.assert_close(result[kind][name] / scale, expected / scale, rtol=0, atol=5e-3, msg=name)


CASES = {
    "fast modules": {"shares": [[0, 1], [2, 3]], "box_only": {1}},
    "standard modules": {"shares": [[0, 1], [2, 3]], "box_only": {1}, "fast": False},
    "one without masks": {"shares": [[0], [1]], "box_only": {1}},
    "one without masks, bf16": {"shares": [[0], [1]], "box_only": {1}, "precision": "bf16"},
    "none with masks": {"shares": [[0], [1]], "box_only": {0, 1}},
}


@pytest.fixture(scope="module")
def on_two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Results of all cases in each process: starting processes takes longer than the cases."""
    return workers.run_in_processes(workers.detector_cases, tmp_path_factory.mktemp("two"), CASES)


def on_one_process(case: str) -> dict[str, Any]:
    joined = [seed for share in CASES[case]["shares"] for seed in share]
    return workers.detector_gradients(0, **{**CASES[case], "shares": [joined]})


@pytest.mark.parametrize("case", ["fast modules", "standard modules", "one without masks"])
def test_detector_on_two_processes_has_the_gradient_of_one_process_on_the_joined_batch(on_two_processes, case):
    """The shares differ widely in their numbers of masks; one has an image without any, or nothing but that."""
    assert_equal_to_joined_batch([results[case] for results in on_two_processes], on_one_process(case))


@pytest.mark.parametrize("case", ["one without masks", "one without masks, bf16"])
def test_a_process_without_masks_waits_for_the_others_with_nothing_in_its_hands(on_two_processes, case):
    """In float32: torch's SyncBatchNorm sends empty statistics in the type of its input, and others in float32."""
    first, second = (results[case] for results in on_two_processes)
    assert first["mask_head_inputs"][0][0][0] > 0
    ((shape, dtype),) = second["mask_head_inputs"]
    assert shape[0] == 0
    assert dtype == torch.float32
    assert any(gradient.any() for name, gradient in second["gradients"].items() if ".mask_head." in name)
    for name, gradient in first["gradients"].items():
        assert gradient.isfinite().all(), name
        assert torch.equal(gradient, second["gradients"][name]), name


def test_where_no_process_has_masks_the_mask_head_rests(on_two_processes):
    case = "none with masks"
    for result in (*(results[case] for results in on_two_processes), on_one_process(case)):
        assert result["losses"]["loss_mask"] == 0
        assert result["mask_head_inputs"] == []
        for kind in ("gradients", "moved"):
            of_head = {name: tensor for name, tensor in result[kind].items() if ".mask_head." in name}
            assert of_head
            assert not any(tensor.any() for tensor in of_head.values())


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
