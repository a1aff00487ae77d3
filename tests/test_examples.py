"""The scripts of examples/ on a fake machine, and the notebook in a real kernel with real workers."""

import asyncio
import re
import runpy
import sys
import time
from pathlib import Path

import nbformat
import pytest
from fakes import FakeMachine
from nbclient import NotebookClient

import hilo_nas
from hilo_nas.testing import use_evaluator

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def machine(monkeypatch, tmp_path):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    machine = FakeMachine()
    with use_evaluator(machine):
        yield machine


def run(name, *arguments):
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="example")["main"](*arguments)


def test_every_script_is_tested():
    tested = {"search_and_export", "measure_networks", "watch_events", "tensorboard_events"}
    assert {path.stem for path in EXAMPLES.glob("*.py")} == tested


def test_a_search_with_an_export(machine, tmp_path, capsys):
    run("search_and_export", tmp_path)
    assert len(machine.scored) == 4
    assert (tmp_path / "out/train.yaml").is_file()
    said = capsys.readouterr().out
    assert "torch.Size([2, 10])" in said
    assert re.search(r"trial +\d+ \(4/4\)", said)
    run("search_and_export", tmp_path)
    assert len(machine.scored) == 4, "the second call resumes the study"


def test_a_measurement_with_a_table(machine, tmp_path, capsys):
    run("measure_networks", str(tmp_path / "speeds.csv"))
    assert len((tmp_path / "speeds.csv").read_text().splitlines()) == 4
    assert "litv2_small" in capsys.readouterr().out


def test_a_search_that_its_events_end(machine, tmp_path, capsys):
    run("watch_events", str(tmp_path / "watched"), 0)
    said = capsys.readouterr().out
    assert "the front did not change any more" in said
    finished = sum(record.state.is_measured for record in hilo_nas.load_study(tmp_path / "watched").records)
    assert 0 < finished < 20
    assert machine.closed


def test_a_search_that_tensorboard_follows(machine, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for trials in (3, 4):
        run("tensorboard_events", str(tmp_path / "followed"), trials)
    events = EventAccumulator(str(tmp_path / "followed/tensorboard")).Reload()
    speeds = {own.step: own.value for own in events.Scalars("trial/images_per_s")}
    records = hilo_nas.load_study(tmp_path / "followed").records
    stored = {own.number: own.measurement.images_per_s for own in records if own.state.is_measured}
    assert len(stored) == 4
    assert speeds == pytest.approx(stored, rel=1e-5)
    assert len(events.Tensors("trial/network/text_summary")) == 4


def test_without_tensorboard_the_example_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit, match="pip install tensorboard"):
        run("tensorboard_events", str(tmp_path / "followed"))


def client_of(tmp_path, sources=None):
    notebook = nbformat.read(EXAMPLES / "first_search.ipynb", as_version=4)
    if sources is not None:
        notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    return NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})


def texts_of(cell):
    return "".join(
        output.get("text", "") + "".join(output.get("data", {}).get("text/plain", "")) for output in cell.outputs
    )


@pytest.mark.slow
def test_the_notebook_runs_in_a_kernel(tmp_path, monkeypatch):
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    client = client_of(tmp_path)
    client.execute()
    cells = client.nb.cells
    assert "3 of 3" in texts_of(cells[2])
    assert "trial   2 (3/3)" in texts_of(cells[2])
    assert "Study('notebook', 3 of 3 trials" in texts_of(cells[2])
    assert any("<table" in output.get("data", {}).get("text/html", "") for output in cells[2].outputs)
    assert texts_of(cells[5]) == "True"
    assert len(list((tmp_path / "studies/notebook/trials").glob("*.json"))) == 3


INTERRUPTED = """
import hilo_nas
options = {"device": "cpu", "proxy_images": 640, "until_trials": 2}
settings = {"proxy.rungs": 1, "timing.seconds": 0.5, "timing.remeasure": False, "search.sampler": "random"}
def search():
    return hilo_nas.search("litv2_digits", study="cut", settings=settings, **options)
"""


@pytest.mark.slow
def test_an_interrupt_of_the_kernel_stops_a_search_cleanly_and_the_next_cell_resumes_it(tmp_path, monkeypatch):
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    workers = (
        "import multiprocessing, os\n[p for p in os.popen(f'ps --ppid {os.getpid()} -o args=') if 'hilo_nas' in p]"
    )
    client = client_of(tmp_path, [INTERRUPTED, "search()", workers, "search()"])

    async def work():
        async with client.async_setup_kernel():
            cells = client.nb.cells
            await client.async_execute_cell(cells[0], 0)
            searching = asyncio.ensure_future(client.async_execute_cell(cells[1], 1))
            trials, begun = tmp_path / "studies/cut/trials", time.monotonic()
            while not list(trials.glob("*.json")) and time.monotonic() - begun < 120:
                await asyncio.sleep(0.05)
            assert list(trials.glob("*.json")), "no trial began"
            await client.km.interrupt_kernel()
            with pytest.raises(Exception, match="KeyboardInterrupt"):
                await searching
            await client.async_execute_cell(cells[2], 2)
            await client.async_execute_cell(cells[3], 3)
            return cells

    cells = asyncio.run(work())
    assert texts_of(cells[2]) == "[]", "a worker outlived its search"
    assert "Study('cut', 2 of 2 trials" in texts_of(cells[3])
