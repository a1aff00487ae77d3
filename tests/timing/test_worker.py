import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from full_disk import run_on_full_disk
from procs import is_alive, wait_for

from hilo_nas.errors import DataError, OutOfMemoryError, ProxyError, WorkerDiedError, WorkerFailedError, WorkerHungError
from hilo_nas.events import Notice
from hilo_nas.timing.worker import Worker, call_twice


def ignore(event):
    pass


@pytest.fixture
def worker(tmp_path):
    with Worker("timing", tmp_path / "logs" / "worker.log", idle_timeout_s=60) as worker:
        yield worker


def test_a_result_comes_back_as_plain_data(worker):
    arguments = {"number": 1, "list": [1, 2.5, None], "nested": {"a": "b"}}
    assert worker.call("worker_tasks:echo", arguments, ignore) == arguments


def test_events_arrive_in_order_and_before_the_result(worker):
    seen = []
    assert worker.call("worker_tasks:tell", {"times": 3}, seen.append) == 3
    assert seen == [Notice(text=f"step {i}") for i in range(3)]


def test_one_process_serves_many_calls(worker):
    first, second = (worker.call("worker_tasks:who", {}, ignore) for _ in range(2))
    assert first["pid"] == second["pid"] != os.getpid()


def test_the_environment_is_set_before_python_starts(worker):
    found = worker.call("worker_tasks:who", {}, ignore)
    assert (found["OMP_WAIT_POLICY"], found["MALLOC_MMAP_MAX_"]) == ("PASSIVE", "0")


def test_what_a_worker_prints_goes_to_its_log(worker, tmp_path, capfd):
    worker.call("worker_tasks:shout", {}, ignore)
    assert "must not reach" in (tmp_path / "logs" / "worker.log").read_text()
    assert capfd.readouterr() == ("", "")


def test_our_own_errors_arrive_as_themselves_and_the_worker_lives_on(worker):
    before = worker.call("worker_tasks:who", {}, ignore)["pid"]
    with pytest.raises(DataError, match="the data is not there"):
        worker.call("worker_tasks:refuse", {}, ignore)
    assert worker.call("worker_tasks:who", {}, ignore)["pid"] == before


def test_a_foreign_error_is_a_failure_that_names_it(worker):
    with pytest.raises(WorkerFailedError, match="timing failed: ValueError: a fault of somebody's library"):
        worker.call("worker_tasks:stumble", {}, ignore)


def test_running_out_of_memory_is_told_apart_and_ends_the_process(worker):
    before = worker.call("worker_tasks:who", {}, ignore)["pid"]
    for task in ("run_out", "exhaust_address_space"):
        with pytest.raises(OutOfMemoryError):
            worker.call(f"worker_tasks:{task}", {}, ignore)
    assert worker.call("worker_tasks:who", {}, ignore)["pid"] != before
    assert wait_for(lambda: not is_alive(before))


def test_a_process_that_lost_its_gpu_is_replaced(worker):
    before = worker.call("worker_tasks:who", {}, ignore)["pid"]
    with pytest.raises(ProxyError, match=r"mine\.py:score raised"):
        worker.call("worker_tasks:lose_gpu", {}, ignore)
    assert worker.call("worker_tasks:who", {}, ignore)["pid"] != before


def test_a_crash_is_an_error_with_its_last_words_and_the_next_call_works(worker):
    with pytest.raises(WorkerDiedError, match=r"timing ended with exit code 7.*these are my last words"):
        worker.call("worker_tasks:leave", {"code": 7}, ignore)
    assert worker.call("worker_tasks:echo", {"x": 1}, ignore) == {"x": 1}


def test_a_segmentation_fault_is_an_error_with_the_top_of_its_stack(worker):
    with pytest.raises(WorkerDiedError) as caught:
        worker.call("worker_tasks:read_null", {}, ignore)
    said = str(caught.value)
    assert "timing was killed by signal 11; its last output: Fatal Python error: Segmentation fault | File " in said
    assert re.search(r'File "worker_tasks.py", line \d+ in read_null', said)
    assert worker.call("worker_tasks:echo", {"x": 1}, ignore) == {"x": 1}


def test_a_killed_worker_is_reported_with_the_output_of_its_last_call_alone(worker):
    worker.call("worker_tasks:shout", {}, ignore)
    with pytest.raises(WorkerDiedError, match=r"killed by signal 9$"):
        worker.call("worker_tasks:kill_self", {}, ignore)
    with pytest.raises(WorkerDiedError, match=r"killed by signal 9; its last output: step 7$"):
        worker.call("worker_tasks:kill_self", {"words": "step 7"}, ignore)


def test_a_worker_that_hung_without_work_is_replaced_soon_and_its_next_task_done(tmp_path):
    seen = []
    with Worker("timing", tmp_path / "w.log", idle_timeout_s=1.5, start_up_s=600.0) as worker:
        before = worker.call("worker_tasks:who", {}, ignore)["pid"]
        os.kill(before, signal.SIGSTOP)
        after = worker.call("worker_tasks:who", {}, seen.append)["pid"]
    assert after != before
    assert [event.level for event in seen] == ["warning"]
    assert seen[0].text == "timing hung without work and did not answer for 1.5 s; restarting it"
    assert not is_alive(before)


