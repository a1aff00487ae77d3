"""The CSV files of a study: columns, values, and when they are written."""

import csv
import io

import pandas as pd
import pytest
from builders import (
    TINY,
    build_arch,
    build_condition,
    build_failed,
    build_infeasible,
    build_measurement,
    build_record,
    build_score,
    demo_records,
    fresh,
    write_study,
)

from hilo_nas.arch.config import PRESETS
from hilo_nas.errors import StorageError
from hilo_nas.study.csv_files import CsvFiles, render_front, render_trials
from hilo_nas.study.front import Front
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.stored_study import StoredStudy

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
    "is_preliminary",
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


def read_trials(records):
    """`trials.csv` of some records."""
    return read(render_trials(Front.from_records(records)))


def read_front(records, **options):
    """`front.csv` of some records."""
    return read(render_front(Front.from_records(records), **options))


def read(text):
    return pd.read_csv(io.StringIO(text), dtype={"key": str, "tied_with": str})


def test_there_is_a_row_per_trial_with_every_value_and_its_spread():
    frame = read_trials(demo_records())
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
    frame = read_trials([build_record(0, seconds=99.96)])
    assert frame.loc[0, "seconds"] == 100.0


def test_knobs_are_text_with_a_value_per_stage():
    row = read_trials([build_record(0, arch=TINY)]).loc[0]
    assert row["embed_dims"] == "16-32-64-128"
    assert row["depths"] == "1-1-2-1"
    assert row["attention"] == "none-none-hilo-hilo"
    assert row["alpha"] == "0.5-0.5-0.5-0.5"
    assert row["mlp_ratios"] == "4-4-4-4"
    assert row["patch_size"] == 2


def test_what_was_not_taken_is_missing_and_reasons_are_told():
    frame = read_trials([build_record(0), build_infeasible(1), build_failed(2)])
    assert frame["value"].notna().tolist() == [True, False, False]
    assert frame["images_per_s"].notna().tolist() == [True, True, False]
    assert frame["reason"].tolist()[1:] == ["images_per_s >= 900 is a limit, but got 10", "the worker died"]
    assert pd.isna(frame["reason"][0])


def test_what_the_sampler_was_told_instead_is_no_result():
    record = build_infeasible(0, imputed={"value": 0.123})
    assert pd.isna(read_trials([record]).loc[0, "value"])


def test_a_stopped_network_has_its_rungs_score_and_no_place_on_the_front():
    rung = build_score(0.9, images_seen=1024)
    row = read_trials([build_record(0), build_record(1, 2000.0, state="stopped", scores=(rung,))]).loc[1]
    assert (row["state"], row["images_seen"], row["value"], row["seeds"]) == ("stopped", 1024, 0.9, 1)
    assert row["standard_error"] == rung.standard_error
    assert not row["on_front"]
    assert pd.isna(row["on_front_probability"])


def test_seeds_and_what_they_told_of_their_noise_are_in_the_table():
    seeds = tuple(build_score(top1, seed=seed) for seed, top1 in enumerate((0.79, 0.81)))
    records = [*demo_records()[:2], build_record(2, 500.0, scores=seeds), *demo_records()[3:]]
    frame, errors = read_trials(records), Front.from_records(records).standard_errors
    assert frame["seeds"].tolist()[:5] == [1, 1, 2, 1, 1]
    assert frame["standard_error"].tolist()[:5] == pytest.approx([errors[number] for number in range(5)])
    assert errors[0] > records[0].score.standard_error
    probabilities = Front.from_records(records).probabilities()
    assert frame["on_front_probability"].tolist()[:5] == [probabilities[number] for number in range(5)]
    assert frame["on_front_probability"].isna().tolist()[5:] == [True, True]


def test_numbers_of_images_and_seeds_are_written_whole(tmp_path):
    folder = write_study(tmp_path, records=demo_records())
    StoredStudy(folder.path).write_csv_files()
    with (folder.path / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["images_seen"], row["seeds"]) for row in rows[4:6]] == [("3008", "1"), ("", "")]


