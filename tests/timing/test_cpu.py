"""The load of the CPU: on planted files of a kernel that never was, then beside a process that is really busy."""

import os
import subprocess
import sys
import time

import pytest

from hilo_nas.timing.cpu import CpuWatch


class FakeKernel:
    """A folder with the files of /proc and /sys/fs/cgroup, and a clock.

    Args:
        root: The folder.
        cores: How many there are.
        used: By their numbers, the cores that this process may use; all if left out.
    """

    def __init__(self, root, cores=2, used=None):
        self.root, self.used = root, list(range(cores)) if used is None else used
        self.now = self.own_s = 0.0
        self.busy = [50.0] * cores
        self.steal = [1.0] * cores
        self.processes = {}
        (root / "proc/self").mkdir(parents=True)
        self.write()

    def write(self):
        lines = [
            f"{round(100 * busy)} 0 0 {round(100 * (900 + self.now))} 7 0 0 {round(100 * steal)} 0 0"
            for busy, steal in zip(self.busy, self.steal, strict=True)
        ]
        rows = [f"cpu{i} {line}" for i, line in enumerate(lines)]
        total = [sum(int(line.split()[i]) for line in lines) for i in range(10)]
        text = "\n".join(["cpu  " + " ".join(map(str, total)), *rows, "intr 4 5", "cpufreq 1"])
        (self.root / "proc/stat").write_text(text)
        for pid, (name, seconds) in self.processes.items():
            folder = self.root / "proc" / str(pid)
            folder.mkdir(exist_ok=True)
            ticks = round(100 * seconds)
            (folder / "stat").write_text(f"{pid} ({name}) R 1 1 1 0 -1 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 12345 0 0")

    def watch(self):
        return CpuWatch(root=self.root, clock=lambda: self.now, own_seconds=lambda: self.own_s, cores=self.used)

    def go_on(self, seconds, *, own=0.0, loads=(), steal=0.0, **processes):
        """So much time goes by; `loads` are what others use of each core, the others `p7=0.5` what process 7 uses."""
        self.now += seconds
        self.own_s += own * seconds
        self.busy[self.used[0]] += own * seconds
        for i, load in enumerate(loads):
            self.busy[i] += load * seconds
        self.steal[self.used[0]] += steal * seconds
        for name, cores in processes.items():
            command, before = self.processes.get(int(name[1:]), ("python", 0.0))
            self.processes[int(name[1:])] = (command, before + cores * seconds)
        self.write()


@pytest.fixture
def kernel(tmp_path):
    return FakeKernel(tmp_path)


@pytest.mark.parametrize(
    ("load", "others", "steal"),
    [
        ({}, 0.0, 0.0),
        ({"own": 2.0}, 0.0, 0.0),
        ({"loads": (1.0, 0.5)}, 1.5, 0.0),
        ({"own": 1.0, "loads": (0.0, 0.5)}, 0.5, 0.0),
        ({"own": 1.0, "steal": 0.25}, 0.0, 0.25),
    ],
)
def test_what_others_used_and_what_the_host_withheld_are_told_apart(kernel, load, others, steal):
    kernel.go_on(10, own=0.3, loads=(1.0, 1.0))  # before the watch
    watch = kernel.watch()
    kernel.go_on(4, **load)
    seen = watch.read()
    assert (seen["cores"], seen["others_cores"], seen["steal_cores"]) == (2, others, steal)
    assert seen["quietest"] == {"others_cores": others, "steal_cores": steal, "throttled_cores": 0.0}


def test_cores_that_this_process_may_not_use_are_none_of_its_business(tmp_path):
    kernel = FakeKernel(tmp_path, cores=4, used=[2, 3])
    watch = kernel.watch()
    kernel.go_on(2, loads=(1.0, 1.0, 0.25, 0.0))
    seen = watch.read()
    assert (seen["cores"], seen["others_cores"]) == (2, 0.25)


def test_a_kernel_that_numbers_cores_otherwise_tells_of_all_of_them(tmp_path):
    kernel = FakeKernel(tmp_path, cores=2)
    watch = CpuWatch(root=tmp_path, clock=lambda: kernel.now, own_seconds=lambda: 0.0, cores=[40, 41])
    kernel.go_on(2, loads=(1.0, 0.5))
    assert watch.read()["others_cores"] == 1.5


