"""A study's manifest: what must stay the same, without a path of this machine, safe against changes by hand."""

import dataclasses
import re

import pytest
import yaml
from builders import (
    build_condition,
    build_data,
    build_device,
    build_manifest,
    build_measurement,
    build_plan,
    build_record,
    conditions,
    devices,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilo_nas.errors import RecordError
from hilo_nas.measurement import PROTOCOL, Calibration
from hilo_nas.space import SearchSpace, list_shipped, load_space
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import Subject
from hilo_nas.text.one_line import one_line


def changed(change, **fields) -> str:
    """A manifest whose content was changed by hand."""
    content = yaml.safe_load(build_manifest(**fields).to_yaml())
    change(content)
    return yaml.safe_dump(content, sort_keys=False)


def refusal(text: str) -> str:
    with pytest.raises(RecordError) as caught:
        Manifest.from_yaml(text)
    return str(caught.value)


@pytest.mark.parametrize("name", list_shipped())
def test_a_manifest_survives_yaml_with_every_shipped_space(name):
    manifest = build_manifest(space=load_space(name))
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(conditions, min_size=1, max_size=3).map(tuple),
    devices,
    st.text(max_size=10).map(one_line),
    st.integers(0, 2**32),
    st.floats(1e-3, 1e6),
)
def test_manifests_survive_yaml(some_conditions, device, name, seed, speed):
    calibrations = {
        condition.label(): Calibration(
            reference="timm:resnet18",
            images_per_s=speed,
            images_per_s_spread=0.0,
            call_seconds=(1 / speed, 2 / speed),
            steady=True,
            device=device,
        )
        for condition in some_conditions
    }
    manifest = build_manifest(
        conditions=some_conditions, device=device, calibrations=calibrations, seed=seed, data=build_data(name=name)
    )
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest


def test_a_manifest_can_be_read_by_people():
    lines = build_manifest().to_yaml().split("\n")
    assert lines[:4] == ["schema_version: 2", "name: demo", "trials: 12", "sampler: gp"]
    assert "&" not in build_manifest().to_yaml()
    assert "!!" not in build_manifest().to_yaml()


def test_a_manifest_holds_no_path_of_this_machine(tmp_path, monkeypatch):
    """The space was read from a file in a folder; its name is kept, its place is not."""
    monkeypatch.chdir(tmp_path)
    text = list_shipped()["litv2_digits"].read_text()
    (tmp_path / "mine.yaml").write_text(text)
    manifest = build_manifest(space=load_space(str(tmp_path / "mine.yaml")))
    stored = manifest.to_yaml()
    assert manifest.space.name == "mine"
    assert str(tmp_path) not in stored
    assert not re.search(r"(^|[\s\"'])(/|~|[A-Za-z]:\\)", stored, re.MULTILINE)


def test_the_objective_is_the_first_condition():
    first, second = build_condition(batch_size=8), build_condition(batch_size=1)
    assert build_manifest(conditions=(first, second)).objective == first


def test_what_was_stored_before_there_were_limits_and_tables_has_neither():
    def change(content):
        del content["limits"], content["speeds"]
        for name in ("env", "cuda_graph", "fused"):
            del content["timings"][0]["condition"][name]

    assert Manifest.from_yaml(changed(change)) == build_manifest()


@pytest.mark.parametrize("eta", [None, 2.0, 4.0])
@pytest.mark.parametrize("baselines", [(), ("timm:resnet18", "timm:test_vit")])
def test_rungs_and_baselines_survive_yaml(eta, baselines):
    manifest = build_manifest(reduction_factor=eta, baselines=baselines, plan=build_plan(rungs=(320, 1000)))
    again = Manifest.from_yaml(manifest.to_yaml())
    assert again == manifest
    assert (again.reduction_factor, again.baselines, again.plan.rungs) == (eta, baselines, (320, 1000))


def test_what_was_stored_before_there_were_rungs_and_baselines_has_the_defaults():
    def change(content):
        del content["reduction_factor"], content["baselines"], content["plan"]["rungs"]

    manifest = Manifest.from_yaml(changed(change))
    assert manifest == build_manifest()
    assert (manifest.reduction_factor, manifest.baselines, manifest.plan.rungs) == (3.0, (), ())


