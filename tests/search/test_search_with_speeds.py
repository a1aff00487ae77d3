"""A search that takes its speeds from a table: only networks of the table, nothing timed, held to that table."""

import dataclasses
from random import Random

import pytest
from builders import TINY, build_arch, build_condition, build_device, build_measurement
from fakes import speed, write_speeds
from hypothesis import given, settings
from hypothesis import strategies as st

from hilo_nas.errors import NotFoundError, SpaceExhaustedError, StudyMismatchError, UsageError
from hilo_nas.events import Notice
from hilo_nas.manifest import Manifest
from hilo_nas.measurement import PROTOCOL
from hilo_nas.search import SearchRequest, run_search
from hilo_nas.search.samplers import find_in
from hilo_nas.space import load_space
from hilo_nas.space.file import build_space
from hilo_nas.speeds import SpeedFolder
from hilo_nas.transitions import fail

DIGITS = load_space("litv2_digits")
ARCHS = [build_arch(i) for i in (0, 3, 7, 15, 27)]


@pytest.fixture
def table(tmp_path, machine):
    """Five networks, the anchor not among them, timed on a machine that is not this one."""
    machine.device_of = {"cuda": build_device(kind="cuda", model="Test GPU"), "cpu": build_device()}
    return write_speeds(tmp_path / "edge", ARCHS)


def search(table, events=None, **options):
    options = {"speeds": table.path, "space": "litv2_digits", "sampler": "random", "rungs": 1, **options}
    request = SearchRequest(study="new", studies_dir=table.path.parent / "studies", **options)
    folder, finished = run_search(request, (events if events is not None else []).append)
    return folder, finished


def go_on(table, events=None, **options):
    """Goes on with the study of `search`, without naming the table."""
    return search(table, events, **{"speeds": None, "space": None, "sampler": None, **options})


def refusal(table, error=UsageError, call=search, **options):
    with pytest.raises(error) as caught:
        call(table, **options)
    return str(caught.value)


# The nearest network of a table.


def test_the_nearest_setting_of_the_pool_is_taken_by_each_knobs_own_range():
    dimensions = {"wide": 11, "narrow": 2}
    pool = [{"wide": 0, "narrow": 1}, {"wide": 9, "narrow": 0}]
    free = {"excess": lambda params: 0.0, "is_known": lambda params: False}
    assert find_in(pool, dimensions, {"wide": 0, "narrow": 0}, **free) == pool[1]  # 0.9 away, the other one 1
    assert find_in(pool, dimensions, {"wide": 0, "narrow": 1}, **free) == pool[0]


def test_what_is_known_or_beyond_a_limit_is_passed_over():
    dimensions = {"a": 4}
    pool = [{"a": i} for i in range(4)]
    found = find_in(pool, dimensions, {"a": 0}, excess=lambda p: 1.0 - p["a"], is_known=lambda p: p["a"] == 1)
    assert found == {"a": 2}
    with pytest.raises(SpaceExhaustedError):
        find_in(pool, dimensions, {"a": 0}, excess=lambda p: 1.0, is_known=lambda p: False)
    with pytest.raises(SpaceExhaustedError):
        find_in([], dimensions, {"a": 0}, excess=lambda p: 0.0, is_known=lambda p: False)


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_proposal_that_is_in_the_pool_is_left_alone(seed):
    random = Random(seed)
    pool = [DIGITS.sample(random) for _ in range(10)]
    free = {"excess": lambda params: 0.0, "is_known": lambda params: False}
    assert find_in(pool, DIGITS.dimensions, pool[3], **free) == pool[3]


# The search.


def test_only_the_tables_networks_are_tried_until_it_is_used_up(table, machine):
    folder, finished = search(table, trials=20)
    assert (finished.measured, finished.stopped_by) == (5, "exhausted")
    records = folder.load_records()
    assert {record.key for record in records} == {arch.key() for arch in ARCHS}
    assert {record.origin for record in records} == {"sampler"}  # the anchor is not in the table
    assert go_on(table, trials=1)[1].stopped_by == "exhausted"


def test_nothing_is_timed_and_the_training_is_on_the_device_at_hand(table, machine):
    folder, _ = search(table, trials=3)
    assert machine.measured == machine.cohorts == machine.calibrated == []
    assert len(machine.scored) == 3
    assert set(machine.targets) == {"cuda"}
    manifest = folder.load_manifest()
    assert manifest.device == table.load_setting().device
    assert manifest.training_device == machine.device_of["cuda"]
    assert manifest.conditions == table.load_setting().conditions
    assert manifest.speeds == table.identity()
    assert folder.load_local().values["speeds"] == str(table.path)
    for record in folder.load_records():
        assert record.measurement.images_per_s == speed(record.subject.arch)
        assert manifest.is_comparable(record.measurement)
        assert record.measurements == table.measurements_of(record.key)


def test_an_anchor_of_the_table_comes_first(table, tmp_path):
    again = write_speeds(tmp_path / "with-anchor", [*ARCHS, TINY])
    folder, _ = search(again, trials=2)
    assert [record.origin for record in folder.load_records()] == ["anchor:litv2_tiny", "sampler"]


