"""Counting operators: FLOPs by hand, memory by the obvious sum and by the allocator, on real and on fake tensors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision.ops import deform_conv2d, nms, roi_align

from pipeline_steps.estimates.accounting import Accountant


def counted(function, fake=False):
    if fake:
        with FakeTensorMode(), Accountant() as accountant:
            function()
    else:
        with Accountant() as accountant:
            function()
    return accountant


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.grouped = nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=4, bias=False)
        self.enlarge = nn.ConvTranspose2d(16, 6, 2, stride=2, bias=False)
        self.last = nn.Linear(6, 5)

    def forward(self, x):
        return self.last(self.enlarge(self.grouped(self.first(x))).mean((2, 3)))


# Multiplications of a forward pass of 2 images of 10 x 12 pixels, by hand.
FIRST = 2 * 10 * 12 * 8 * 3 * 9
GROUPED = 2 * 5 * 6 * 16 * (8 // 4) * 9
ENLARGE = 2 * 5 * 6 * 16 * 6 * 4
LAST = 2 * 6 * 5


@pytest.mark.parametrize("fake", [False, True])
def test_flops_of_a_small_network_counted_by_hand(fake):
    def step():
        Small()(torch.zeros(2, 3, 10, 12)).sum().backward()

    flops = counted(step, fake).flops
    # Backward: as much for the input's gradient and for the weight's; the image itself needs no gradient.
    assert flops["grouped"] == 2 * 3 * GROUPED
    assert flops["dense"] == 2 * (2 * FIRST + 3 * ENLARGE + 3 * LAST)


def test_flops_of_a_deformable_convolution_are_the_plain_ones_and_the_sampling():
    def convolve(train):
        x = torch.zeros(2, 8, 6, 7, requires_grad=train)
        weight, offset = torch.zeros(16, 2, 3, 3, requires_grad=train), torch.zeros(2, 18, 6, 7, requires_grad=train)
        out = deform_conv2d(x, offset, weight, padding=1)
        if train:
            out.sum().backward()

    columns, multiplications = 2 * 8 * 9 * 6 * 7, 2 * 6 * 7 * 16 * 2 * 9
    assert counted(lambda: convolve(False)).flops == {"deformable": 2 * multiplications + 8 * columns}
    assert counted(lambda: convolve(True)).flops == {"deformable": 3 * 2 * multiplications + 8 * columns + 24 * columns}


def test_flops_of_roi_align_and_nms_are_those_of_their_samples_and_pairs():
    boxes = torch.tensor([[0, 0, 0, 4, 4]] * 3, dtype=torch.float)
    flops = counted(lambda: roi_align(torch.zeros(1, 5, 8, 8), boxes, 7, sampling_ratio=2)).flops
    assert flops == {"dense": 3 * 5 * 7 * 7 * 4 * 8}
    assert counted(lambda: nms(torch.rand(40, 4), torch.rand(40), 0.5)).flops == {"dense": 10 * 40 * 40 // 2}


def test_memory_is_the_sum_of_what_is_held():
    with Accountant() as accountant:
        a = torch.zeros(1000)
        view = a.view(10, 100)[3]  # shares its memory
        b = torch.zeros(3, dtype=torch.int64)  # rounded to a block of 512 bytes
        assert accountant.held == 4096 + 512
        del a
        assert accountant.held == 4096 + 512
        del view
        assert accountant.held == 512
        del b
        assert accountant.held == 0
    assert accountant.peak == 4608


@pytest.mark.parametrize("fake", [False, True])
def test_saved_activations_are_held_until_the_backward_pass_has_used_them(fake):
    size = 1 << 20

    def step():
        x = torch.zeros(size, requires_grad=True)
        y = x
        for _ in range(5):
            y = y.exp()  # saves its output
        y.sum().backward()

    # The leaf, five outputs and, at the first backward step, the gradient of the last and the product it makes.
    assert counted(step, fake).peak // (4 * size) == 1 + 5 + 2


def test_fake_and_real_tensors_are_counted_alike_and_the_allocator_agrees():
    """A residual block with batch normalisation, forward and backward, against the peak that torch's profiler saw."""

    def step():
        torch.manual_seed(0)
        body = nn.Sequential(
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True), nn.Conv2d(32, 32, 1)
        )
        x = torch.zeros(2, 32, 64, 64)
        y = x
        for _ in range(4):
            y = F.relu_(y + body(y))
        y.mean().backward()

    real, fake = counted(step), counted(step, fake=True)
    assert fake.flops == real.flops
    assert fake.peak == pytest.approx(real.peak, rel=0.001)
    assert allocated_peak(step) == pytest.approx(real.peak, rel=0.15)


def allocated_peak(function):
    """Peak of torch's CPU allocator in bytes, with what kernels take for themselves."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        function()
    totals = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for change in totals:
        held += change
        peak = max(peak, held)
    return peak