@pytest.mark.parametrize(
    ("loads", "mean", "least"),
    [
        ([1.0] * 10, 1.0, 1.0),
        ([1.0, 1.0, 1.0, 0.0] * 5, 0.75, 0.0),  # bursts leave quiet rounds
        ([0.0] * 5 + [1.0] * 5, 0.5, 0.0),  # a load that began half way
        ([0.9, 0.6, 0.9, 0.8, 0.9], 0.82, 0.6),
    ],
)
def test_the_quietest_fifth_tells_bursts_from_a_constant_load(kernel, loads, mean, least):
    watch = kernel.watch()
    for load in loads:
        for _ in range(4):
            kernel.go_on(0.06, loads=(load,))
            watch.look()
    seen = watch.read()
    assert seen["others_cores"] == pytest.approx(mean, abs=0.03)
    assert seen["quietest"]["others_cores"] == pytest.approx(least, abs=0.03)


def test_counts_that_do_not_quite_agree_make_nobody_negative(kernel):
    watch = kernel.watch()
    kernel.go_on(1, own=1.0, loads=(-0.02,))
    assert watch.read()["others_cores"] == 0.0


@pytest.mark.parametrize("seconds", [0.0, 0.02, 0.09])
def test_a_watch_over_a_few_of_the_kernels_ticks_says_nothing(kernel, seconds):
    watch = kernel.watch()
    kernel.go_on(seconds, loads=(30.0,))  # ticks that were booked late
    assert watch.read() == {}


@pytest.mark.parametrize("text", ["", "cpu", "cpu a b c d e f g h", "cpu 1 2 3"])
def test_a_kernel_that_does_not_tell_is_asked_in_vain(kernel, text):
    (kernel.root / "proc/stat").write_text(text)
    watch = kernel.watch()
    kernel.now += 1
    watch.look()
    assert watch.read() == {}


# Control groups.


@pytest.mark.parametrize(
    ("groups", "file", "before", "after"),
    [
        ("0::/", "cpu.stat", "usage_usec 5\nthrottled_usec 1000000\n", "usage_usec 9\nthrottled_usec 3000000\n"),
        ("0::/job/task", "job/cpu.stat", "throttled_usec 0", "throttled_usec 2000000"),  # the limit of a parent
        ("3:cpuset:/\n1:cpu,cpuacct:/job", "cpu,cpuacct/job/cpu.stat", "throttled_time 7", "throttled_time 2000000007"),
        ("1:cpu:/elsewhere", "cpu/cpu.stat", "throttled_time 0", "throttled_time 2000000000"),  # seen from inside
        ("0::/../other", "cpu.stat", "throttled_usec 0", "throttled_usec 2000000"),
    ],
)
def test_time_that_a_cpu_limit_withheld_is_told(kernel, groups, file, before, after):
    (kernel.root / "proc/self/cgroup").write_text(groups + "\n")
    limit = kernel.root / "sys/fs/cgroup" / file
    limit.parent.mkdir(parents=True)
    limit.write_text(before)
    watch = kernel.watch()
    kernel.go_on(4, own=1.5)
    limit.write_text(after)
    assert watch.read()["throttled_cores"] == 0.5


# Who it was.


def test_the_busiest_processes_are_named_with_their_cores(kernel):
    for pid, command in ((7, "python"), (8, "a b) c"), (9, "x\x1b[2J"), (10, "idle"), (11, "less")):
        kernel.processes[pid] = (command, 100.0)
    kernel.write()
    watch = kernel.watch()
    kernel.go_on(4, p7=0.25, p8=1.0, p9=0.5, p10=0.01, p11=0.125, p12=0.75)  # the last one is new
    assert watch.read()["with"] == [
        {"pid": 8, "name": "a b) c", "cores": 1.0},
        {"pid": 12, "name": "python", "cores": 0.75},
        {"pid": 9, "name": "x?[2J", "cores": 0.5},
    ]


def test_a_process_with_the_number_of_another_is_not_taken_for_it(kernel):
    kernel.processes[7] = ("old", 100.0)
    kernel.write()
    watch = kernel.watch()
    kernel.go_on(4)
    stat = kernel.root / "proc/7/stat"
    stat.write_text(stat.read_text().replace("(old)", "(new)").replace("12345", "99999").replace("10000", "200"))
    assert watch.read()["with"] == [{"pid": 7, "name": "new", "cores": 0.5}]


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="the kernel has no /proc/stat")
def test_a_busy_process_is_seen_and_named():
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        try:
            busy.stdout.readline()
            watch = CpuWatch()
            time.sleep(0.8)
            seen = watch.read()
        finally:
            busy.kill()
    assert seen["others_cores"] > 0.2
    assert seen["cores"] == len(os.sched_getaffinity(0))