def test_limits_that_no_network_of_the_table_keeps_are_refused_with_the_nearest(table, machine):
    best = max(speed(arch) for arch in ARCHS)
    said = refusal(table, min_images_per_s=best * 2)
    assert f"none of the {len(ARCHS)} networks" in said
    assert f"the nearest has {best:.4g}" in said
    assert machine.scored == []


def test_limits_are_held_against_the_tables_speeds(table, machine):
    bound = sorted(speed(arch) for arch in ARCHS)[2]
    folder, _ = search(table, trials=9, min_images_per_s=bound)
    states = {record.key: record.state for record in folder.load_records()}
    assert states == {arch.key(): "complete" for arch in ARCHS if speed(arch) >= bound}  # the others are not tried
    assert len(machine.scored) == 3


def test_every_sampler_stays_within_the_table(table):
    for sampler in ("tpe", "nsga2"):
        folder, _ = search(table, trials=5, sampler=sampler, seed=1)
        assert {record.key for record in folder.load_records()} == {arch.key() for arch in ARCHS}
        folder.manifest_path.unlink()
        for path in folder.trials_path.iterdir():
            path.unlink()


def test_a_space_of_one_network_that_is_not_in_the_table_has_nothing_to_try(table, tmp_path, machine):
    one = {
        **DIGITS.to_dict(),
        "embed_dims": [16],
        "depths": [[1], [1], [1], [1]],
        "alpha": [0.5],
        "window_size": [[1], [1], [1], [1]],
        "mlp_ratios": [4],
        "anchors": {"wide": {**build_arch(27).to_dict(), "outside": True}},
    }
    (tmp_path / "one.yaml").write_text(str(one))
    space = load_space(str(tmp_path / "one.yaml"))
    assert space.n_configs == 1
    lone = write_speeds(tmp_path / "lone", [build_arch(27)], space=space)
    folder, finished = search(lone, space=str(tmp_path / "one.yaml"), data="digits", trials=3)
    assert (finished.measured, finished.stopped_by) == (1, "exhausted")
    assert folder.load_records()[0].origin == "anchor:wide"


def test_a_table_of_other_classes_is_told_of(table, machine):
    machine.num_classes = 7
    events = []
    search(table, events, trials=1)
    assert [event.text for event in events if isinstance(event, Notice)] == [
        f"the speeds in {table.path} are of networks with 10 classes, but the images have 7: their classifiers take "
        "another time"
    ]


# Refusals.


def test_a_table_that_is_not_there_is_refused_with_the_way_to_one(table, tmp_path):
    assert refusal(table, NotFoundError, speeds=tmp_path) == (
        f"{tmp_path} holds no table of speeds (speeds.yaml). Make one with `hilo-nas measure SPACE --sample N "
        "--save DIR`."
    )


def test_a_table_of_another_space_is_refused(table, tmp_path, machine):
    other = build_space("mine", {**DIGITS.to_dict(), "mlp_ratios": [4.0]})
    found = write_speeds(tmp_path / "other", [], space=other)
    assert refusal(found) == (
        f"the speeds in {found.path} must be of space litv2_digits ({DIGITS.hash()}), but are of mine "
        f"({other.hash()}). Search that space, or time this one with `hilo-nas measure`."
    )


def test_a_table_of_another_protocol_is_refused(table):
    setting = table.load_setting()
    old = {
        label: dataclasses.replace(calibration, protocol=PROTOCOL - 1)
        for label, calibration in setting.calibrations.items()
    }
    table.write_setting(dataclasses.replace(setting, calibrations=old))
    assert refusal(table) == (
        f"the speeds in {table.path} must be of timing protocol {PROTOCOL}, but are of {PROTOCOL - 1}. Time the "
        "networks again with `hilo-nas measure`."
    )


def test_a_table_that_holds_no_speed_yet_is_refused(table, tmp_path):
    empty = write_speeds(tmp_path / "empty", [])
    record = table.load_all()[0]
    empty.write_record(fail(record, "no memory", measurements=()))
    assert refusal(empty) == (f"the speeds in {empty.path} hold no network yet. Let `hilo-nas measure` finish first.")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 8}, "batch_size"),
        ({"img_size": 64, "precision": "bf16"}, "img_size, precision"),
        ({"env": "default", "also": ("batch_size=1",)}, "env"),
    ],
)
def test_conditions_beside_a_table_are_refused(table, machine, options, named):
    assert refusal(table, **options) == (
        f"with speeds taken elsewhere, the conditions are theirs: leave out {named}, or time the networks anew with "
        "`hilo-nas measure`."
    )
    assert not (table.path.parent / "studies" / "new").exists()


# Going on.


def test_a_search_goes_on_with_its_table_without_being_told(table, machine):
    folder, _ = search(table, trials=2)
    events = []
    _, finished = go_on(table, events, trials=2)
    assert finished.measured == 4
    assert not any(isinstance(event, Notice) for event in events)
    assert {record.key for record in folder.load_records()} <= {arch.key() for arch in ARCHS}
    assert machine.measured == machine.cohorts == []