def test_a_kill_by_hand_is_not_taken_for_running_out_of_memory(worker):
    with pytest.raises(WorkerDiedError, match="killed by signal 9"):
        worker.call("worker_tasks:kill_self", {}, ignore)


def test_a_kill_by_the_kernel_is_running_out_of_memory(tmp_path):
    counts = iter([4, 5])
    with (
        Worker("timing", tmp_path / "w.log", count_oom_kills=lambda: next(counts)) as worker,
        pytest.raises(OutOfMemoryError, match="killed by the kernel, out of memory"),
    ):
        worker.call("worker_tasks:kill_self", {}, ignore)


def test_a_silent_worker_is_ended(tmp_path):
    with Worker("timing", tmp_path / "w.log", idle_timeout_s=1.5) as worker:
        with pytest.raises(WorkerHungError, match=r'timing .*1\.5 s.*: File "worker_tasks\.py", line \d+ in hang'):
            worker.call("worker_tasks:hang", {"pid_file": str(tmp_path / "pid")}, ignore)
        assert wait_for(lambda: not is_alive(int((tmp_path / "pid").read_text())))


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder of Python's path, for modules that a worker imports."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_the_time_of_starting_and_importing_is_no_silence(tmp_path, modules):
    (modules / "slow_to_import.py").write_text("import time\ntime.sleep(1.2)\ndef work(*, emit):\n    return 'done'\n")
    with Worker("timing", tmp_path / "w.log", idle_timeout_s=0.6) as worker:
        assert worker.call("slow_to_import:work", {}, ignore) == "done"


def test_a_start_that_takes_for_ever_is_ended(tmp_path, modules):
    (modules / "never_imported.py").write_text("import time\ntime.sleep(600)\n")
    with (
        Worker("timing", tmp_path / "w.log", idle_timeout_s=0.1, start_up_s=0.5) as worker,
        pytest.raises(WorkerHungError, match=r"timing .*0\.5 s"),
    ):
        worker.call("never_imported:work", {}, ignore)


def test_a_worker_that_dies_before_it_begins_is_started_again_once(tmp_path, modules):
    mark = tmp_path / "mark"
    (modules / "killed_at_first.py").write_text(
        f"import os, pathlib\nmark = pathlib.Path({str(mark)!r})\nif not mark.exists():\n"
        "    mark.touch()\n    os.kill(os.getpid(), 9)\ndef work(*, emit):\n    return 'done'\n"
    )
    (modules / "killed_always.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
    told = []
    with Worker("timing", tmp_path / "w.log", idle_timeout_s=60) as worker:
        assert worker.call("killed_at_first:work", {}, told.append) == "done"
        (notice,) = told
        assert "timing was killed by signal 9" in notice.text
        with pytest.raises(WorkerDiedError, match="killed by signal 9"):
            worker.call("killed_always:work", {}, told.append)
    assert len(told) == 2


def test_a_call_of_the_set_up_has_a_second_try_and_other_calls_have_none(worker, tmp_path):
    mark, told = str(tmp_path / "mark"), []
    assert call_twice(worker, "worker_tasks:die_once", {"mark": mark}, told.append) == "done"
    assert [event.level for event in told] == ["warning"]
    Path(mark).unlink()
    with pytest.raises(WorkerDiedError, match="killed by signal 9"):
        worker.call("worker_tasks:die_once", {"mark": mark}, ignore)


def test_an_error_of_the_listener_is_not_taken_for_the_workers_death(worker):
    def leave(event):
        raise BrokenPipeError("whoever read us has left")

    with pytest.raises(BrokenPipeError, match="whoever read us has left"):
        worker.call("worker_tasks:tell", {"times": 3}, leave)
    assert worker.call("worker_tasks:echo", {"x": 1}, ignore) == {"x": 1}


def test_closing_ends_what_the_worker_started(tmp_path):
    worker = Worker("timing", tmp_path / "w.log")
    grandchild = worker.call("worker_tasks:start_grandchild", {}, ignore)
    assert is_alive(grandchild)
    worker.close()
    assert wait_for(lambda: not is_alive(grandchild))


def test_a_worker_dies_with_its_killed_parent(tmp_path):
    script = textwrap.dedent(f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from pathlib import Path
        from hilo_nas.timing.worker import Worker, call_twice
        Worker("timing", Path({str(tmp_path / "w.log")!r})).call(
            "worker_tasks:hang", {{"pid_file": {str(tmp_path / "pid")!r}}}, print)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script])
    assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text()), "the worker never began"
    child = int((tmp_path / "pid").read_text())
    assert is_alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not is_alive(child))


def test_a_full_disk_loses_lines_of_the_log_and_no_result(tmp_path):
    said = run_on_full_disk(
        """
        import sys
        sys.path.insert(0, sys.argv[1])
        from pathlib import Path
        from hilo_nas.timing.worker import Worker
        # full
        with Worker("timing", Path(sys.argv[2])) as worker:
            print(worker.call("worker_tasks:shout", {"times": 300}, print))
            print(worker.call("worker_tasks:echo", {"x": 1}, print))
        """,
        Path(__file__).parents[1],
        tmp_path / "w.log",
    )
    assert said == "True\n{'x': 1}\n"
    assert (tmp_path / "w.log").stat().st_size == 4096
