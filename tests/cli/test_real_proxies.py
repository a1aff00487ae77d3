"""Searches with real processes that are scored by something else than a training."""

import ast
import inspect
import json
import re
import textwrap

import pytest
from builders import fresh

from hilo_nas.cli import main
from hilo_nas.proxy import custom as own
from hilo_nas.study.stored_study import open_study

SPACE = """
patch_size: [2]
embed_dims: [8, 16]
depths: [[1, 2], [1], [1, 2, 3], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
alpha: [0.0, 0.5, 1.0]
window_size: [[1], [1], [2], [1]]
mlp_ratios: [2]
defaults: {img_size: 32, batch_size: 4, proxy_img_size: 16, proxy_batch_size: 32, proxy_images: 320, trials: 2}
"""


def example():
    """The function in the docstring that the README points to."""
    (text,) = re.findall(r"in `mine.py`.*?\n\n(    import torch\n.*?)\n\n    hilo-nas search", own.__doc__, re.DOTALL)
    return textwrap.dedent(text) + "\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    return tmp_path


def search(*arguments):
    fixed = (
        "--data",
        "digits",
        "--device",
        "cpu",
        "--set",
        "search.sampler=random",
        "--set",
        "timing.seconds=0.2",
        "--set",
        "timing.remeasure=false",
    )
    return main(["search", "tiny.yaml", *fixed, "--study", "demo", *arguments])


def scores():
    return [record.score for record in fresh(open_study("demo")).records if record.state == "complete"]


def test_the_example_is_a_dozen_lines_that_take_what_the_contract_gives():
    (function,) = [node for node in ast.parse(example()).body if isinstance(node, ast.FunctionDef)]
    assert [argument.arg for argument in function.args.args] == ["arch", "build_model", "budget", "seed", "callback"]
    assert len(function.body) <= 10
    assert "score(arch, build_model, budget, seed, callback)" in inspect.getdoc(own)


@pytest.mark.slow
def test_the_example_scores_a_search(home, capsys):
    (home / "mine.py").write_text(example())
    assert search("--proxy", "mine.py:score", "--proxy-images", "384") == 0
    shown = capsys.readouterr().out
    assert "mine.py:score: a custom function with a budget of 384 images" in shown
    first, second = scores()
    assert {first.metric, second.metric} == {"mine.py:score"}
    assert all(0 <= score.value <= 1 and 0 < score.standard_error < 0.05 for score in (first, second))
    assert first.plan_hash == second.plan_hash == fresh(open_study("demo")).manifest.plan_hash
    assert main(["front", "demo", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["front"]


@pytest.mark.long
def test_a_function_that_raises_fails_its_trial_with_the_line(home, capsys):
    body = "def score(arch, build_model, budget, seed, callback):\n    if sum(arch['depths']) < 99:\n"
    (home / "mine.py").write_text(body + "        raise LookupError('no images of mine')\n    return 1, 0\n")
    assert search("--proxy", "mine.py:score") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "proxy: mine.py:score raised LookupError: no images of mine (mine.py, line 3)" in said
    assert "5 consecutive trials failed" in said


@pytest.mark.long
@pytest.mark.parametrize("proxy", ["params", "macs", "images_per_s", "naswot", "zico", "dss"])
def test_every_proxy_scores_a_search(home, capsys, proxy):
    assert search("--proxy", proxy) == 0
    found = scores()
    assert len(found) == 2
    assert {score.metric for score in found} == {proxy}
    assert "top-1" not in capsys.readouterr().out
    assert main(["status", "demo"]) == 0
    assert f"proxy:    {proxy}:" in capsys.readouterr().out


@pytest.mark.long
def test_a_dry_run_prices_a_function_of_the_users_own(home, capsys):
    (home / "mine.py").write_text(example())
    assert search("--proxy", "mine.py:score", "--proxy-images", "128", "--dry-run") == 0
    assert re.search(r"\d+ s training per trial", capsys.readouterr().out)


DYING = """
import ctypes
import os
import signal
import time
from pathlib import Path

HERE = Path(__file__).parent

def score(arch, build_model, budget, seed, callback):
    keys = HERE.joinpath("keys").read_text().splitlines() if HERE.joinpath("keys").exists() else []
    key = repr(sorted(arch.items()))
    HERE.joinpath("keys").write_text("\\n".join(dict.fromkeys([*keys, key])))
    with HERE.joinpath("pids").open("a") as file:
        print(os.getpid(), file=file)
    number = list(dict.fromkeys([*keys, key])).index(key)
    print(f"network {number} begins", flush=True)
    if number == 1:
        ctypes.string_at(0)
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 4:
        while True:
            time.sleep(1)
    if number == 5:
        raise MemoryError
    if number == 6:
        raise RuntimeError("CUDA error: device-side assert triggered")
    return 0.1 * number, 0.01
"""


@pytest.mark.long
def test_workers_that_crash_or_hang_fail_their_trials_with_the_reason_and_are_replaced(home, capsys):
    (home / "mine.py").write_text(DYING)
    options = ("--trials", "3", "--set", "study.idle_timeout_s=30")
    assert search("--proxy", "mine.py:score", *options) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("The worker is restarted and the task is repeated") == 2
    records = fresh(open_study("demo")).records
    assert [record.state for record in records] == [
        "complete",
        *["failed"] * 2,
        "complete",
        *["failed"] * 3,
        "complete",
    ]
    for number, reason in {
        1: r"worker died: training was killed by signal 11; its last output: Fatal Python error: Segmentation fault .*"
        r'File "mine.py", line \d+ in score',
        2: "worker died: training was killed by signal 9; its last output: network 2 begins",
        4: r'worker hung: training sent no message for 30 s and was stopped; its last output: File "mine.py", line \d+',
        5: "out of memory: memory ran out in the proxy mine.py:score: MemoryError",
        6: r"proxy: mine.py:score raised RuntimeError: CUDA error: device-side assert triggered \(mine.py, line \d+\)",
    }.items():
        assert re.match(reason, records[number].reason), records[number].reason
        assert records[number].failures == 1
        assert records[number].measurement is not None
    pids = (home / "pids").read_text().split()
    assert len(pids) == 10  # the tasks of networks 1 and 2 were repeated once
    assert len(set(pids)) == 8  # the calls of networks 1, 2, 4, 5 and 6 ended their workers
