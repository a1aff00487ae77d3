import os
import signal
import statistics
import subprocess
import sys
import textwrap
from pathlib import Path
from random import Random

import pytest
from procs import is_alive, read_stat, wait_for

from hilo_nas.bench.ruler import repeated_passes as passes
from hilo_nas.bench.ruler.bursty_load import bursty_load
from hilo_nas.bench.ruler.resolution import STATISTICS, compare_statistics, cv, relative, summarize_passes
from hilo_nas.bench.ruler.ruler_bench import RulerPlan, draw_ruler_networks, run_ruler
from hilo_nas.bench.ruler.ruler_report import report_ruler
from hilo_nas.errors import MeasurementError, OutOfMemoryError, UsageError
from hilo_nas.events import BenchStepped
from hilo_nas.report import render_markdown
from hilo_nas.space import load_space

NAMES = [f"network {i}" for i in range(8)]


def plan(**fields):
    return RulerPlan(**{"space": load_space("litv2_digits"), "networks": 4, "passes": 3, "device": "cpu", **fields})


# What passes say.


def passes_of(count, *, own=0.0, common=0.0):
    """Speeds of eight networks, 10 % apart; `own` scatters each by itself, `common` all of a pass together."""
    random = Random(0)
    found = []
    for _ in range(count):
        together = random.lognormvariate(0, common)
        found.append({name: 1.1**i * together * random.lognormvariate(0, own) for i, name in enumerate(NAMES)})
    return found


@pytest.mark.parametrize("planted", [0.003, 0.01, 0.03])
def test_a_planted_coefficient_of_variation_is_found(planted):
    found = summarize_passes(passes_of(150, own=planted))
    assert found.cv_anchored_median == pytest.approx(planted, rel=0.1)
    # The mean of the pass takes an eighth of each network's own scatter along.
    assert found.cv_relative_median == pytest.approx(planted * (7 / 8) ** 0.5, rel=0.1)
    assert found.cv_relative_max >= found.cv_relative_median


def test_what_hits_all_networks_of_a_pass_is_no_scatter_between_them():
    found = summarize_passes(passes_of(50, own=0.001, common=0.2))
    assert found.cv_anchored_median > 0.1
    assert found.cv_relative_median < 0.002
    assert found.tau_min == 1.0


def test_a_planted_swap_is_what_tau_falls_by():
    first = {name: float(i) for i, name in enumerate(NAMES, start=1)}
    swapped = {**first, NAMES[2]: first[NAMES[3]], NAMES[3]: first[NAMES[2]]}
    found = summarize_passes([first, first, swapped])
    assert found.tau_min == pytest.approx(1 - 2 / 28)
    assert found.tau_mean == pytest.approx(1 - 2 * (2 / 28) / 3)


def test_the_smallest_ratio_is_distinguished_in_95_percent_of_passes():
    planted = 0.02
    smallest = summarize_passes(passes_of(150, own=planted)).smallest_ratio
    random = Random(1)

    def one_pass():
        return smallest * random.lognormvariate(0, planted) / random.lognormvariate(0, planted)

    # Two networks that far apart stand in the right order but for the 2.5 % of one tail.
    assert statistics.fmean(one_pass() > 1 for _ in range(4000)) == pytest.approx(0.975, abs=0.015)


def test_a_planted_slow_network_is_the_slower_by_its_factor(planted_machine):
    rounds = planted_machine(noise=0.01).rounds({"reference": 0.1, "fast": 0.02, "slow": 0.03})
    for name, statistic in STATISTICS.items():
        fast, slow = (statistic(rounds[network], rounds["reference"]) for network in ("fast", "slow"))
        assert fast / slow == pytest.approx(1.5, rel=0.02), name


def test_relative_speeds_are_free_of_units():
    assert relative({"a": 1.0, "b": 4.0}) == pytest.approx(relative({"a": 100.0, "b": 400.0}))
    assert cv([9.0, 10.0, 11.0]) == pytest.approx(0.1)


def test_statistics_are_compared_on_the_same_samples(planted_machine):
    """Under a neighbour that disturbs a share of the blocks that changes from pass to pass."""
    samples = []
    for i in range(12):
        noisy = planted_machine(noise=0.01, neighbour=0.2 + 0.4 * (i % 2), seed=i)
        samples.append(noisy.rounds({"reference": 0.1, **{name: 0.01 * 1.1**j for j, name in enumerate(NAMES)}}))
    found = compare_statistics(samples, "reference")
    assert list(found) == list(STATISTICS)
    assert found["fast rounds"].cv_relative_median < found["mean"].cv_relative_median / 3
    assert found["fast rounds"].cv_relative_median < found["median of ratios"].cv_relative_median
    assert found["fast rounds"].tau_mean > 0.95


# The bench.


def test_networks_are_drawn_alike_each_time_and_none_twice():
    networks = draw_ruler_networks(plan(networks=24, img_size=32))
    assert len(networks) == 24
    assert networks == draw_ruler_networks(plan(networks=24, img_size=32))
    assert networks.keys() != draw_ruler_networks(plan(networks=24, img_size=32, seed=1)).keys()


def test_a_space_that_holds_too_few_networks_is_refused():
    with pytest.raises(UsageError, match="4 networks must be drawn from litv2_digits, but only 0 were found"):
        draw_ruler_networks(plan(img_size=8))


def test_all_faults_of_a_plan_are_reported_at_once():
    with pytest.raises(UsageError) as refused:
        plan(networks=1, passes=1, seconds=0)
    assert len(str(refused.value).splitlines()) == 3