def test_the_old_names_of_baselines_and_the_reduction_factor_are_read():
    def change(content):
        del content["reduction_factor"], content["baselines"]
        content |= {"eta": 4.0, "peers": ["timm:resnet18"]}

    manifest = Manifest.from_yaml(changed(change))
    assert manifest == build_manifest(reduction_factor=4.0, baselines=("timm:resnet18",))


def test_anchors_and_networks_of_others_are_references_and_no_other_is():
    manifest = build_manifest(baselines=("timm:resnet18",))
    anchor = build_record(0, arch=manifest.space.anchors[0].arch)
    assert manifest.is_reference(anchor)
    assert manifest.is_reference(dataclasses.replace(anchor, origin="sampler"))  # whoever proposed it
    baseline = build_record(1, origin="baseline:timm:resnet18")
    assert manifest.is_reference(dataclasses.replace(baseline, subject=Subject(timm="resnet18")))
    assert not manifest.is_reference(baseline)
    assert not manifest.is_reference(build_record(1))


def test_limits_and_copies_survive_yaml():
    limits = {"images_per_s": 900.0, "latency_ms@cpu-b1-32px-fp32": 20.5}
    manifest = build_manifest(limits=limits, speeds="edge", copied=7)
    again = Manifest.from_yaml(manifest.to_yaml())
    assert again == manifest
    assert (again.limits, again.speeds, again.copied) == (limits, "edge", 7)


def test_a_measurement_of_the_studys_own_facts_and_conditions_is_comparable():
    manifest = build_manifest(conditions=(build_condition(), build_condition(batch_size=1)))
    assert manifest.is_comparable(build_measurement())
    assert manifest.is_comparable(build_measurement(condition=build_condition(batch_size=1)))
    assert manifest.is_comparable(build_measurement(device=build_device(serial="another of this model")))
    for fields in (
        {"condition": build_condition(batch_size=2)},
        {"device": build_device(torch="3.0.0")},
        {"device": build_device(driver="7")},
        {"device": build_device(model="Another CPU")},
        {"protocol": PROTOCOL - 1},
    ):
        assert not manifest.is_comparable(build_measurement(**fields))


def test_measurements_are_ranked_by_their_condition_and_what_is_not_comparable_comes_last():
    second = build_condition(batch_size=1)
    manifest = build_manifest(conditions=(build_condition(), second))
    some = [
        build_measurement(1.0, protocol=PROTOCOL - 1),
        build_measurement(2.0, condition=second),
        build_measurement(3.0),
        build_measurement(4.0),
    ]
    assert [m.images_per_s for m in sorted(some, key=manifest.rank_of)] == [3.0, 4.0, 2.0, 1.0]


def test_the_plan_is_named_by_itself_and_its_data():
    manifest = build_manifest()
    assert manifest.plan_hash == build_plan().hash(build_data().hash)
    assert dataclasses.replace(manifest, data=build_data(hash="other")).plan_hash != manifest.plan_hash
    assert dataclasses.replace(manifest, plan=build_plan(batch_size=1)).plan_hash != manifest.plan_hash
    assert dataclasses.replace(manifest, plan=build_plan(images=1)).plan_hash == manifest.plan_hash
    assert build_manifest(device=build_device(model="other")).plan_hash == manifest.plan_hash


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda c: c["space"].update(embed_dims=[8, 16]), "space"),
        (lambda c: c["space"].update(limits={"params_m": 1}), "space"),
        (lambda c: c["space"]["anchors"].clear(), "space"),
        (lambda c: c["plan"].update(val_images=9), "plan"),
        (lambda c: c["plan"].update(hflip=True), "plan"),
        (lambda c: c["data"].update(hash="0" * 16), "plan"),
    ],
)
def test_a_manifest_that_was_tampered_with_is_refused(change, part):
    message = refusal(changed(change))
    assert re.search(rf"the {part} was changed .*its hash is \w+, but the manifest says \w+", message)
    assert message.endswith("create a new study.")


