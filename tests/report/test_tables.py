"""Tables of a study's records: columns, values, and how the front stands to its anchors."""

import csv
import dataclasses

import pandas as pd
import pytest
from builders import (
    TINY,
    build_arch,
    build_condition,
    build_failed,
    build_infeasible,
    build_interrupted,
    build_measurement,
    build_record,
    build_score,
    demo_records,
    write_study,
)

from hilo_nas.arch import PRESETS, describe_arch
from hilo_nas.errors import StorageError
from hilo_nas.front import front_of, probability_on_front, top1_errors
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.report import (
    Standing,
    build_front_frame,
    build_trials_frame,
    compare_references,
    write_tables,
)
from hilo_nas.study import StudyFolder
from hilo_nas.transitions import interrupt

COLUMNS = [
    "number",
    "state",
    "key",
    "origin",
    "images_per_s",
    "images_per_s_low",
    "images_per_s_high",
    "images_per_s_spread",
    "images_per_s_raw",
    "latency_ms_p50",
    "latency_ms_p95",
    "latency_ms_p99",
    "memory_mib",
    "steady",
    "verdict",
    "value",
    "standard_error",
    "metric",
    "loss",
    "images_seen",
    "seeds",
    "has_trained",
    "params_m",
    "gmacs",
    "patch_size",
    "embed_dims",
    "depths",
    "num_heads",
    "attention",
    "alpha",
    "window_size",
    "mlp_ratios",
    "on_front",
    "on_front_probability",
    "tied_with",
    "form",
    "condition",
    "seconds",
    "reason",
]


def test_there_is_a_row_per_trial_with_every_value_and_its_spread():
    frame = build_trials_frame(demo_records())
    assert list(frame.columns) == COLUMNS
    assert list(frame["number"]) == list(range(7))
    assert list(frame["state"]) == ["complete"] * 5 + ["infeasible", "failed"]
    row, record = frame.loc[2], demo_records()[2]
    for name in ("images_per_s", "images_per_s_spread", "images_per_s_raw", "latency_ms_p95", "memory_mib", "form"):
        assert row[name] == getattr(record.measurement, name)
    assert row["standard_error"] == pytest.approx(record.score.standard_error, rel=0.01)
    for name in ("value", "loss", "images_seen", "seeds"):
        assert row[name] == getattr(record.score, name)
    assert row["key"] == record.key
    assert row["params_m"] == record.parameters / 1e6
    assert row["gmacs"] == record.macs / 1e9
    assert row["condition"] == "cpu-b32-32px-fp32"
    assert row["seconds"] == 10.0


def test_the_seconds_are_the_trials_not_the_measurements():
    frame = build_trials_frame([build_record(0, seconds=99.96)])
    assert frame.loc[0, "seconds"] == 100.0


def test_knobs_are_text_with_a_value_per_stage():
    row = build_trials_frame([build_record(0, arch=TINY)]).loc[0]
    assert row["embed_dims"] == "16-32-64-128"
    assert row["depths"] == "1-1-2-1"
    assert row["attention"] == "none-none-hilo-hilo"
    assert row["alpha"] == "0.5-0.5-0.5-0.5"
    assert row["mlp_ratios"] == "4-4-4-4"
    assert row["patch_size"] == 2


def test_what_was_not_taken_is_missing_and_reasons_are_told():
    frame = build_trials_frame([build_record(0), build_infeasible(1), build_failed(2)])
    assert frame["value"].notna().tolist() == [True, False, False]
    assert frame["images_per_s"].notna().tolist() == [True, True, False]
    assert frame["reason"].tolist()[1:] == ["images_per_s >= 900 is a limit, but got 10", "the worker died"]
    assert pd.isna(frame["reason"][0])


def test_what_the_sampler_was_told_instead_is_no_result():
    record = build_infeasible(0, imputed={"value": 0.123})
    assert pd.isna(build_trials_frame([record]).loc[0, "value"])


def test_a_stopped_network_has_its_rungs_score_and_no_place_on_the_front():
    rung = build_score(0.9, images_seen=1024)
    row = build_trials_frame([build_record(0), build_record(1, 2000.0, state="stopped", scores=(rung,))]).loc[1]
    assert (row["state"], row["images_seen"], row["value"], row["seeds"]) == ("stopped", 1024, 0.9, 1)
    assert row["standard_error"] == rung.standard_error
    assert not row["on_front"]
    assert pd.isna(row["on_front_probability"])


