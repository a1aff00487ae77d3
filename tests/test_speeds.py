"""Tables of speeds: a setting and a record per network, which survive the disk and are told from each other."""

import dataclasses
import hashlib

import pytest
import yaml
from builders import build_arch, build_calibration, build_condition, build_measurement, build_speed_setting
from fakes import write_speeds

from hilo_nas.errors import NotFoundError, RecordError, StorageError
from hilo_nas.space import list_shipped, load_space
from hilo_nas.speeds import SpeedFolder, SpeedSetting
from hilo_nas.transitions import fail

ARCHS = [build_arch(i) for i in range(4)]


@pytest.fixture
def table(tmp_path):
    return write_speeds(tmp_path / "edge", ARCHS)


@pytest.mark.parametrize("name", list_shipped())
def test_a_setting_survives_yaml_with_every_shipped_space(name):
    setting = build_speed_setting(
        space=load_space(name), conditions=(build_condition(), build_condition(batch_size=1, env="default"))
    )
    assert SpeedSetting.from_yaml(setting.to_yaml()) == setting


def test_a_table_survives_the_disk(table):
    again = SpeedFolder(table.path)
    assert again.exists
    assert again.load_setting() == build_speed_setting()
    assert again.load_records() == table.load_records()
    assert list(again.load_records()) == [arch.key() for arch in ARCHS]
    assert again.measurements_of(ARCHS[2].key()) == table.load_all()[2].measurements


def test_what_could_not_be_timed_is_kept_but_serves_no_search(table):
    failed = fail(table.load_all()[1], "no memory", measurements=())
    table.write_record(failed)
    assert len(table.load_all()) == 4
    assert list(table.load_records()) == [ARCHS[i].key() for i in (0, 2, 3)]
    with pytest.raises(NotFoundError, match=f"do not hold network {ARCHS[1].key()}"):
        table.measurements_of(ARCHS[1].key())


def test_a_new_record_is_seen_by_whoever_wrote_it(table):
    assert len(table.load_records()) == 4
    table.write_record(dataclasses.replace(table.load_all()[0], number=4, subject=table.load_all()[3].subject))
    assert len(table.load_all()) == 5


def test_no_table_is_told_with_the_way_to_one(tmp_path):
    folder = SpeedFolder(tmp_path / "none")
    assert not folder.exists
    with pytest.raises(NotFoundError, match=r"holds no table of speeds .* `hilo-nas measure SPACE --sample N --save"):
        folder.load_setting()
    assert folder.load_all() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("name: demo", "schema_version is missing: this is no table of speeds"),
        ("[]", "schema_version is missing"),
        ("schema_version: 2", "schema_version must be at most 1, but got 2: a newer hilo-nas wrote it. Upgrade"),
        ("schema_version: 1", "the table is not complete: KeyError"),
        ("schema_version: [1", "it is not YAML (while parsing"),
        (b"\xff\xfe", "'utf-8' codec"),
    ],
)
def test_a_setting_that_cannot_be_understood_is_named(table, change, message):
    path = table.path / "speeds.yaml"
    path.write_bytes(change if isinstance(change, bytes) else change.encode())
    with pytest.raises(RecordError) as caught:
        table.load_setting()
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("part", "message"),
    [("device", "the table is not complete"), ("num_classes", "the table is not complete"), ("space", "not complete")],
)
def test_a_setting_that_lacks_a_part_is_refused(table, part, message):
    path = table.path / "speeds.yaml"
    content = yaml.safe_load(path.read_text())
    del content[part]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(RecordError, match=message):
        table.load_setting()


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("I am no folder")
    with pytest.raises(StorageError, match=r"cannot make .*Choose another folder"):
        SpeedFolder(tmp_path / "file" / "table").write_setting(build_speed_setting())


# Which table it is.


def changed(table, **fields):
    record = table.load_all()[0]
    measurements = tuple(dataclasses.replace(m, **fields) for m in record.measurements)
    table.write_record(dataclasses.replace(record, measurements=measurements))
    return table


def test_equal_tables_are_one_wherever_they_lie(table, tmp_path):
    copy = write_speeds(tmp_path / "copy", ARCHS)
    assert table.identity().startswith("edge (")
    assert copy.identity() == table.identity().replace("edge", "copy")
    assert copy.is_named_by(table.identity())
    assert not copy.is_named_by("copy (0123456789ab)")


@pytest.mark.parametrize(
    "fields", [{"reference_seconds": (1.0, 1.0, 1.0)}, {"latency_seconds": (1.0,)}, {"memory_mib": None}]
)
def test_a_table_with_another_figure_is_another_one(table, fields):
    before = table.identity()
    assert not changed(table, **fields).is_named_by(before)


def test_figures_of_every_condition_count(tmp_path):
    conditions = (build_condition(), build_condition(batch_size=1))
    table = write_speeds(tmp_path / "both", ARCHS, conditions=conditions)
    before, record = table.identity(), table.load_all()[0]
    second = build_measurement(1.0, condition=conditions[1], reference_seconds=(0.5, 0.5, 0.5))
    table.write_record(dataclasses.replace(record, measurements=(record.measurements[0], second)))
    assert table.identity() != before


def test_what_no_search_looks_at_makes_no_other_table(table):
    before = table.identity()
    assert changed(table, seconds=99.0, measured_at="later").identity() == before


def test_a_further_timing_or_another_calibration_makes_no_other_table(table):
    before, record = table.identity(), table.load_all()[0]
    newer = build_measurement(1.0, reference_seconds=(0.5, 0.5, 0.5), measured_at="2026-08-01T12:00:00+00:00")
    table.write_record(dataclasses.replace(record, measurements=(newer, *record.measurements)))
    assert table.is_named_by(before)
    setting = table.load_setting()
    calibrations = {label: build_calibration(512.0) for label in setting.calibrations}
    table.write_setting(dataclasses.replace(setting, calibrations=calibrations))
    again = SpeedFolder(table.path)
    assert again.is_named_by(before)
    key = ARCHS[1].key()
    assert again.measurements_of(key)[0].images_per_s == pytest.approx(2 * table.measurements_of(key)[0].images_per_s)


def test_the_identity_that_an_earlier_version_gave_still_names_the_table(table):
    figures = "\n".join(
        f"{r.key} {m.condition.label()} {m.images_per_s!r} {m.latency_ms_p95!r} {m.memory_mib!r}"
        for r in sorted(table.load_all(), key=lambda record: record.key)
        for m in r.measurements
    )
    stored = hashlib.sha256(figures.encode()).hexdigest()[:12]
    assert stored not in table.identity()
    assert table.is_named_by(f"edge ({stored})")
    assert not table.is_named_by("edge (0123456789ab)")
