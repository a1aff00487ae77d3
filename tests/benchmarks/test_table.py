"""What is left of a table that is cut short, and what a study's records make of it."""

import contextlib
import dataclasses

import pytest
from builders import build_measurement, build_score, fresh
from fakes import FakeMachine
from replay_tables import build_table, cut_short

from benchmarks.tables.table import (
    TABLE_NAME,
    collect_table,
    find_table,
    load_table,
    refresh_table,
    write_table,
)
from benchmarks.tables.table_making import make_table
from hilo_nas.errors import NotFoundError, StudyMismatchError, UsageError
from hilo_nas.events import SeedScored
from hilo_nas.searching.configuration.search_config import SearchConfig
from hilo_nas.searching.sweeps.listing import list_swept, read_sweep
from hilo_nas.space import list_networks, load_space
from hilo_nas.study.records import Subject, TrialRecord
from hilo_nas.study.stored_study import StoredStudy


def write_records(folder, table, *, trained):
    """The records of a sweep over the table's first five networks, of which `trained` many are trained."""
    folder.trials_path.mkdir(parents=True)
    fresh(folder).write_manifest(table.manifest)
    for number, row in enumerate(table.rows[:5]):
        reached = 0.0
        scores = []
        for images, score in row.scores.items() if number < trained else ():
            scores.append(
                build_score(
                    score.top1, standard_error=score.top1_se, images_seen=images, seconds=score.seconds - reached
                )
            )
            reached = score.seconds
        record = TrialRecord(
            number=number,
            subject=Subject(arch=table.space.decode(row.params)),
            state="complete" if scores else "running",
            params=row.params,
            origin="list",
            parameters=row.parameters,
            macs=row.macs,
            measurements=(
                build_measurement(
                    row.images_per_s,
                    images_per_s_spread=row.images_per_s_spread,
                    images_per_s_low=row.images_per_s_low,
                    images_per_s_high=row.images_per_s_high,
                    verdict=row.verdict,
                    seconds=row.timing_seconds,
                ),
            ),
            scores=(*scores, build_score(0.99, images_seen=9999, seed=7)) if scores else (),
        )
        fresh(folder).write(record)


def test_records_make_the_table_that_its_file_holds(tmp_path):
    table, folder = build_table(), StoredStudy(tmp_path / "small-table")
    write_records(folder, table, trained=4)
    found = collect_table(StoredStudy(folder.path))
    assert load_table(folder.path) == found
    assert [row.key for row in found.rows] == [row.key for row in table.rows[:5]]
    for own, row in zip(found.rows[:4], table.rows, strict=False):
        high = pytest.approx(row.images_per_s_high)
        assert dataclasses.replace(own, scores={}, images_per_s_high=0) == dataclasses.replace(
            row, scores={}, images_per_s_high=0
        )
        assert own.images_per_s_high == high
        assert own.scores.keys() == row.scores.keys()
        assert all(own.scores[n].top1 == row.scores[n].top1 for n in row.scores)
        assert all(own.scores[n].seconds == pytest.approx(row.scores[n].seconds) for n in row.scores)
    assert found.rows[4].scores == {}


def test_a_sample_is_the_beginning_of_the_whole_and_one_that_is_asked_too_much_says_so(tmp_path):
    space, request, told = build_table().space, SearchConfig.of(img_size=32), []
    folder = StoredStudy(tmp_path / "none")
    total = list_swept(space, request, folder, None, told.append)
    assert list_swept(space, request, folder, 5, told.append) == total[:5]
    assert told == []
    assert list_swept(space, request, folder, 25, told.append) == total
    (event,) = told
    assert event.text == "25 networks of small were requested, but only 24 were found within its limits"


def limit(space, **limits):
    return dataclasses.replace(space, limits=limits)