def test_software_of_the_training_box_may_change(table, machine):
    search(table, trials=1)
    machine.device_of = {"cpu": build_device(model="Third CPU", torch="9.0")}
    machine.form = "another"
    assert go_on(table, trials=1)[1].measured == 2


def test_a_table_that_has_changed_is_refused(table):
    search(table, trials=1)
    before = table.identity()
    record = table.load_all()[0]
    table.write_record(dataclasses.replace(record, measurements=(build_measurement(1.0),)))
    for options in ({}, {"speeds": table.path}):
        said = refusal(SpeedFolder(table.path), StudyMismatchError, go_on, trials=1, **options)
        assert f"  speeds: {before!r} in the study, {table.identity()!r} now" in said
        assert "remeasure" not in said  # which could not help


def test_a_table_that_has_grown_is_another_one(table, tmp_path):
    search(table, trials=1)
    write_speeds(table.path, [*ARCHS, build_arch(9)])
    assert "speeds: 'edge (" in refusal(SpeedFolder(table.path), StudyMismatchError, go_on, trials=1)


def test_a_table_that_was_moved_and_renamed_is_the_same_one(table, tmp_path):
    search(table, trials=1)
    table.path.rename(tmp_path / "edge-2026")
    assert "holds no table of speeds" in refusal(table, NotFoundError, go_on, trials=1)
    assert go_on(table, trials=1, speeds=tmp_path / "edge-2026")[1].measured == 2
    assert go_on(table, trials=1)[1].measured == 3  # it has learnt where it lies


def test_a_machine_that_does_not_know_where_the_table_lies_asks_for_it(table):
    folder, _ = search(table, trials=1)
    (folder.path / "local.yaml").unlink()
    assert refusal(table, UsageError, go_on, data="digits", trials=1) == (
        f"study new takes its speeds from the table {table.identity()}, and this machine does not know where that "
        "lies. Name it with --speeds."
    )


def test_conditions_other_than_the_tables_are_refused_when_going_on(table):
    search(table, trials=1)
    assert "batch_size: 32 in the study, 8 now" in refusal(table, StudyMismatchError, go_on, trials=1, batch_size=8)


def test_the_manifest_keeps_the_tables_name(table):
    folder, _ = search(table, trials=1, max_latency_ms=1e6)
    manifest = folder.load_manifest()
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest
    assert manifest.limits == {"latency_ms": 1e6}
    assert manifest.speeds.startswith("edge (")
    assert str(table.path) not in folder.manifest_path.read_text()


def test_a_table_of_several_conditions_serves_them_all(table, tmp_path):
    conditions = (build_condition(), build_condition(batch_size=1))
    both = write_speeds(tmp_path / "both", ARCHS, conditions=conditions)
    folder, _ = search(both, trials=1)
    assert [m.condition for m in folder.load_records()[0].measurements] == list(conditions)


def test_a_further_condition_of_a_table_may_be_limited(tmp_path, machine):
    """One of two is named: the study has both, and the limit of the one; going on may name it again."""
    single, many = build_condition(batch_size=1), build_condition(batch_size=64)
    table = write_speeds(tmp_path / "three", ARCHS, conditions=(build_condition(), single, many))
    bound = sorted(speed(arch) for arch in ARCHS)[2]
    options = {"also": (f"batch_size=1,min_images_per_s={bound!r}",)}
    folder, _ = search(table, trials=9, **options)
    manifest = folder.load_manifest()
    assert manifest.conditions == (build_condition(), single, many)
    assert manifest.limits == {f"images_per_s@{single.label()}": bound}
    states = {record.key: record.state for record in folder.load_records()}
    assert states == {arch.key(): "complete" for arch in ARCHS if speed(arch) >= bound}  # the others are not tried
    assert go_on(table, trials=1, **options)[1].stopped_by == "exhausted"
    said = refusal(table, StudyMismatchError, go_on, also=("batch_size=1,min_images_per_s=1",))
    assert f"images_per_s@{single.label()}: {bound!r} in the study, 1.0 now" in said
    said = refusal(table, StudyMismatchError, go_on, also=("batch_size=2",))
    assert "also: ['cpu-b1-32px-fp32', 'cpu-b64-32px-fp32'] in the study, ['cpu-b1-32px-fp32', 'cpu-b2-" in said


def test_a_condition_that_a_table_does_not_have_is_refused_with_those_that_it_has(tmp_path, machine):
    table = write_speeds(tmp_path / "two", ARCHS, conditions=(build_condition(), build_condition(batch_size=1)))
    machine.read_device = None  # told before
    assert refusal(table, also=("batch_size=1", "batch_size=2,max_latency_ms=9", "precision=bf16")) == (
        f"the speeds in {table.path} must have been taken under every --also, but none was under cpu-b2-32px-fp32, "
        "cpu-b32-32px-bf16: theirs are cpu-b32-32px-fp32, cpu-b1-32px-fp32. Leave the others out, or time the networks "
        "anew with `hilo-nas measure`."
    )