def test_the_front_has_the_same_columns_the_fastest_first():
    frame = read_front(demo_records())
    assert list(frame.columns) == COLUMNS
    assert list(frame["number"]) == [4, 3, 2]
    assert list(frame.index) == [0, 1, 2]
    assert frame["on_front"].all()
    trials = read_trials(demo_records())
    assert trials.loc[trials["on_front"], "number"].tolist() == [2, 3, 4]


def test_ties_name_the_members_that_are_not_distinguishable():
    tie = build_record(7, 895.0, 0.745, arch=build_arch(20))  # beaten by trial 3, but hardly
    trials = read_trials([*demo_records(), tie])
    assert trials["tied_with"].tolist()[7] == "3"
    assert trials["tied_with"].notna().tolist() == [False] * 7 + [True]
    assert not trials.loc[7, "on_front"]
    assert list(read_front([*demo_records(), tie])["number"]) == [4, 3, 2]
    with_ties = read_front([*demo_records(), tie], ties=True)
    assert list(with_ties["number"]) == [4, 3, 2, 7]
    assert with_ties["on_front"].tolist() == [True, True, True, False]


def test_a_tie_with_several_members_names_them_in_the_order_of_the_front():
    some = [build_record(i, 1000.0 - i, 0.5 + i / 1000) for i in range(3)]
    frame = read_trials([*some, build_record(3, 997.0, 0.5)])
    assert frame.loc[3, "tied_with"] == "0-1-2"


def test_a_study_without_trials_has_empty_tables():
    assert list(read_trials([]).columns) == COLUMNS
    assert list(read_front([]).columns) == COLUMNS
    assert len(read_front([build_failed(0)])) == 0


def test_a_network_of_timms_has_a_row_too():
    record = TrialRecord(
        number=0,
        subject=Subject(timm="resnet18"),
        state="complete",
        origin="baseline:resnet18",
        measurements=(build_measurement(),),
        scores=(build_score(),),
    )
    row = read_trials([record]).loc[0]
    assert row["key"] == "timm:resnet18"
    assert pd.isna(row["depths"])
    assert pd.isna(row["params_m"])


def test_the_tables_are_written_beside_the_records(tmp_path):
    folder = write_study(tmp_path, records=demo_records())
    StoredStudy(folder.path).write_csv_files()
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
    StoredStudy(folder.path).write_csv_files()
    fresh(folder).write(build_record(3, 5000.0, 0.99))
    StoredStudy(folder.path).write_csv_files()
    assert pd.read_csv(folder.path / "front.csv")["number"].tolist() == [3]


def test_a_key_of_digits_alone_survives_the_table(tmp_path):
    """A key such as 84170833e994 is read back as a number by careless readers; as text it is the key."""
    folder = write_study(tmp_path, records=[build_record(0, arch=PRESETS["litv2_medium"])])
    StoredStudy(folder.path).write_csv_files()
    assert pd.read_csv(folder.path / "trials.csv", dtype={"key": str})["key"][0] == PRESETS["litv2_medium"].key()


def test_a_folder_that_is_gone_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*trials\.csv"):
        StoredStudy(tmp_path / "gone").write_csv_files()


def test_a_further_condition_has_columns_of_its_own():
    objective, single = build_measurement(1000.0), build_measurement(40.0, condition=build_condition(batch_size=1))
    both = build_record(0, measurements=(objective, single, build_measurement(990.0)))
    frame = read_trials([both, build_record(1)])
    label = single.condition.label()
    assert list(frame.columns)[-3:] == [f"{name}@{label}" for name in ("images_per_s", "latency_ms_p95", "memory_mib")]
    assert frame[f"images_per_s@{label}"].tolist()[0] == 40.0
    assert frame[f"images_per_s@{label}"].isna().tolist() == [False, True]
    assert frame["images_per_s"].tolist() == [1000.0, 1000.0]


def test_scores_in_int8_have_columns_for_what_quantization_costs():
    quantized = build_record(0, scores=(build_score(0.5, float_value=0.52, drop_error=0.01),))
    frame = read_trials([quantized, build_record(1)])
    assert list(frame.columns)[-2:] == ["float_value", "drop_error"]
    assert frame.loc[0, ["value", "float_value", "drop_error"]].tolist() == [0.5, 0.52, 0.01]
    assert frame.loc[1, ["float_value", "drop_error"]].isna().all()


