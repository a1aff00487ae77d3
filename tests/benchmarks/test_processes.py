"""Work in several real processes: all of it is done, and none of them is left behind or waited for in vain."""

import multiprocessing
import os
import time

import pytest

from benchmarks.samplers.processes import map_unordered
from hilo_nas.errors import WorkerDiedError


@pytest.mark.parametrize("jobs", [1, 2])
def test_all_is_done(jobs):
    found = map_unordered(abs, [-1, 2, -3], jobs=jobs, initializer=time.strptime, initargs=("1", "%S"))
    assert sorted(found) == [1, 2, 3]


def test_what_a_process_raises_is_raised_here_and_none_is_left():
    with pytest.raises(TypeError, match="bad operand type"):
        list(map_unordered(abs, ["one"], jobs=2, initializer=time.time))
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_ends_the_work_with_the_way_out():
    with pytest.raises(WorkerDiedError, match=r"one of 2 processes died.* --jobs\."):
        list(map_unordered(os._exit, [3], jobs=2, initializer=time.time))
    assert multiprocessing.active_children() == []


def test_who_wants_no_more_waits_for_nothing():
    results = map_unordered(time.sleep, [0.0, 600.0, 600.0], jobs=2, initializer=time.time)
    assert next(results) is None
    results.close()
    assert multiprocessing.active_children() == []