def test_seeds_and_what_they_told_of_their_noise_are_in_the_table():
    seeds = tuple(build_score(top1, seed=seed) for seed, top1 in enumerate((0.79, 0.81)))
    records = [*demo_records()[:2], build_record(2, 500.0, scores=seeds), *demo_records()[3:]]
    frame, errors = build_trials_frame(records), top1_errors(records)
    assert frame["seeds"].tolist()[:5] == [1, 1, 2, 1, 1]
    assert frame["standard_error"].tolist()[:5] == [errors[number] for number in range(5)]
    assert errors[0] > records[0].score.standard_error
    probabilities = probability_on_front(records)
    assert frame["on_front_probability"].tolist()[:5] == [probabilities[number] for number in range(5)]
    assert frame["on_front_probability"].isna().tolist()[5:] == [True, True]


def test_numbers_of_images_and_seeds_are_written_whole(tmp_path):
    folder = write_study(tmp_path, records=demo_records())
    write_tables(folder)
    with (folder.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["images_seen"], row["seeds"]) for row in rows[4:6]] == [("3008", "1"), ("", "")]


def test_the_front_has_the_same_columns_the_fastest_first():
    frame = build_front_frame(demo_records())
    assert list(frame.columns) == COLUMNS
    assert list(frame["number"]) == [4, 3, 2]
    assert list(frame.index) == [0, 1, 2]
    assert frame["on_front"].all()
    trials = build_trials_frame(demo_records())
    assert trials.loc[trials["on_front"], "number"].tolist() == [2, 3, 4]


def test_ties_name_the_members_of_the_front_that_they_cannot_be_told_from():
    tie = build_record(7, 895.0, 0.745, arch=build_arch(20))  # beaten by trial 3, but hardly
    trials = build_trials_frame([*demo_records(), tie])
    assert trials["tied_with"].tolist()[7] == "3"
    assert trials["tied_with"].notna().tolist() == [False] * 7 + [True]
    assert not trials.loc[7, "on_front"]
    assert list(build_front_frame([*demo_records(), tie])["number"]) == [4, 3, 2]
    with_ties = build_front_frame([*demo_records(), tie], ties=True)
    assert list(with_ties["number"]) == [4, 3, 2, 7]
    assert with_ties["on_front"].tolist() == [True, True, True, False]


def test_a_tie_with_several_members_names_them_in_the_order_of_the_front():
    some = [build_record(i, 1000.0 - i, 0.5 + i / 1000) for i in range(3)]
    frame = build_trials_frame([*some, build_record(3, 997.0, 0.5)])
    assert frame.loc[3, "tied_with"] == "0-1-2"


def test_a_study_without_trials_has_empty_tables():
    assert list(build_trials_frame([]).columns) == COLUMNS
    assert list(build_front_frame([]).columns) == COLUMNS
    assert len(build_front_frame([build_failed(0)])) == 0


def test_a_network_of_timms_has_a_row_too():
    record = TrialRecord(
        number=0,
        subject=Subject(timm="resnet18"),
        state="complete",
        origin="peer:resnet18",
        measurements=(build_measurement(),),
        scores=(build_score(),),
    )
    row = build_trials_frame([record]).loc[0]
    assert row["key"] == "timm:resnet18"
    assert pd.isna(row["depths"])
    assert pd.isna(row["params_m"])


