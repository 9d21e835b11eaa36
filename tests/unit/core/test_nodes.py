"""Machines meet in the run folder, or say that they do not share it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from genloop.nodes import node_of, together


def start(run, node, nodes, seconds=5.0, late=False):
    with together(run, node, nodes, seconds=seconds, late=late):
        return node


def test_all_nodes_of_one_folder_meet_also_beside_files_of_an_earlier_start(tmp_path):
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(lambda node: start(tmp_path / "run", node, 3), range(3))) == [0, 1, 2]
    assert len(list((tmp_path / "run/logs").iterdir())) == 3


def test_files_of_an_earlier_start_do_not_pass_for_a_node(tmp_path):
    run = tmp_path / "run"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda node: start(run, node, 2), range(2)))
    with pytest.raises(TimeoutError, match=r"node 0 .* and node 1 have not met"):
        start(run, 0, 2, seconds=0.3)


def test_a_failure_behind_the_meeting_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="bad"), together(tmp_path / "run", 0, 2, late=True):
        raise ValueError("bad")
    assert not (tmp_path / "run").exists()


def test_a_late_node_joins_a_run_that_the_first_has_begun(tmp_path):
    with pytest.raises(TimeoutError):
        start(tmp_path / "run", 1, 2, seconds=0.2, late=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/run.json").write_text("{}")
    assert start(tmp_path / "run", 1, 2, late=True) == 1


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, (0, 1)),
        ({"GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"}, (1, 2)),
        ({"SLURM_NODEID": "3", "SLURM_STEP_NUM_NODES": "4"}, (3, 4)),
        ({"SLURM_NODEID": "0"}, (0, 1)),
    ],
)
def test_a_launcher_says_which_node_this_is(environment, found):
    assert node_of(environment) == found
