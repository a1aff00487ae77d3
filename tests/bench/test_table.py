"""What is left of a table that is cut short, and what a study's records make of it."""

import dataclasses

import pytest
from bench.tables import build_table
from builders import build_measurement, build_score

from hilo_nas.bench import table as table_module
from hilo_nas.bench.table import TABLE_NAME, collect_table, load_table, make_table
from hilo_nas.records import Subject, TrialRecord
from hilo_nas.search.request import SearchRequest
from hilo_nas.study import StudyFolder


def write_records(folder, table, *, trained):
    """The records of a sweep over the table's first five networks, of which so many are trained."""
    folder.trials_path.mkdir(parents=True)
    folder.write_manifest(table.manifest)
    for number, row in enumerate(table.rows[:5]):
        reached = 0.0
        scores = []
        for images, score in row.scores.items() if number < trained else ():
            scores.append(
                build_score(
                    score.top1, proxy_top1_se=score.top1_se, images_seen=images, seconds=score.seconds - reached
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
        folder.write_record(record)


def test_records_make_the_table_that_its_file_holds(tmp_path):
    table, folder = build_table(), StudyFolder(tmp_path / "small-table")
    write_records(folder, table, trained=4)
    found = collect_table(folder)
    assert load_table(folder.path) == found
    assert [row.key for row in found.rows] == [row.key for row in table.rows[:5]]
    for own, row in zip(found.rows[:4], table.rows, strict=False):
        assert dataclasses.replace(own, scores={}) == dataclasses.replace(row, scores={})
        assert own.scores.keys() == row.scores.keys()
        assert all(own.scores[n].top1 == row.scores[n].top1 for n in row.scores)
        assert all(own.scores[n].seconds == pytest.approx(row.scores[n].seconds) for n in row.scores)
    assert found.rows[4].scores == {}


@pytest.mark.parametrize("end", [KeyboardInterrupt, None])
def test_the_file_is_written_however_the_making_ends(tmp_path, monkeypatch, end):
    table, folder = build_table(), StudyFolder(tmp_path / "small-table")

    def sweep(request, space, folder, networks, plan, courses, emit, *, jobs):
        assert len(networks) == 24
        write_records(folder, table, trained=2)
        if end:
            raise end
        return []

    monkeypatch.setattr(table_module, "run_sweep", sweep)
    request = SearchRequest(img_size=32)
    if end:
        with pytest.raises(end):
            make_table(request, table.space, folder, print, jobs=1)
    else:
        make_table(request, table.space, folder, print, jobs=1)
    assert load_table(folder.path / TABLE_NAME) == collect_table(folder)
    assert sum(bool(row.scores) for row in collect_table(folder).rows) == 2
