"""The states of a trial, and that nothing else changes them or reads their reasons."""

import ast
from pathlib import Path

import pytest
from builders import build_infeasible, build_record, build_score

import hilo_nas
from hilo_nas import errors
from hilo_nas.errors import HiloNasError
from hilo_nas.study.records import TrialRecord
from hilo_nas.study.states import TrialState
from hilo_nas.study.transitions import (
    begin,
    complete,
    fail,
    interrupt,
    mark_raised,
    mark_timed,
    queue,
    readmit,
    rule_out,
    stop,
)

PACKAGE = Path(hilo_nas.__file__).parent


@pytest.mark.parametrize(
    ("end", "state"),
    [
        (complete, TrialState.COMPLETE),
        (lambda record: stop(record, "others did better"), TrialState.STOPPED),
        (lambda record: rule_out(record, "too slow"), TrialState.INFEASIBLE),
        (lambda record: fail(record, "the worker died"), TrialState.FAILED),
    ],
)
def test_a_finished_trial_does_not_run_again(end, state):
    for record in (build_record(0, state="running"), interrupt(build_record(0)), mark_raised(build_record(0))):
        ended = end(record)
        assert (ended.state, ended.is_interrupted, ended.is_raised) == (state, False, False)
        assert ended.measurements == record.measurements


def test_a_restarted_trial_keeps_its_measurements_but_not_its_outcome():
    cut = interrupt(build_record(0, imputed={"value": 0.3}), "the disk was full")
    for record in (cut, mark_timed(cut), queue(cut)):
        assert record.is_open
        again = begin(record, started_at="now")
        assert (again.state, again.is_open, again.reason, again.imputed) == (TrialState.RUNNING, False, None, {})
        assert (again.number, again.measurements, again.scores) == (0, cut.measurements, cut.scores)
        assert (again.started_at, again.finished_at) == ("now", None)


@pytest.mark.parametrize(
    ("state", "origin", "is_proposal"),
    [
        (TrialState.COMPLETE, "sampler", True),
        (TrialState.TIMED, "sampler", True),
        (TrialState.TIMED, "speeds:edge/3", False),
        (TrialState.COMPLETE, "speeds:edge/3", True),
        (TrialState.COMPLETE, "reuse:old/3", False),
        (TrialState.COMPLETE, "anchor:litv2_tiny", False),
    ],
)
def test_a_copied_network_counts_as_a_proposal_once_it_was_chosen(state, origin, is_proposal):
    assert build_record(0, state=state, origin=origin).is_proposal == is_proposal


def test_an_interrupted_trial_is_failed_and_marked_as_interrupted():
    record = interrupt(build_record(0, state="running"), "the disk was full")
    assert (record.state, record.is_interrupted, record.is_measured) == (TrialState.FAILED, True, False)
    assert record.reason == "interrupted before it finished: the disk was full"


def test_a_readmitted_trial_gets_the_state_of_its_training():
    untrained = build_infeasible(0)
    assert readmit(untrained, "it was timed again").is_interrupted
    rung = (build_score(0.3, images_seen=320),)
    stopped = readmit(build_infeasible(0, scores=rung, imputed={"value": 0.4}), "it was timed again")
    assert (stopped.state, stopped.imputed) == (TrialState.STOPPED, {"value": 0.4})
    assert "limit, but got" not in stopped.reason
    trained = readmit(build_infeasible(0, scores=(build_score(0.5),)), "it was timed again")
    assert (trained.state, trained.reason) == (TrialState.COMPLETE, None)


def test_states_and_marks_survive_a_file():
    for record in (mark_raised(build_record(0)), interrupt(build_record(1))):
        assert TrialRecord.from_dict(record.to_dict()) == record


def test_no_other_file_changes_a_state_or_parses_a_reason():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            names = {keyword.arg for keyword in node.keywords}
            of_reason = isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "reason"
            is_change = node.func.attr == "replace" and {"state", "is_interrupted", "is_raised"} & names
            assert path.name == "transitions.py" or not is_change, f"{path}:{node.lineno} changes a state"
            assert not of_reason, f"{path}:{node.lineno} takes a reason apart"


def test_an_error_says_whether_it_ends_a_search():
    kinds = [kind for name in errors.__all__ if isinstance(kind := getattr(errors, name), type)]
    assert {kind.__name__ for kind in kinds if issubclass(kind, HiloNasError) and kind.is_fatal} == {
        "DataError",
        "DeviceError",
        "MeasurementError",
        "NotFoundError",
        "StorageError",
        "StudyMismatchError",
    }