@pytest.fixture
def run(evaluator, load, planted_machine, tmp_path):
    """Runs the bench on a fake evaluator whose machine is bursty while the load is on."""

    def bench(asked, *, failing=lambda name: None, quiet=None):
        quiet = quiet or planted_machine(noise=0.01, own_drift=0.003)
        loud = planted_machine(noise=0.01, own_drift=0.03, neighbour=0.4, seed=1)
        speeds = {key: 0.01 * 1.2**i for i, key in enumerate(draw_ruler_networks(asked))}
        fake = evaluator(
            lambda name, entrant: speeds[name], machine=lambda: loud if load.is_on else quiet, failing=failing
        )
        events = []
        return run_ruler(asked, events.append, logs=tmp_path, evaluator=fake, load=load), events, fake.answers

    return bench


def test_the_load_is_on_in_the_bursty_passes_alone(run, load):
    findings, events, _ = run(plan())
    assert [(item.state, item.number) for item in findings.passes] == [
        (state, number) for state in passes.STATES for number in (1, 2, 3)
    ]
    assert (load.is_on, load.devices) == (False, ["cpu"])
    assert [event.done for event in events if isinstance(event, BenchStepped)] == list(range(6))


def test_a_planted_noisy_neighbour_raises_the_scatter_and_shows_as_bursty(run):
    findings, _, _ = run(plan(passes=4))
    quiet, bursty = findings.summarize()
    assert (quiet["steady"], quiet["bursty"]) == (1.0, 0.0)
    assert (bursty["steady"], bursty["bursty"]) == (0.0, 1.0)
    assert bursty["cv_relative_median"] > 2 * quiet["cv_relative_median"]
    assert bursty["smallest_ratio"] > quiet["smallest_ratio"] > 1.0
    assert quiet["tau_min"] == 1.0
    assert findings.advise() == []  # the load was wanted


def test_a_machine_that_is_not_quiet_gets_advice(run, planted_machine):
    findings, _, _ = run(plan(), quiet=planted_machine(noise=0.01, neighbour=0.4))
    assert findings.summarize()[0]["bursty"] == 1.0
    assert findings.advise()
    assert all("quiet machine" in line for line in findings.advise())


def test_alone_times_one_after_the_other_too(run):
    findings, _, fake = run(plan(alone=True, passes=2))
    assert findings.ways == [("quiet", "cohort"), ("quiet", "alone"), ("bursty", "cohort"), ("bursty", "alone")]
    assert sum(len(names) == 1 for names in fake.cohorts) == 2 * 2 * 4
    assert len(findings.list_timings()) == 8 * 4


def test_a_network_that_fails_is_left_out_and_said(run):
    broken = list(draw_ruler_networks(plan()))[2]
    error = OutOfMemoryError("it does not fit")
    findings, _, fake = run(plan(), failing=lambda name: error if name == broken else None)
    assert findings.failures == {broken: error}
    assert all(row["networks"] == 3 for row in findings.summarize())
    # Once without it, so that the others share their rounds, and not tried again.
    assert [broken in names for names in fake.cohorts] == [True] + [False] * 6
    report = report_ruler(plan(), findings, "hilo-nas bench ruler")
    assert f"* {broken}: it does not fit" in render_markdown(report)


def test_one_network_alone_is_no_ranking(run):
    kept = next(iter(draw_ruler_networks(plan())))
    with pytest.raises(MeasurementError, match="3 of 4 failed"):
        run(plan(), failing=lambda name: None if name == kept else OutOfMemoryError("too large"))


def test_the_report_holds_what_makes_it_again(run):
    findings, _, _ = run(plan())
    report = report_ruler(plan(), findings, "hilo-nas bench ruler --seed 0")
    assert report.stem == "ruler-cpu-fp32-b64-pt2.9-2026-07"
    assert [table.name for table in report.tables] == ["", "statistics", "networks", "passes"]
    text = render_markdown(report)
    for part in ("Test CPU (2 cores)", "torch 2.9.0", "hilo_nas ", "2026-07-01", 'OMP_NUM_THREADS "2"', "12 bursty"):
        assert part in text
    assert '"litv2_digits"' in text
    assert text.rstrip().endswith("```console\nhilo-nas bench ruler --seed 0\n```")
    assert "ratio of minima" in text


# The load.


def cpu_seconds(pid):
    fields = read_stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")


@needs_proc
def test_the_load_works_in_bursts_and_is_gone_afterwards():
    with bursty_load("cpu") as pid:
        idle = cpu_seconds(pid)
        assert wait_for(lambda: cpu_seconds(pid) > idle + 0.1)
    assert not is_alive(pid)


@needs_proc
def test_the_load_is_gone_after_ctrl_c():
    pids = []

    def interrupted():
        with bursty_load("cpu") as pid:
            pids.append(pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not is_alive(pids[0])


@needs_proc
def test_the_load_dies_with_its_killed_parent(tmp_path):
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from hilo_nas.bench.ruler.bursty_load import bursty_load
        with bursty_load("cpu") as pid:
            Path({str(tmp_path / "pid")!r}).write_text(str(pid))
            time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script])
    assert wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    assert is_alive(child)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert wait_for(lambda: not is_alive(child))


@needs_proc
def test_a_load_that_ends_by_itself_is_an_error():
    def killed():
        with bursty_load("cpu") as pid:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # until all of its threads are gone

    with pytest.raises(MeasurementError, match=r"the load on cpu .*ended"):
        killed()


def test_a_load_that_cannot_start_says_why():
    with (
        pytest.raises(MeasurementError, match=r"the load on abacus could not be started: .*device type.*: abacus"),
        bursty_load("abacus"),
    ):
        pass
