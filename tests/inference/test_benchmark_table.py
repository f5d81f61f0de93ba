"""The benchmarks measure what they say: smallest sizes, equal results, honest ratios."""

from __future__ import annotations

import pytest

from tests.benchmarks import mask_rle, postprocess
from tests.benchmarks.__main__ import FULL_SIZES, main, names
from tests.benchmarks.measure import Row, in_process, in_turns, table


def test_contenders_take_turns_and_the_ratio_is_the_median_over_pairs():
    now = 0.0
    calls = []

    def contender(name: str, cost: float):
        def run(load: float) -> str:
            nonlocal now
            calls.append(name)
            now += cost * load
            return name

        return run

    loads = [(1.0,), (10.0,), (3.0,)]  # load on the machine hits both of a pair alike
    pairs = in_turns(contender("usual", 8.0), contender("ours", 2.0), loads, lambda a, b: a != b, lambda: now)
    assert calls[2:] == ["usual", "ours", "ours", "usual", "usual", "ours"]
    assert (pairs.baseline, pairs.ours, pairs.ratio, pairs.equal, pairs.runs) == (24.0, 6.0, 4.0, True, 3)


def test_one_different_result_is_enough_to_be_called_different():
    pairs = in_turns(lambda x: x, lambda x: min(x, 2), [(1,), (2,), (3,), (1,)], lambda a, b: a == b, _ticks())
    assert pairs.equal is False
    assert "DIFFERENT" in table([pairs.row("path", "usual")])


def _ticks():
    ticks = iter(range(10**6))
    return lambda: float(next(ticks))


def test_peak_memory_is_that_of_the_function_in_its_own_process():
    held = bytearray(300 << 20)  # a large parent must not show
    small, large = (in_process("tests.inference.holding_memory:allocate", size) for size in ("1", "200"))
    assert (small.value, large.value, len(held) >> 20) == (1, 200, 300)
    assert 190 < large.peak_mib - small.peak_mib < 215


def test_the_table_says_what_was_measured():
    text = table([Row("masks", "usual", 0.2, 0.004, "s", True, 5), Row("memory", "usual", 4000, 400, "MiB")])
    assert "| masks    | usual    | 200 ms   | 4 ms    | 50x   | equal   | 5    |" in text
    assert "4000 MiB" in text
    assert "10x" in text


@pytest.mark.parametrize(
    ("benchmark", "argv"),
    [
        (postprocess, ["--images", "1", "--proposals", "60", "--categories", "50"]),
        (mask_rle, ["--images", "1", "--masks", "5", "--height", "60", "--width", "80"]),
    ],
)
def test_results_are_equal_at_small_sizes_too(benchmark, argv):
    rows = benchmark.main(argv)
    assert rows
    assert all(row.equal for row in rows)


def test_unknown_benchmarks_are_refused_and_known_ones_listed(capsys):
    assert main(["nonsense"]) == 2
    assert "postprocess" in capsys.readouterr().err
    assert {"postprocess", "mask_rle", "multi_scale"} <= set(names())
    assert "measure" not in names()


def test_full_sizes_are_options_of_benchmarks_that_exist(monkeypatch):
    ran = {}
    monkeypatch.setattr("tests.benchmarks.__main__.run", lambda name, argv: ran.update({name: argv}))
    main(["--full"])
    assert {name for name, argv in ran.items() if argv} == set(FULL_SIZES) <= set(names())
    main(["evaluation", "--full"])
    assert ran["evaluation"] == FULL_SIZES["evaluation"]
    main(["evaluation"])
    assert ran["evaluation"] == []
