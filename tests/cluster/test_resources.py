"""What jobs ask for grows with the attempts, and trainings ask for processes."""

from __future__ import annotations

from pipeline_steps.cluster.resources import growing, growing_hours, processes


def test_further_attempts_get_more_up_to_the_longest_job():
    assert [growing(60)(None, attempt) for attempt in (1, 2, 3)] == [60, 120, 180]
    assert [growing_hours(10, 24)(None, attempt) for attempt in (1, 2, 3)] == [600, 1200, 1440]
    assert growing_hours(0.001, 24)(None, 1) == 1


def test_several_nodes_start_their_own_processes():
    assert processes(8, 1) == {"gpu": 8, "nodes": 1}
    assert processes(0, 1) == {"gpu": 0, "nodes": 1}
    several = processes(4, 2)
    assert (several["gpu"], several["tasks"], several["mpi"]) == (8, 2, "srun")
    assert several["slurm_extra"] == "--gpus-per-node=4"
