"""`hilo-nas front`: the front with its ties, in every format."""

import csv
import dataclasses
import io
import json
import re

import pytest
from builders import TINY, build_arch, build_manifest, build_plan, build_record, build_score, demo_records, write_study
from rich.console import Console

from hilo_nas.cli import main
from hilo_nas.cli.front_output import print_front
from hilo_nas.study.front import Front
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.text.figures import probability_text

TIE = build_record(
    7, 895.0, arch=build_arch(20), scores=(dataclasses.replace(build_score(0.745), standard_error=0.02),)
)
"""By its values trial 3 of the demo (900 images/s, 75 %) beats it, but hardly."""


@pytest.fixture(autouse=True)
def studies(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    write_study(tmp_path, "demo", [*demo_records(), TIE])
    return tmp_path


def front(capsys, *arguments):
    assert main(["front", *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_shows_ties_with_the_members_that_beat_them(capsys):
    lines = front(capsys, "demo").splitlines()
    assert lines[0] == "demo: 3 of 6 scored networks are on the front, 1 is tied with it (~)"
    trials = [line.split()[:2] for line in lines if "±" in line and "p2 " in line]
    assert [trial[0] for trial in trials] == ["4", "3", "2", "7~"]
    row = next(line for line in lines if line.split()[:1] == ["7~"])
    assert row[lines[2].index("tied with") :].split()[0] == "3"
    assert [line for line in lines if line.startswith("* anchor   ~ tied") and "95 %" in line]


def test_a_front_without_ties_says_nothing_of_them(capsys, studies):
    write_study(studies, "plain", demo_records())
    text = front(capsys, "plain")
    assert text.splitlines()[0] == "plain: 3 of 5 scored networks are on the front"
    assert not [line for line in text.splitlines() if line.startswith("~")]


def test_a_tie_with_several_members_names_them_all(capsys, studies):
    some = [build_record(i, 1000.0 - i, 0.5 + i / 1000) for i in range(3)]
    write_study(studies, "close", [*some, build_record(3, 997.0, 0.5)])
    row = next(line for line in front(capsys, "close").splitlines() if line.split()[:1] == ["3~"])
    assert " 0,1,2 " in row


def build_baseline(number, images_per_s, top1, name):
    subject = Subject(timm=name)
    return build_record(number, images_per_s, top1, origin=f"baseline:{name}", subject=subject)


@pytest.fixture
def compared(studies):
    """The demo with a baseline that trial 3 beats and one that none beats."""
    baselines = [build_baseline(7, 450.0, 0.70, "clever"), build_baseline(8, 5000.0, 0.90, "swift")]
    manifest = build_manifest("compared", baselines=("timm:clever", "timm:swift", "timm:late"))
    write_study(studies, "compared", [*demo_records(), *baselines], manifest)


def test_baselines_stand_below_the_front_with_a_plus_and_a_sentence_each(capsys, compared):
    lines = front(capsys, "compared").splitlines()
    assert lines[0] == "compared: 3 of 5 scored networks are on the front"
    rows = [
        line.split() for line in lines if "±" in line and ("p2 " in line or line.rstrip().endswith(("swift", "clever")))
    ]
    assert [(row[0], row[-1]) for row in rows[3:]] == [("7+", "timm:clever"), ("8+", "timm:swift")]
    assert [row[0] for row in rows[:3]] == ["4", "3", "2"]
    assert [line for line in lines if line.startswith("+ baseline")]
    assert lines[-4:-1] == [
        "trial 3 beats litv2_tiny (trial 0): 1.12 x its images/s, +15.0 ± 6.4 points of proxy top-1",
        "trial 2 beats timm:clever (trial 7): 1.11 x its images/s, +10.0 ± 5.9 points of proxy top-1",
        "no trial beats timm:swift (trial 8): none is as fast and as accurate",
    ]


def test_json_has_a_standing_for_each_baseline(capsys, compared):
    content = json.loads(front(capsys, "compared", "--format", "json"))
    assert [(row["anchor"], row["by"]) for row in content["anchors"]] == [("litv2_tiny", 3)]
    clever, swift = content["baselines"]
    assert (clever["baseline"], clever["trial"], clever["verdict"], clever["by"]) == ("timm:clever", 7, "beaten", 2)
    assert clever["speed_ratio"] == pytest.approx(500 / 450)
    assert clever["sentence"].startswith("trial 2 beats timm:clever")
    assert (swift["verdict"], swift["by"]) == ("not beaten", None)
    assert [record["number"] for record in content["front"]] == [4, 3, 2]


def test_a_study_without_baselines_does_not_explain_their_mark(capsys):
    assert "+ baseline" not in front(capsys, "demo")


def test_status_tells_how_far_each_baseline_is(capsys, compared):
    assert main(["status", "compared"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "compared: 6 of 12 networks measured, 3 on the front" in text
    assert "baselines: timm:clever (complete), timm:swift (complete), timm:late (not tried yet)" in text
    assert "trials: 5 complete, 1 failed, 1 infeasible" in text
    assert main(["status", "compared", "--format", "json"]) == 0
    baselines = json.loads(capsys.readouterr().out)["baselines"]
    assert baselines == {"timm:clever": "complete", "timm:swift": "complete", "timm:late": None}


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_a_narrow_terminal_cuts_no_number(compared, studies, columns):
    def print_at(width):
        console = Console(file=io.StringIO(), width=width, highlight=False)
        print_front(StoredStudy(studies / "compared"), console)
        return console.file.getvalue()

    wide, narrow = print_at(400), print_at(columns)
    assert "…" not in narrow
    rows = [line.split() for line in wide.splitlines() if "±" in line and "p2 " in line]
    for row in rows:
        assert any(line.split()[:5] == row[:5] for line in narrow.splitlines()), row  # trial, images/s ± half
    hidden = [name for name in ("P(front)", "MiB", "params M", "GMACs") if name not in narrow.split("Not shown")[0]]
    assert all(name in narrow.split("Not shown")[1] for name in hidden)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_a_narrow_terminal_names_the_baselines_too(compared, studies, columns, monkeypatch):
    console = Console(file=io.StringIO(), width=int(columns), highlight=False)
    print_front(StoredStudy(studies / "compared"), console)
    assert console.file.getvalue().count("timm:swift") == 2  # in the table or below it, and in its sentence


def test_a_baseline_is_not_exported(capsys, compared, tmp_path):
    assert main(["export", "compared", "--trial", "8", "--format", "timm", "-o", str(tmp_path / "out")]) == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert "trial 8 of study compared is the baseline timm:swift" in said
    assert main(["export", "compared", "--knee", "--format", "timm", "-o", str(tmp_path / "out")]) == 0


def test_json_tells_the_front_apart_from_its_ties(capsys):
    content = json.loads(front(capsys, "demo", "--format", "json"))
    assert [record["number"] for record in content["front"]] == [4, 3, 2]
    (tie,) = content["tied"]
    assert (tie["trial"], tie["tied_with"]) == (7, [3])


def test_csv_has_the_ties_after_the_front(capsys):
    rows = list(csv.DictReader(io.StringIO(front(capsys, "demo", "--format", "csv"))))
    assert [(row["number"], row["on_front"], row["tied_with"]) for row in rows] == [
        ("4", "True", ""),
        ("3", "True", ""),
        ("2", "True", ""),
        ("7", "False", "3"),
    ]


def test_with_many_ties_the_most_likely_are_shown_and_the_rest_is_counted(capsys, studies):
    records = [build_record(0, 1000.0, 0.5)]
    records += [build_record(i, 999.0 - i / 10, 0.499 - i / 10_000, arch=build_arch(i)) for i in range(1, 41)]
    write_study(studies, "many", records, build_manifest("many"))
    text = front(capsys, "many")
    assert "40 are tied with it (~), of which the 30 most likely ones are shown" in text
    shown = [line for line in text.splitlines() if re.match(r" *[0-9]+[*~]+ .*±", line)]
    assert len(shown) == 30
    rows = list(csv.DictReader(io.StringIO(front(capsys, "many", "--format", "csv"))))
    assert len(rows) == 41


def test_the_study_that_timed_is_named(capsys, studies):
    write_study(studies, "remote", demo_records(), build_manifest("remote", speeds="edge"))
    assert "timed by study edge" in front(capsys, "remote")


@pytest.mark.parametrize("fields", [{"form": "litv2/9"}, {"protocol": 1}])
def test_speeds_measured_in_different_ways_are_reported_with_a_command(capsys, studies, fields):
    mixed = demo_records()
    other = dataclasses.replace(mixed[3].measurement, **fields)
    mixed[3] = dataclasses.replace(mixed[3], measurements=(other,))
    write_study(studies, "mixed", mixed)
    assert "Time them again: hilo-nas remeasure mixed" in front(capsys, "mixed")
    assert "hilo-nas remeasure" not in front(capsys, "demo")


def test_a_study_without_a_complete_trial_says_so(capsys, studies):
    write_study(studies, "begun", demo_records()[5:])
    assert front(capsys, "begun") == "study begun has no complete trial yet\n"
    assert json.loads(front(capsys, "begun", "--format", "json"))["tied"] == []


SEEDS = build_record(3, 900.0, scores=tuple(build_score(top1, seed=seed) for seed, top1 in enumerate((0.75, 0.77))))
"""Trial 3 of the demo with a second seed; the noise of a seed is then 1.4 points."""


def confirmed():
    return [SEEDS if record.number == 3 else record for record in [*demo_records(), TIE]]


def test_the_table_shows_seeds_and_how_probably_each_belongs_on_the_front(capsys, studies):
    write_study(studies, "seeds", confirmed())
    text = front(capsys, "seeds")
    rows = {line.split("±")[0].split()[-2].rstrip("~"): line.split() for line in text.splitlines() if "p2 " in line}
    probabilities = Front.from_records(confirmed()).probabilities()
    assert {number: row[row.index("±", 4) + 2] for number, row in rows.items()} == {
        "4": "1",
        "3": "2",
        "2": "1",
        "7": "1",
    }
    for number, row in rows.items():
        assert row[row.index("±", 4) + 3] == probability_text(probabilities[int(number)], is_short=True)
    assert "top-1: after 3,000 images of digits at 32 px, on held-out images of the training split\n" in text
    (spread,) = [line for line in text.splitlines() if line.startswith("±: half of a 95 % interval")]
    assert "(1.4 points)" in spread
    assert "the robust spread of a round" in spread
    assert text.count("±:") == 1
    assert "standard error" not in text
    assert "76.0 ± 4.6" in text  # 1.96 times 2.1 points by the images and 1.4 / sqrt(2) by the seeds
    assert "P(front): probability that no other network is both faster and better" in text


def test_json_and_csv_carry_seeds_and_probabilities(capsys, studies):
    write_study(studies, "seeds", confirmed())
    probabilities = Front.from_records(confirmed()).probabilities()
    content = json.loads(front(capsys, "seeds", "--format", "json"))
    assert content["seed_noise"] == pytest.approx(0.02 / 2**0.5)
    assert [(record["number"], record["seeds"]) for record in content["front"]] == [(4, 1), (3, 2), (2, 1)]
    rows = list(csv.DictReader(io.StringIO(front(capsys, "seeds", "--format", "csv"))))
    assert [(row["number"], row["seeds"]) for row in rows] == [("4", "1"), ("3", "2"), ("2", "1"), ("7", "1")]
    told = {record["number"]: record["on_front_probability"] for record in content["front"]}
    told |= {tie["trial"]: tie["on_front_probability"] for tie in content["tied"]}
    assert told == {int(row["number"]): float(row["on_front_probability"]) for row in rows}
    assert told == {number: probabilities[number] for number in told}
    assert 0 < told[7] < told[3] < 1


def test_a_front_of_one_seed_each_ends_with_how_to_confirm_it(capsys, studies):
    assert front(capsys, "demo").splitlines()[-1].endswith("hilo-nas search --study demo --set proxy.confirm=2")
    write_study(studies, "seeds", confirmed())
    assert "proxy.confirm" not in front(capsys, "seeds")


def test_a_front_that_was_scored_without_training_asks_for_no_seeds(capsys, studies):
    scores = (build_score(12.0, standard_error=0.1, metric="naswot", loss=None),)
    write_study(studies, "free", [build_record(0, scores=scores)])
    assert "proxy.confirm" not in front(capsys, "free")


def test_stopped_networks_are_counted_in_addition_to_the_scored(capsys, studies):
    rung = (build_score(0.9, images_seen=1024),)
    write_study(studies, "rungs", [*demo_records(), build_record(7, 990.0, state="stopped", scores=rung)])
    assert front(capsys, "rungs").splitlines()[0] == (
        "rungs: 3 of 5 scored networks are on the front; 1 more stopped at a rung"
    )


def test_scores_of_another_proxy_are_shown_under_its_name_as_they_are(capsys, studies):
    def scored(number, speed, value, **fields):
        score = dataclasses.replace(build_score(), metric="mine.py:score", value=value, standard_error=2.0)
        return build_record(number, speed, scores=(score,), **fields)

    plan = build_plan(proxy="mine.py:score", source_hash="a" * 64, images=1000)
    records = [scored(0, 800.0, 300.25, origin="anchor:litv2_tiny", arch=TINY), scored(1, 900.0, 320.5)]
    write_study(studies, "own", records, build_manifest("own", plan=plan))
    text = front(capsys, "own")
    assert "mine.py:score" in text.splitlines()[2]
    assert "320 ± 4" in text
    assert "mine.py:score: a custom function with a budget of 1,000 images\n" in text
    assert "1.12 x its images/s, +20.25 ± 5.5 of mine.py:score" in text
    assert "top-1" not in text
    assert main(["status", "own"]) == 0
    assert "proxy:    mine.py:score: a custom function with a budget of 1,000 images" in capsys.readouterr().out
    (row,) = csv.DictReader(io.StringIO(front(capsys, "own", "--format", "csv")))
    assert (row["metric"], row["value"]) == ("mine.py:score", "320.5")


def test_a_likelihood_is_called_so_and_shown_in_percent(capsys, studies):
    plan = build_plan(metric="likelihood")
    records = [
        build_record(i, speed, scores=(build_score(value, metric="likelihood"),), **fields)
        for i, speed, value, fields in (
            (0, 800.0, 0.2, {"origin": "anchor:litv2_tiny", "arch": TINY}),
            (1, 900.0, 0.25, {}),
        )
    ]
    write_study(studies, "likely", records, build_manifest("likely", plan=plan))
    text = front(capsys, "likely")
    assert "likelihood %" in text.splitlines()[2]
    assert "likelihood: after 3,000 images of digits" in text
    assert "points of proxy likelihood" in text
    assert "top-1" not in text


@pytest.mark.parametrize(
    ("proxy", "heading", "line"),
    [
        ("params", "score (params M)", "score (params M): of the network, without training\n"),
        ("zico", "zico", "zico: without training, on images of digits at 32 px\n"),
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


def test_contended_timings_are_named_with_whom_and_the_way_out(tmp_path, capsys):
    busy = {
        "cores": 2,
        "others_cores": 1.0,
        "quietest": {"others_cores": 1.0},
        "with": [{"pid": 1234, "name": "python", "cores": 1.0}],
    }
    records = demo_records()
    records[3] = dataclasses.replace(
        records[3], measurements=(dataclasses.replace(records[3].measurement, device_state=busy),)
    )
    write_study(tmp_path, "loaded", records)
    assert main(["front", "loaded"]) == 0
    text = capsys.readouterr().out
    assert (
        "1 of these timings is contended (trial 3): other processes kept 1.0 of 2 cores busy (python 1234: 1.0), so "
        "its ± is wider. Time it again when nothing else runs: hilo-nas remeasure loaded" in text
    )
    assert "hilo-nas remeasure loaded" in text
    assert main(["front", "loaded", "--format", "json"]) == 0
    verdicts = {row["number"]: row["verdict"] for row in json.loads(capsys.readouterr().out)["front"]}
    assert verdicts == {2: "steady", 3: "contended", 4: "steady"}


def test_timings_of_another_study_are_to_be_taken_again_there(capsys, studies):
    busy = {"cores": 2, "others_cores": 1.0, "quietest": {"others_cores": 1.0}}
    records = demo_records()
    for i, fields in ((3, {"device_state": busy}), (4, {"form": "litv2/9"})):
        other = dataclasses.replace(records[i].measurement, **fields)
        records[i] = dataclasses.replace(records[i], measurements=(other,))
    write_study(studies, "remote", records, build_manifest("remote", speeds="edge"))
    text = front(capsys, "remote")
    way = "hilo-nas remeasure edge\n"
    assert f"Time them again: {way}" in text
    assert f"Time it again when nothing else runs: {way}" in text
    assert "remeasure remote" not in text


@pytest.mark.parametrize(("limits", "shown"), [({"latency_ms": 90.0}, True), ({"images_per_s": 1.0}, False)])
def test_the_front_shows_the_latency_that_is_limited(capsys, studies, limits, shown):
    write_study(studies, "limited", demo_records(), build_manifest("limited", limits=limits))
    lines = front(capsys, "limited").splitlines()
    assert ("p95 ms" in lines[2]) is shown
    if shown:
        row = next(line for line in lines if line.split()[:1] == ["4"])
        assert row[: lines[2].index("p95 ms") + 6].split()[-1] == "35.2"


def test_limits_recommend_the_most_accurate_network(capsys):
    assert main(["front", "demo", "--min-images-per-s", "850"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "trial 3 is recommended: the best score among the networks that meet images_per_s >= 850" in text
    assert "trial 3 meets images_per_s >= 850 with a probability of more than 99%" in text
    assert "truly the best of them with a probability of" in text


def test_a_score_recommends_the_fastest_network_in_the_unit_of_the_table(capsys):
    assert main(["front", "demo", "--min-score", "65", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)["recommended"]
    assert found["trial"] == 3
    assert "top-1 >= 65.0 %" in found["sentences"][0]


def test_the_knee_is_recommended(capsys):
    assert main(["front", "demo", "--knee"]) == 0
    assert "trial 3 is recommended: the knee" in capsys.readouterr().out


def test_the_neighbours_of_a_trial_are_shown(capsys):
    assert main(["front", "demo", "--near", "3"]) == 0
    text = capsys.readouterr().out
    assert "compared with trial 3" in text
    assert "0.994x" in text  # trial 7
    assert main(["front", "demo", "--near", "3", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["near"][0]["number"] == 7


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--knee", "--min-score", "50"], "either --knee or limits"),
        (["--min-images-per-s", "900", "--format", "csv"], "table or json"),
        (["--min-images-per-s", "-1"], "above 0"),
        (["--max-latency-ms", "0.001"], "no trial of study demo meets"),
        (["--near", "5"], "trial 5 is infeasible"),
    ],
)
def test_a_choice_that_cannot_be_made_is_a_usage_error(words, part, capsys):
    assert main(["front", "demo", *words]) == 2
    assert part in capsys.readouterr().err


def test_a_choice_needs_a_study(capsys):
    assert main(["front", "--knee"]) == 2
    assert "need a study" in capsys.readouterr().err