def test_a_stored_study_says_of_which_networks_it_is_and_at_which_size_they_are_limited(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    table, folder, told = build_table(), StoredStudy(tmp_path / "small-table"), []
    costs = sorted(row.macs for row in table.rows)
    limited = limit(dataclasses.replace(table.space, defaults={"num_classes": 10}), gmacs=costs[10] / 1e9)
    folder.trials_path.mkdir(parents=True)
    folder.write_manifest(dataclasses.replace(table.manifest, space=limited))
    config, space, study = read_sweep(SearchConfig.of(study="small-table"), told.append)
    assert (space, study.path, told) == (limited, folder.path, [])
    assert read_sweep(SearchConfig.of(study="small-table", space="litv2_digits"), print)[1] == load_space(
        "litv2_digits"
    )
    # At the stored size of 32 pixels, not at the default of 224.
    listed = list_swept(space, config, study, None, print)
    assert len(listed) == sum(cost <= costs[10] for cost in costs)
    with pytest.raises(UsageError, match="no network of small"):
        list_swept(limited, SearchConfig.of(), StoredStudy(tmp_path / "none"), None, print)


def test_settings_of_a_search_alone_are_left_out_with_a_warning():
    told = []
    asked = SearchConfig.of(
        study="new", space="litv2_digits", trials=3, seed=0, reduction_factor=2.0, reuse="other", device="cpu"
    )
    config, _, _ = read_sweep(asked, told.append, unread=("study.reuse",))
    assert config == SearchConfig.of(study="new", space="litv2_digits", device="cpu")
    (event,) = told
    assert (event.level, event.text.partition(": ")[2]) == (
        "warning",
        "proxy.reduction_factor, search.trials, study.reuse",
    )
    assert read_sweep(asked, print)[0].study.reuse == "other"


def test_a_sample_of_none_is_refused_and_so_are_limits_that_no_network_keeps(tmp_path):
    space, request = build_table().space, SearchConfig.of(img_size=32)
    with pytest.raises(UsageError, match="networks must be at least 1, but got 0"):
        list_swept(space, request, StoredStudy(tmp_path), 0, print)
    with pytest.raises(UsageError, match=r"no network of small was found within its limits \(gmacs <= 1e-06\)"):
        list_swept(limit(space, gmacs=1e-6), request, StoredStudy(tmp_path), None, print)


@pytest.mark.parametrize("table", [cut_short(build_table()), dataclasses.replace(build_table(), rows=())])
def test_searches_are_replayed_on_a_whole_table_alone(table):
    build_table().check_complete()
    with pytest.raises(UsageError, match=rf"but {24 - max(len(table.rows) - 1, 0)} of the 24 networks of small"):
        table.check_complete()


def test_no_search_is_replayed_on_a_sample_of_a_large_space():
    table = build_table()
    sample = dataclasses.replace(table, manifest=dataclasses.replace(table.manifest, space=load_space("litv2_cifar")))
    with pytest.raises(UsageError, match=r"small-table has only a sample of litv2_cifar, which has 1,049,760 settings"):
        sample.check_complete()


def test_a_list_within_narrow_limits_is_not_cut_short_for_want_of_draws():
    space = limit(load_space("litv2_imagenet"), gmacs=0.35)
    assert len(list_networks(space, img_size=224, num_classes=1000, count=1)) == 1


# Trainings that are taken over.


@pytest.fixture
def machine():
    """A machine of another speed than the table's."""
    return FakeMachine()


def store(folder, table):
    """The table as it is stored for others: its file, and the manifest with the identity of its data."""
    folder.path.mkdir(parents=True)
    fresh(folder).write_manifest(table.manifest)
    write_table(table, folder.path / TABLE_NAME)


def retime(machine, tmp_path, source, told, **options):
    """A table with the trainings of another, or with its own where there is no source."""
    table = build_table()
    request = SearchConfig.of(
        data="digits", reuse=source, device="cpu", img_size=32, batch_size=4,
        proxy_img_size=table.manifest.plan.img_size, proxy_batch_size=64, proxy_images=2304, rungs=3, **options,
    )  # fmt: skip
    folder = StoredStudy(tmp_path / "new")
    make_table(request, table.space, folder, told.append, evaluator=machine)
    return folder


@pytest.mark.parametrize("end", [KeyboardInterrupt, None])
def test_the_file_is_written_however_the_making_ends(tmp_path, machine, end):
    def happen(verb, count):
        if end and (verb, count) == ("score", 7):
            raise end

    machine.happen = happen
    with pytest.raises(end) if end else contextlib.nullcontext():
        retime(machine, tmp_path, None, [])
    table = load_table(tmp_path / "new" / TABLE_NAME)
    assert table == collect_table(StoredStudy(tmp_path / "new"))
    trained = sum(bool(row.scores) for row in table.rows)
    assert (len(table.rows), trained) == (24, 3 if end else 24)


def test_a_stored_table_is_timed_again_with_its_trainings(tmp_path, machine):
    table, stored = build_table(), StoredStudy(tmp_path / "small-table")
    store(stored, table)
    folder = retime(machine, tmp_path, stored.path, told := [])
    found = load_table(folder.path)
    found.check_complete()
    assert len(found.rows) == 24
    for row in found.rows:
        before = table.by_key[row.key]
        assert {n: (score.top1, score.top1_se) for n, score in row.scores.items()} == {
            n: (score.top1, score.top1_se) for n, score in before.scores.items()
        }
        assert [row.scores[n].seconds for n in table.budgets] == pytest.approx(
            [before.scores[n].seconds for n in table.budgets]
        )
        assert row.images_per_s != before.images_per_s
    records = fresh(folder).records
    assert {record.state for record in records} == {"complete"}
    assert {record.origin.partition("/")[0] for record in records} == {"reuse:small-table"}
    assert not [event for event in told if isinstance(event, SeedScored)]
    # The file itself can be named. From a study with records, all of its trainings are copied.
    assert load_table(stored.path / TABLE_NAME) == load_table(stored.path) == table


def test_of_a_study_with_records_the_further_seeds_are_taken_over_too(tmp_path, machine):
    table, source = build_table(), StoredStudy(tmp_path / "small-table")
    store(source, table)
    write_records(source, table, trained=4)
    first, *_ = before = fresh(source).records
    another_seed = build_score(0.5, images_seen=256, seed=7)
    # The fifth is still in training there, which keeps nothing from being taken over.
    for number, row in enumerate(table.rows):
        fresh(source).write(
            dataclasses.replace(
                before[number] if number < 5 else first,
                number=number,
                subject=Subject(arch=table.space.decode(row.params)),
                params=row.params,
                scores=(*first.scores, another_seed),
            )
        )
    folder = retime(machine, tmp_path, source.path, [])
    for record in fresh(folder).records:
        assert record.scores == (*[score for score in first.scores if score.images_seen <= 2304], another_seed)


def test_other_trainings_are_refused_before_anything_is_done(tmp_path, machine):
    table, stored = build_table(), StoredStudy(tmp_path / "small-table")
    store(stored, table)
    with pytest.raises(StudyMismatchError, match=r"small-table come from a different training[^$]*proxy precision"):
        retime(machine, tmp_path, stored.path, [], proxy_precision="amp-bf16")
    assert (machine.cohorts, machine.grouped_by) == ([], [])
    machine.data["content_hash"] = "another"
    with pytest.raises(StudyMismatchError, match=r"small-table come from a different training.*\n  data: "):
        retime(machine, tmp_path, stored.path, [])
    assert not StoredStudy(tmp_path / "new").exists


def test_a_file_that_belongs_to_no_study_has_nothing_to_take_over(tmp_path, machine):
    with pytest.raises(NotFoundError, match=r"manifest\.yaml"):
        retime(machine, tmp_path, tmp_path / "some.csv", [])
    assert (machine.cohorts, StoredStudy(tmp_path / "new").exists) == ([], False)


def test_a_stored_table_without_records_is_not_resumed(tmp_path, machine):
    table, stored = build_table(), StoredStudy(tmp_path / "small-table")
    store(stored, table)
    with pytest.raises(UsageError, match=r"study small-table must have records.*--set study.reuse=.*small-table"):
        make_table(SearchConfig.of(data="digits", device="cpu", img_size=32), table.space, stored, print)
    assert load_table(stored.path) == table


def test_a_table_is_written_again_from_its_records_and_that_of_a_search_never(tmp_path):
    table, folder = build_table(), StoredStudy(tmp_path / "small-table")
    refresh_table(StoredStudy(folder.path))
    assert not folder.path.exists()
    write_records(folder, table, trained=4)
    refresh_table(StoredStudy(folder.path))
    assert load_table(folder.path / TABLE_NAME) == collect_table(StoredStudy(folder.path))
    (folder.path / TABLE_NAME).unlink()
    fresh(folder).write_manifest(dataclasses.replace(table.manifest, sampler="gp"))
    refresh_table(StoredStudy(folder.path))
    assert not (folder.path / TABLE_NAME).exists()


def test_records_are_the_truth_and_a_file_that_lags_behind_them_is_not(tmp_path):
    table, folder = build_table(), StoredStudy(tmp_path / "small-table")
    store(folder, table)
    assert load_table(folder.path) == table
    write_records(folder, table, trained=4)
    assert load_table(folder.path) == collect_table(StoredStudy(folder.path)) != table
    assert load_table(folder.path / TABLE_NAME) == table  # who names the file gets it


def test_a_table_is_found_by_its_studys_name_its_folder_and_its_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    table, folder = build_table(), StoredStudy(tmp_path / "small-table")
    store(folder, table)
    assert find_table("small-table") == find_table(str(folder.path)) == folder.path
    assert find_table(str(folder.path / TABLE_NAME)) == folder.path / TABLE_NAME
    with pytest.raises(NotFoundError):
        find_table("another")


def test_further_seeds_of_a_table_survive_its_file(tmp_path):
    table = build_table()
    rows = [
        dataclasses.replace(row, other_top1={1: row.scores[2304].top1 / 3} if i else {})
        for i, row in enumerate(table.rows)
    ]
    study = StoredStudy(tmp_path / "seeds")
    study.path.mkdir()
    study.write_manifest(table.manifest)
    write_table(dataclasses.replace(table, rows=tuple(rows)), study.path / TABLE_NAME)
    assert load_table(study.path).rows == tuple(rows)
    assert load_table(study.path).rows[1].judged_top1(2304) == rows[1].scores[2304].top1 / 3
    assert load_table(study.path).rows[0].judged_top1(2304) == rows[0].scores[2304].top1