def test_layers_that_stayed_in_float_have_a_column():
    score = build_score(0.5, float_value=0.52, drop_error=0.01, float_layers=("patch_embed.proj", "head.fc"))
    quantized = build_record(1, scores=(build_score(0.5, float_value=0.52, drop_error=0.01),))
    frame = read_trials([build_record(0, scores=(score,)), quantized])
    assert list(frame.columns)[-3:] == ["float_value", "drop_error", "float_layers"]
    assert frame.loc[0, "float_layers"] == "patch_embed.proj-head.fc"
    assert frame.float_layers.isna().tolist() == [False, True]


def test_a_baseline_has_no_knobs_and_no_place_on_the_front():
    baseline = build_record(0, 2000.0, 0.9, origin="baseline:swift", subject=Subject(timm="swift"))
    frame = read_trials([baseline, build_record(1)])
    assert frame.on_front.tolist() == [False, True]
    assert frame.key[0] == "timm:swift"
    assert frame.patch_size.isna().tolist() == [True, False]
    assert read_front([baseline, build_record(1)], ties=True).number.tolist() == [1]


def test_a_network_at_chance_is_told_as_not_trained():
    guessing = build_record(1, 9000.0, scores=(build_score(0.11, chance=0.1),))
    assert read_trials([guessing, build_record(2, 900.0, 0.75)]).has_trained.tolist() == [False, True]


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self):
        return self.now


def written(folder):
    return {name: pd.read_csv(folder / f"{name}.csv") for name in ("trials", "front")}


def test_while_records_come_in_the_files_follow_every_few_seconds_without_probabilities(tmp_path):
    clock, front = Clock(), Front.from_records(demo_records())
    files = CsvFiles(tmp_path, clock)
    files.refresh(lambda: front)
    assert not list(tmp_path.iterdir())  # too early
    clock.now = 6.0
    files.refresh(lambda: front)
    assert written(tmp_path)["front"]["number"].tolist() == [4, 3, 2]
    assert written(tmp_path)["trials"]["on_front_probability"].isna().all()
    grown = front.updated(build_record(7, 5000.0, 0.99))
    clock.now = 10.0
    files.refresh(lambda: grown)
    assert len(written(tmp_path)["trials"]) == 7
    clock.now = 12.0
    files.refresh(lambda: grown)
    assert written(tmp_path)["front"]["number"].tolist() == [7]
    files.write(grown)
    assert written(tmp_path)["front"]["on_front_probability"].tolist() == [1.0]


def test_files_that_take_longer_to_write_are_written_less_often(tmp_path):
    clock, front = Clock(), Front.from_records(demo_records())
    files = CsvFiles(tmp_path, clock)
    clock.now = 6.0

    def slowly():
        return front

    files.write(front)
    (tmp_path / "trials.csv").unlink()

    class Slow(Clock):
        """Each look at the clock takes two seconds, so that a writing takes two."""

        def __call__(self):
            self.now += 2.0
            return self.now

    slow = Slow()
    files = CsvFiles(tmp_path, slow)  # due at 7
    files.write(front)  # from 4 to 6: due at 46
    for _ in range(19):
        (tmp_path / "trials.csv").unlink(missing_ok=True)
        files.refresh(slowly)  # looks at 8 to 44
        assert not (tmp_path / "trials.csv").exists()
    files.refresh(slowly)
    assert (tmp_path / "trials.csv").exists()


def test_a_row_changes_with_its_record_and_with_its_front(tmp_path):
    files, records = CsvFiles(tmp_path), demo_records()
    front = Front.from_records(records)
    files.write(front)
    files.write(front.updated(build_record(3, 5000.0, 0.99)))
    trials = written(tmp_path)["trials"]
    assert trials["images_per_s"][3] == 5000.0
    assert trials["on_front"].tolist()[:5] == [False, False, False, True, False]
