"""The training benchmarks go through all their steps at the smallest sizes; the one for GPUs too, on a CPU."""

from __future__ import annotations

import argparse
import math

import pytest
import torch

from tests.benchmarks import deformable, gpu_training
from tests.benchmarks.training_iteration import iteration_row


@pytest.mark.slow
def test_gpu_benchmark_trains_both_contenders_on_a_cpu_too():
    (row,) = gpu_training.main(["--device", "cpu", "--cases", "r50_fpn:64", "--images", "1", "--rounds", "1"])
    assert row.hot_path.startswith("train r50_fpn, 1 images of 64 x 85, bf16 (")
    assert row.baseline > 0 < row.ours


def test_gpu_benchmark_takes_out_of_memory_for_a_result():
    def full() -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    assert gpu_training._fits(full) == math.inf
    assert gpu_training._fits(lambda: 3.0) == 3.0


def test_cases_are_a_detector_and_an_edge():
    assert gpu_training.case("x101_dcn_fpn:1050") == ("x101_dcn_fpn", 1050)
    with pytest.raises(argparse.ArgumentTypeError, match="DETECTOR:EDGE"):
        gpu_training.case("x101_dcn_fpn")


@pytest.mark.slow
def test_iteration_benchmark_measures_both_trainers():
    row = iteration_row("fp32", pairs=1, iterations=1)
    assert row.baseline > 0 < row.ours
    assert row.runs == 1


def test_deformable_benchmark_compares_both_operators():
    measured = deformable.main(["--small", "--runs", "1"])
    assert [row.hot_path.rpartition("; ")[2] for row in measured] == ["forward", "forward and backward"]
    assert all(row.equal and row.baseline > 0 < row.ours for row in measured)