def test_raising_the_total_is_no_tampering():
    def change(content):
        content["trials"] = 99

    assert Manifest.from_yaml(changed(change)).trials == 99


def test_raising_the_budget_and_adding_rungs_is_no_tampering():
    def change(content):
        content["plan"].update(images=9000, rungs=[1000, 3000])

    assert Manifest.from_yaml(changed(change)).plan == build_plan(images=9000, rungs=(1000, 3000))


def test_a_manifest_of_a_newer_version_is_refused():
    def change(content):
        content.update(schema_version=4, news="yes")

    assert refusal(changed(change)) == (
        "schema_version must be at most 3, but got 4: a newer hilo-nas created this study. Upgrade hilo-nas to use it."
    )


@pytest.mark.parametrize("text", ["", "[]", "3", "name: demo", "schema_version: one"])
def test_what_is_no_manifest_is_refused(text):
    assert refusal(text) == ("schema_version is missing: this is not a study's manifest")


def test_what_is_no_yaml_is_refused():
    for text in ("schema_version: [1", "schema_version: 1\nwhen: 2026-99-99"):
        assert refusal(text).startswith("it is not YAML (")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("timings"), "timings must be a list, but got None"),
        (lambda c: c.update(timings=[]), "timings must hold at least one condition, the objective, but is empty"),
        (lambda c: c["timings"][0].pop("calibration"), r"timings\[0\]: calibration is missing"),
        (lambda c: c.pop("trials"), "trials is missing"),
        (lambda c: c["space"].pop("hash"), "the space was changed .* the manifest says None"),
        (
            lambda c: c["timings"][0]["calibration"]["device"].pop("model"),
            r"timings\[0\]: calibration: device: model is missing",
        ),
        (lambda c: c.update(colour="red"), "colour"),
        (lambda c: c.update(timings=3), "timings must be a list, but got 3"),
        (lambda c: c.update(space=None), "space must be a mapping, but got None"),
        (lambda c: c.update(trials=-1, seed=-2), "seed must be .*>= 0, but got -2\ntrials must be .*>= 0, but got -1"),
        (lambda c: c.update(reduction_factor=float("nan")), "reduction_factor must be a number > 0.0, but got nan"),
        (
            lambda c: c["timings"][0]["condition"].update(batch_size=0),
            r"batch_size must be a whole number >= 1, but got 0",
        ),
        (
            lambda c: c["timings"][0]["condition"].update(batch_size="many"),
            "batch_size must be a whole number, but got",
        ),
        (lambda c: c["space"].update(depths=[]), "depths has no values"),
        (lambda c: c["timings"][0]["calibration"].update(colour=1), r"calibration\.colour"),
    ],
)
def test_a_manifest_that_lacks_a_part_is_refused(change, message):
    found = refusal(changed(change))
    assert re.search(message, found)


def test_spaces_of_equal_content_are_one_search():
    space = load_space("litv2_digits")
    again = Manifest.from_yaml(build_manifest(space=space).to_yaml()).space
    assert isinstance(again, SearchSpace)
    assert again.hash() == space.hash()
    assert again.anchors == space.anchors
    assert again.defaults == space.defaults


def test_a_manifest_names_the_function_that_gave_the_images_and_older_ones_do_not():
    manifest = build_manifest(data=build_data(name="scans.py:load", source_hash="a" * 64))
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest
    older = changed(lambda content: (content["data"].pop("source_hash"), content["plan"].pop("group_by")))
    assert Manifest.from_yaml(older) == build_manifest()


def test_how_the_images_were_read_and_scored_survives_yaml_and_older_manifests_say_nothing_of_it():
    fields = {"reading": {"value_range": [0.0, 4095.0]}, "val_name": "val.tar", "n_scored": 360, "chance": 0.1}
    manifest = build_manifest(data=build_data(**fields))
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest
    stored = yaml.safe_load(build_manifest().to_yaml())["data"]
    assert [*stored] == ["name", "hash", "num_classes", "n_images", "source_hash"]