def test_the_tables_are_written_beside_the_records(tmp_path):
    folder = write_study(tmp_path, records=demo_records())
    write_tables(folder)
    with (folder.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    assert [row["number"] for row in rows] == [str(i) for i in range(7)]
    assert float(rows[3]["images_per_s"]) == 900.0
    assert rows[5]["value"] == ""
    assert rows[6]["reason"] == "the worker died"
    with (folder.path / "front.csv").open(newline="") as file:
        assert [row["number"] for row in csv.DictReader(file)] == ["4", "3", "2"]


def test_written_tables_are_rewritten_when_a_record_changes(tmp_path):
    folder = write_study(tmp_path, records=demo_records())
    write_tables(folder)
    folder.write_record(build_record(3, 5000.0, 0.99))
    write_tables(folder)
    assert pd.read_csv(folder.path / "front.csv")["number"].tolist() == [3]


def test_a_key_of_digits_alone_survives_the_table(tmp_path):
    """A key such as 84170833e994 is read back as a number by careless readers; as text it is the key."""
    folder = write_study(tmp_path, records=[build_record(0, arch=PRESETS["litv2_medium"])])
    write_tables(folder)
    assert pd.read_csv(folder.path / "trials.csv", dtype={"key": str})["key"][0] == PRESETS["litv2_medium"].key()


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*trials\.csv"):
        write_tables(StudyFolder(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        (PRESETS["litv2_small"], "p4 96-192-384-768 x 2-2-6-2, mlp 4 [3: 10/12 lofi, s=2; 4: 24 heads]"),
        (
            build_arch(alpha=(0, 0, 0.0, 1.0), window_size=(1, 1, 4, 2)),
            "p2 16-32-64-128 x 1-1-1-1, mlp 4 [3: 0/4 lofi, s=4; 4: 8/8 lofi, s=2]",
        ),
        (build_arch(attention=("none",) * 4, mlp_ratios=(2,) * 4), "p2 16-32-64-128 x 1-1-1-1, mlp 2"),
        (build_arch(attention=("none",) * 4, mlp_ratios=(2, 4, 2.5, 2)), "p2 16-32-64-128 x 1-1-1-1, mlp 2-4-2.5-2"),
    ],
    ids=["small", "all-or-none-lofi", "no-attention", "ratios-per-stage"],
)
def test_an_architecture_is_described_in_one_line(arch, text):
    assert describe_arch(arch) == text


def sentences(*records) -> list[str]:
    return [standing.sentence() for standing in compare_references(records)]


def test_a_beaten_anchor_names_the_fastest_trial_that_beats_it():
    (standing,) = compare_references(demo_records())
    assert (standing.name, standing.number, standing.verdict, standing.by) == ("litv2_tiny", 0, "beaten", 3)
    assert standing.speed_ratio == pytest.approx(900 / 800)
    assert standing.top1_gain == pytest.approx(0.15)
    assert standing.top1_gain_se == pytest.approx((0.75 * 0.25 / 400 + 0.6 * 0.4 / 400) ** 0.5, rel=0.01)
    assert standing.sentence() == (
        "trial 3 beats litv2_tiny (trial 0): 1.12 x its images/s, +15.0 ± 6.4 points of proxy top-1"
    )


def test_the_noise_of_seeds_is_in_the_error_of_a_gain():
    seeds = tuple(build_score(top1, seed=seed, standard_error=0.0) for seed, top1 in enumerate((0.74, 0.76)))
    anchor = build_record(0, 800.0, origin="anchor:a", scores=(build_score(0.6, standard_error=0.0),))
    (standing,) = compare_references([anchor, build_record(1, 900.0, scores=seeds)])
    noise = 0.02 / 2**0.5
    assert standing.top1_gain_se == pytest.approx((noise**2 + noise**2 / 2) ** 0.5, rel=0.03)


def test_a_gain_is_distinguishable_exactly_where_it_exceeds_what_follows_the_sign():
    def standing(gain):
        return Standing(
            name="a",
            number=0,
            verdict="not beaten",
            by=1,
            speed_ratio=2.0,
            top1_gain=gain,
            top1_gain_se=0.02,
            probability=0.9,
        )

    assert "top-1 not distinguishable (+3.0 ± 3.9 points)" in standing(0.03).sentence()
    assert "+4.0 ± 3.9 points of proxy top-1" in standing(0.04).sentence()


def test_of_several_that_beat_an_anchor_the_fastest_is_named():
    anchor = build_record(0, 800.0, 0.6, origin="anchor:a")
    rivals = [build_record(1, 900.0, 0.9), build_record(2, 1000.0, 0.7), build_record(3, 1100.0, 0.5)]
    assert [standing.by for standing in compare_references([anchor, *rivals])] == [2]
    assert [standing.by for standing in compare_references([anchor, *reversed(rivals)])] == [2]


def test_an_anchor_that_none_beats_stands_on_the_front():
    anchor = build_record(0, 800.0, 0.6, origin="anchor:a")
    assert sentences(anchor) == ["no trial beats a (trial 0): it stands on the front itself"]
    assert sentences(anchor, build_record(1, 900.0, 0.5)) == [
        "trial 1: 1.12x the images/s of a (trial 0), -10.0 ± 6.8 points of proxy top-1; it stands on the front itself"
    ]
    assert compare_references([anchor, build_record(1, 800.0, 0.6)])[0].verdict == "on the front"


def test_an_anchor_that_failed_or_broke_a_limit_is_left_out_with_the_reason():
    assert sentences(build_failed(0, "the worker\n died", origin="anchor:a"), build_record(1)) == [
        "a (trial 0) is left out of the comparison: the worker died"
    ]
    (standing,) = compare_references([build_infeasible(2, origin="anchor:b"), build_record(1)])
    assert (standing.verdict, standing.reason) == ("not measured", "images_per_s >= 900 is a limit, but got 10")
    assert standing.sentence() == f"b (trial 2) is left out of the comparison: {standing.reason}"


def test_an_anchor_whose_trial_runs_has_no_score_yet():
    running = build_record(0, None, None, state="running", origin="anchor:a")
    assert sentences(running) == ["a (trial 0) is left out of the comparison: it has no score yet"]


def test_an_anchor_that_was_cut_off_lives_on_under_its_retry():
    cut = build_interrupted(0, origin="anchor:a", arch=TINY)
    retry = build_record(1, 800.0, 0.6, origin="anchor:a", retry_of=0, arch=TINY)
    (standing,) = compare_references([cut, retry, build_record(2, 900.0, 0.7)])
    assert (standing.name, standing.number, standing.verdict, standing.by) == ("a", 1, "beaten", 2)


def test_anchors_stand_in_the_order_of_their_trials():
    some = [build_record(i, 100.0 * (i + 1), 0.5, origin=f"anchor:{name}") for i, name in enumerate("abc")]
    assert [standing.name for standing in compare_references(some)] == ["a", "b", "c"]
    assert [standing.by for standing in compare_references(some)] == [2, 2, None]


def build_peer(number, images_per_s, value, name="swift", **fields):
    """A trial of timm's network of that name."""
    subject = Subject(timm=name)
    return build_record(number, images_per_s, value, origin=f"peer:{name}", subject=subject, **fields)


def test_a_peer_is_beaten_as_an_anchor_is():
    (standing,) = compare_references([build_peer(0, 800.0, 0.6), build_record(1, 900.0, 0.75)])
    assert (standing.kind, standing.name, standing.verdict, standing.by) == ("peer", "timm:swift", "beaten", 1)
    assert standing.sentence() == (
        "trial 1 beats timm:swift (trial 0): 1.12 x its images/s, +15.0 ± 6.4 points of proxy top-1"
    )


def test_a_peer_that_none_beats_is_not_on_the_front_all_the_same():
    peer = build_peer(0, 2000.0, 0.9)
    assert sentences(peer, build_record(1)) == ["no trial beats timm:swift (trial 0): none is as fast and as accurate"]
    assert compare_references([peer, build_record(1)])[0].verdict == "not beaten"
    frame = build_trials_frame([peer, build_record(1)])
    assert frame.on_front.tolist() == [False, True]
    assert frame.key[0] == "timm:swift"
    assert frame.patch_size.isna().tolist() == [True, False]
    assert build_front_frame([peer, build_record(1)], ties=True).number.tolist() == [1]


def test_a_peer_that_failed_is_left_out_with_the_reason():
    failed = build_peer(0, None, None, state="failed", reason="the worker died")
    assert sentences(failed, build_record(1)) == ["timm:swift (trial 0) is left out of the comparison: the worker died"]


def test_a_peer_that_was_cut_off_is_compared_by_its_second_trial():
    cut = interrupt(build_peer(0, 800.0, None, state="running"))
    (standing,) = compare_references([cut, build_peer(1, 800.0, 0.6), build_record(2, 900.0, 0.7)])
    assert (standing.number, standing.by) == (1, 2)


def test_who_hardly_beats_a_reference_is_told_with_the_probability():
    (standing,) = compare_references([build_peer(0, 880.0, 0.60), build_record(1, 900.0, 0.61)])
    assert 0.3 < standing.probability < 0.95
    assert standing.verdict == "not beaten"
    assert standing.sentence() == (
        "trial 1: 1.02x the images/s of timm:swift (trial 0), top-1 not distinguishable (+1.0 ± 6.7 points), both "
        f"better with a probability of {standing.probability:.0%}"
    )


def test_a_trade_is_stated_with_what_cannot_be_told_apart():
    peer = build_peer(3, 1000.0, 0.515, "litv2_small")
    own = build_record(6, 6300.0, 0.5)
    (standing,) = compare_references([peer, own, build_record(7, 9000.0, 0.2)])
    assert (standing.verdict, standing.by) == ("not beaten", 6)
    assert standing.sentence() == (
        "trial 6: 6.3x the images/s of timm:litv2_small (trial 3), top-1 not distinguishable (-1.5 ± 6.9 points)"
    )


def test_without_an_even_trade_the_loss_or_the_gain_is_stated():
    peer = build_peer(0, 1000.0, 0.6)
    assert sentences(peer, build_record(1, 2000.0, 0.3), build_record(2, 3000.0, 0.2))[0].startswith(
        "trial 1: 2x the images/s of timm:swift (trial 0), -30.0 ±"
    )
    assert sentences(peer, build_record(1, 500.0, 0.8))[0].startswith(
        "trial 1: 0.5x the images/s of timm:swift (trial 0), +20.0 ±"
    )


def at_chance(record):
    """The record with a score that guessing would give, too."""
    (score,) = record.scores
    return dataclasses.replace(record, scores=(dataclasses.replace(score, chance=0.1),))


def test_a_baseline_at_chance_is_beaten_by_nobody_and_says_so():
    peer = at_chance(build_peer(0, 800.0, 0.1))
    (standing,) = compare_references([peer, build_record(1, 900.0, 0.75)])
    assert (standing.verdict, standing.by, standing.probability) == ("did not train", None, None)
    assert "did not train" in standing.sentence()
    assert "beats" not in standing.sentence()


def test_a_network_at_chance_is_no_evidence_however_fast_it_is():
    guessing, trained = at_chance(build_record(1, 9000.0, 0.11)), build_record(2, 900.0, 0.75)
    assert front_of([guessing, trained]) == [trained]
    assert 1 not in probability_on_front([guessing, trained])
    assert sentences(at_chance(build_record(0, 5.0, 0.3, origin="anchor:a")), guessing)[0].startswith(
        "no trial beats a (trial 0): it stands"
    )
    assert build_trials_frame([guessing, trained]).has_trained.tolist() == [False, True]


def test_peers_do_not_beat_one_another():
    some = [build_peer(0, 800.0, 0.6, "slow"), build_peer(1, 900.0, 0.7, "swift"), build_record(2, 700.0, 0.5)]
    assert [standing.verdict for standing in compare_references(some)] == ["not beaten", "not beaten"]


def test_a_study_without_anchors_has_no_standings():
    assert compare_references([build_record(0)]) == []
    assert compare_references([]) == []


def test_a_loss_of_accuracy_is_told_with_its_sign():
    standing = Standing(name="a", number=0, verdict="beaten", by=1, speed_ratio=2.0, top1_gain=0.0, top1_gain_se=0.01)
    assert standing.sentence().endswith("2.00 x its images/s, +0.0 ± 2.0 points of proxy top-1")


def test_a_further_condition_has_columns_of_its_own():
    objective, single = build_measurement(1000.0), build_measurement(40.0, condition=build_condition(batch_size=1))
    both = build_record(0, measurements=(objective, single, build_measurement(990.0)))
    frame = build_trials_frame([both, build_record(1)])
    label = single.condition.label()
    assert list(frame.columns)[-3:] == [f"{name}@{label}" for name in ("images_per_s", "latency_ms_p95", "memory_mib")]
    assert frame[f"images_per_s@{label}"].tolist()[0] == 40.0
    assert frame[f"images_per_s@{label}"].isna().tolist() == [False, True]
    assert frame["images_per_s"].tolist() == [1000.0, 1000.0]
