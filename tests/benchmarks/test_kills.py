"""Choice of victims and verdict of the benchmark that kills a search."""

import json
from random import Random

import pytest

from benchmarks import kills


@pytest.mark.parametrize("number", [1, 2, 5, 60])
def test_there_are_as_many_kills_as_asked_for(number):
    victims = kills.choose_victims(number, Random(0))
    assert len(victims) == number
    assert victims.count("search") - victims.count("worker") == number % 2


def test_a_number_of_kills_below_1_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        kills.main([str(tmp_path / "new"), "--kills", "0"])
    assert "--kills must be at least 1, but got 0" in capsys.readouterr().err


def report_with(folder, *endings):
    test = kills.KillTest(folder / "kills", 0)
    test.search.endings.extend(endings)
    return test.report()


def test_a_search_that_ended_by_itself_is_a_bad_result(tmp_path):
    assert not kills.is_bad(report_with(tmp_path))
    crashed = report_with(tmp_path / "other", (3, "Traceback"))
    assert crashed["searches that ended by themselves with code 3"] == 1
    assert kills.is_bad(crashed)


def test_a_search_that_failed_networks_ended_is_counted_and_not_bad(tmp_path):
    ended = report_with(tmp_path, (1, "The output of the workers is in logs."))
    assert ended["failed networks ended the search"] == 1
    assert not kills.is_bad(ended)
    json.dumps(ended)
