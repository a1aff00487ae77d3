"""`hilo-nas front`: the front with its ties, in every format."""

import csv
import dataclasses
import io
import json

import pytest
from builders import TINY, build_arch, build_manifest, build_plan, build_record, build_score, demo_records, write_study

from hilo_nas.cli import main

TIE = build_record(7, 895.0, arch=build_arch(20), scores=(dataclasses.replace(build_score(0.745), proxy_top1_se=0.02),))
"""By its values trial 3 of the demo (900 images/s, 75 %) beats it, but hardly."""


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    write_study(tmp_path, "demo", [*demo_records(), TIE])
    return tmp_path


def front(capsys, *arguments):
    assert main(["front", *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_shows_ties_beside_the_members_that_beat_them(capsys):
    lines = front(capsys, "demo").splitlines()
    assert lines[0] == "demo: 3 of 6 scored networks are on the front, 1 cannot be told from it (~)"
    trials = [line.split()[:2] for line in lines if "±" in line and "p2 " in line]
    assert [trial[0] for trial in trials] == ["4", "3", "2", "~3"]
    assert trials[3] == ["~3", "7"]
    assert "* anchor   ~ beaten by the trials named, but with a probability below 95 %" in lines


def test_a_front_without_ties_says_nothing_of_them(capsys, studies):
    write_study(studies, "plain", demo_records())
    text = front(capsys, "plain")
    assert text.splitlines()[0] == "plain: 3 of 5 scored networks are on the front"
    assert not [line for line in text.splitlines() if line.startswith("~")]


def test_a_tie_with_several_members_names_them_all(capsys, studies):
    some = [build_record(i, 1000.0 - i, 0.5 + i / 1000) for i in range(3)]
    write_study(studies, "close", [*some, build_record(3, 997.0, 0.5)])
    assert "~0,1,2 3" in front(capsys, "close")


def test_json_tells_the_front_apart_from_its_ties(capsys):
    content = json.loads(front(capsys, "demo", "--format", "json"))
    assert [record["number"] for record in content["front"]] == [4, 3, 2]
    assert content["tied"] == [{"trial": 7, "tied_with": [3]}]


def test_csv_has_the_ties_after_the_front(capsys):
    rows = list(csv.DictReader(io.StringIO(front(capsys, "demo", "--format", "csv"))))
    assert [(row["number"], row["on_front"], row["tied_with"]) for row in rows] == [
        ("4", "True", ""),
        ("3", "True", ""),
        ("2", "True", ""),
        ("7", "False", "3"),
    ]


def test_speeds_of_a_table_are_named(capsys, studies):
    write_study(studies, "remote", demo_records(), build_manifest("remote", speeds="edge (0123456789ab)"))
    assert "speeds from the table edge (0123456789ab)" in front(capsys, "remote")


@pytest.mark.parametrize("fields", [{"form": "litv2/9"}, {"protocol": 1}])
def test_speeds_that_were_not_taken_in_one_way_are_told_with_the_way_out(capsys, studies, fields):
    mixed = demo_records()
    other = dataclasses.replace(mixed[3].measurement, **fields)
    mixed[3] = dataclasses.replace(mixed[3], measurements=(other,))
    write_study(studies, "mixed", mixed)
    assert "These speeds were not all taken in the same way: hilo-nas remeasure mixed" in front(capsys, "mixed")
    assert "not all taken" not in front(capsys, "demo")


def test_a_study_without_a_complete_trial_says_so(capsys, studies):
    write_study(studies, "begun", demo_records()[5:])
    assert front(capsys, "begun") == "study begun has no complete trial yet\n"
    assert json.loads(front(capsys, "begun", "--format", "json"))["tied"] == []


def test_scores_of_another_proxy_are_shown_under_its_name_as_they_are(capsys, studies):
    def scored(number, speed, value, **fields):
        score = dataclasses.replace(build_score(), metric="mine.py:score", proxy_top1=value, proxy_top1_se=2.0)
        return build_record(number, speed, scores=(score,), **fields)

    plan = build_plan(proxy="mine.py:score", source_hash="a" * 64, images=1000)
    records = [scored(0, 800.0, 300.25, origin="anchor:litv2_tiny", arch=TINY), scored(1, 900.0, 320.5)]
    write_study(studies, "own", records, build_manifest("own", plan=plan))
    text = front(capsys, "own")
    assert "mine.py:score" in text.splitlines()[2]
    assert "320 ± 2" in text
    assert "mine.py:score: a function of your own, given 1,000 images; ± standard error" in text
    assert "1.12 x its images/s, +20.25 ± 2.8 of mine.py:score" in text
    assert "top-1" not in text
    assert main(["status", "own"]) == 0
    assert "proxy:    mine.py:score: a function of your own, given 1,000 images" in capsys.readouterr().out
    (row,) = csv.DictReader(io.StringIO(front(capsys, "own", "--format", "csv")))
    assert (row["metric"], row["proxy_top1"]) == ("mine.py:score", "320.5")


@pytest.mark.parametrize(
    ("proxy", "heading", "line"),
    [
        ("params", "score (params M)", "score (params M): of the network, without training; ± standard error"),
        ("zico", "zico", "zico: without training, on images of digits at 32 px; ± standard error"),
        (
            "training",
            "top-1 %",
            "top-1: after 3,000 images of digits at 32 px, on held-out images of the training split",
        ),
    ],
)
def test_the_front_says_what_its_scores_are(capsys, studies, proxy, heading, line):
    plan = build_plan(proxy=proxy)
    records = [build_record(0, scores=(build_score(0.5, metric=plan.score_metric),))]
    write_study(studies, "other", records, build_manifest("other", plan=plan))
    text = front(capsys, "other")
    assert heading in text.splitlines()[2]
    assert line in text
