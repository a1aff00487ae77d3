"""Timing without a search: what may be named, and a table of speeds that survives a stop."""

import json

import pytest
import yaml
from builders import TINY, build_condition, build_device, build_manifest, build_measurement, demo_records, write_study

from hilo_nas.errors import (
    ArchError,
    NotEnoughMemoryError,
    NotFoundError,
    StudyMismatchError,
    UsageError,
)
from hilo_nas.measure import Cohort
from hilo_nas.measurement import PROTOCOL, Calibration
from hilo_nas.space import load_space
from hilo_nas.speeds import SpeedFolder
from hilo_nas.survey import add_speeds, find_network, sample_speeds, time_networks


class FakeRuler:
    """Every network has the speed that its number of parameters gives; `happen` may raise before a cohort is timed."""

    def __init__(self, happen=lambda cohort: None, misfits=(), form=None):
        self.happen, self.misfits, self.form = happen, misfits, form or build_measurement().form
        self.cohorts = []

    def read_device(self, device, emit):
        return device, build_device(), 2

    def identity_of(self, kind, emit):
        return build_device()

    def read_form(self, condition, emit):
        return self.form

    def calibrate(self, condition, emit):
        return Calibration(
            reference="timm:resnet18",
            images_per_s=320.0,
            images_per_s_spread=1.0,
            call_seconds=(0.1,),
            steady=True,
            device=build_device(),
            protocol=PROTOCOL,
        )

    def measure_cohort(self, entrants, emit, *, calibration=None, reference=None, seconds_each=None):
        self.happen(len(self.cohorts))
        self.cohorts.append(dict(entrants))
        failures = {name: NotEnoughMemoryError("it does not fit") for name in entrants if name in self.misfits}
        measurements = {
            name: build_measurement(1000.0, condition=entrant.condition, cohort=str(len(self.cohorts)))
            for name, entrant in entrants.items()
            if name not in failures
        }
        return Cohort(measurements=measurements, failures=failures)


def sample(folder, ruler=None, **options):
    ruler = ruler or FakeRuler()
    defaults = {"networks": 20, "num_classes": 10}
    conditions = options.pop("conditions", (build_condition(),))
    space = options.pop("space", load_space("litv2_digits"))
    return sample_speeds(space, conditions, folder, ruler, lambda event: None, **{**defaults, **options})


def test_a_network_is_found_under_each_kind_of_name(tmp_path):
    write_study(tmp_path, records=demo_records(), manifest=build_manifest())
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    assert find_network("litv2_small").subject["arch"]["depths"] == [2, 2, 6, 2]
    assert find_network("timm:resnet50").subject == {"timm": "resnet50"}
    assert find_network(f"onnx:{tmp_path}/model.onnx").subject == {"onnx": f"{tmp_path}/model.onnx"}
    assert find_network(str(tmp_path / "arch.yaml")).subject == {"arch": TINY.to_dict()}
    trial = find_network("demo:0", tmp_path)
    assert trial.subject == {"arch": TINY.to_dict()}
    assert (trial.defaults["img_size"], trial.defaults["num_classes"]) == (32, 10)


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("nonsense", UsageError, r"STUDY:TRIAL, timm:NAME, onnx:FILE.*litv2_small.*'nonsense'.*--sample"),
        ("demo:99", NotFoundError, "study demo has no trial 99: its trials are 0, 1"),
        ("none:1", NotFoundError, "no study 'none'"),
        ("onnx:nowhere.onnx", NotFoundError, r"no file nowhere\.onnx"),
        ("nowhere.yaml", NotFoundError, r"no file nowhere\.yaml"),
        ("list.yaml", UsageError, "must hold an architecture"),
        ("torn.yaml", UsageError, "is not YAML"),
        ("wrong.yaml", ArchError, r"holds no architecture:\n  unknown field 'color'"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_would(tmp_path, monkeypatch, name, error, text):
    monkeypatch.chdir(tmp_path)
    write_study(tmp_path / "studies", records=demo_records(), manifest=build_manifest())
    (tmp_path / "list.yaml").write_text("[1, 2]")
    (tmp_path / "torn.yaml").write_text("{")
    (tmp_path / "wrong.yaml").write_text("color: red")
    with pytest.raises(error, match=text):
        find_network(name)


def test_named_networks_are_timed_in_one_cohort_with_their_own_classes(tmp_path):
    write_study(tmp_path, records=demo_records(), manifest=build_manifest())
    networks = [find_network(name, tmp_path) for name in ("demo:0", "timm:resnet18")]
    ruler = FakeRuler()
    cohort = time_networks(networks, build_condition(), ruler, lambda event: None, num_classes=1000)
    (entrants,) = ruler.cohorts
    assert {name: entrant.num_classes for name, entrant in entrants.items()} == {"demo:0": 10, "timm:resnet18": 1000}
    assert list(cohort.measurements) == ["demo:0", "timm:resnet18"]


def test_a_sample_is_stored_as_a_table_that_a_search_can_take(tmp_path):
    folder = SpeedFolder(tmp_path / "speeds")
    records = sample(folder)
    assert len({record.key for record in records}) == 20
    assert {record.state for record in records} == {"timed"}
    assert records[0].key == TINY.key()  # the anchor comes first
    space = load_space("litv2_digits")
    assert all(space.decode(record.params).key() == record.key for record in records)
    stored = folder.load_setting()
    assert (stored.space.hash(), stored.num_classes) == (space.hash(), 10)
    assert type(stored).from_yaml(stored.to_yaml()) == stored
    assert json.loads((tmp_path / "speeds/networks/0000.json").read_text())["state"] == "timed"


def test_a_sample_that_was_stopped_goes_on_and_times_nothing_twice(tmp_path):
    def stop(cohort):
        if cohort == 1:
            raise KeyboardInterrupt

    folder = SpeedFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sample(folder, FakeRuler(happen=stop))
    kept = {record.key for record in folder.load_all()}
    assert 0 < len(kept) < 20
    ruler = FakeRuler()
    records = sample(folder, ruler)
    assert not kept & {name for cohort in ruler.cohorts for name in cohort}
    whole = sample(SpeedFolder(tmp_path / "other"))
    assert [record.key for record in records] == [record.key for record in whole]


def test_a_sample_is_timed_under_every_condition(tmp_path):
    conditions = (build_condition(), build_condition(batch_size=1))
    records = sample(SpeedFolder(tmp_path), conditions=conditions, networks=3)
    assert all([m.condition for m in record.measurements] == list(conditions) for record in records)


def test_a_network_that_does_not_fit_is_kept_as_such_and_never_proposed(tmp_path):
    folder = SpeedFolder(tmp_path)
    records = sample(folder, FakeRuler(misfits={TINY.key()}), networks=4)
    assert [record.state for record in records] == ["failed", "timed", "timed", "timed"]
    assert TINY.key() not in folder.load_records()
    assert records[0].reason == "it does not fit"


def test_a_small_space_is_timed_whole(tmp_path):
    (tmp_path / "space.yaml").write_text(
        "patch_size: [2]\nembed_dims: [8, 16]\ndepths: [[1], [1], [1, 2], [1]]\nnum_heads: [2]\n"
        "attention: [[none], [none], [hilo], [hilo]]\nalpha: [0.5]\nwindow_size: [2]\nmlp_ratios: [2]\n"
    )
    records = sample(SpeedFolder(tmp_path / "speeds"), space=load_space(str(tmp_path / "space.yaml")), networks=50)
    assert len(records) == 4


def test_a_table_is_not_gone_on_with_in_another_form_of_the_networks(tmp_path):
    folder = SpeedFolder(tmp_path)
    sample(folder, networks=2)
    with pytest.raises(
        StudyMismatchError, match=r"form under cpu-b32-32px-fp32: 'litv2/1 .*' in the table, 'litv2/9' now"
    ):
        sample(folder, FakeRuler(form="litv2/9"), networks=4)
    assert len(sample(folder, networks=4)) == 4


def test_a_table_of_other_conditions_is_refused_with_both_values(tmp_path):
    folder = SpeedFolder(tmp_path)
    sample(folder, networks=2)
    with pytest.raises(StudyMismatchError, match=r"conditions: \['cpu-b32-32px-fp32'\] in the table.*b1-32px"):
        sample(folder, networks=4, conditions=(build_condition(batch_size=1),))
    with pytest.raises(StudyMismatchError, match="num_classes: 10 in the table, 3 now"):
        sample(folder, networks=4, num_classes=3)
    with pytest.raises(StudyMismatchError, match="space: 'litv2_digits"):
        sample(folder, networks=4, space=load_space("litv2_cifar"))


def test_a_further_condition_is_added_to_a_table_and_what_was_timed_stays(tmp_path):
    folder, single = SpeedFolder(tmp_path), build_condition(batch_size=1)
    sample(folder, networks=3)
    before = folder.load_records()
    ruler = FakeRuler()
    sample(folder, ruler, networks=3, conditions=(build_condition(), single))
    assert folder.load_setting().conditions == (build_condition(), single)
    assert set(folder.load_setting().calibrations) == {build_condition().label(), single.label()}
    for key, record in folder.load_records().items():
        assert record.measurements[0] == before[key].measurements[0]
        assert [m.condition for m in record.measurements] == [build_condition(), single]
    assert {entrant.condition for cohort in ruler.cohorts for entrant in cohort.values()} == {single}


def test_a_table_whose_further_condition_was_interrupted_is_as_it_was(tmp_path):
    folder, single = SpeedFolder(tmp_path), build_condition(batch_size=1)
    sample(folder, networks=3)

    def stop(cohort):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(folder, FakeRuler(stop), networks=3, conditions=(build_condition(), single))
    assert folder.load_setting().conditions == (build_condition(),)


def test_named_networks_are_added_to_a_table_under_its_conditions_once(tmp_path):
    folder = SpeedFolder(tmp_path)
    sample(folder, networks=3)
    ruler = FakeRuler()
    (record,) = add_speeds([find_network("timm:resnet18")], folder, ruler, lambda event: None)
    assert (record.key, record.is_peer, record.state) == ("timm:resnet18", True, "timed")
    assert [m.condition for m in record.measurements] == [build_condition()]
    add_speeds([find_network("timm:resnet18")], folder, ruler, lambda event: None)
    assert len(ruler.cohorts) == 1
    assert len(folder.load_records()) == 4


def test_only_architectures_and_networks_of_timms_are_added(tmp_path):
    folder = SpeedFolder(tmp_path / "speeds")
    sample(folder, networks=2)
    (tmp_path / "m.onnx").write_bytes(b"onnx")
    with pytest.raises(UsageError, match="holds architectures and networks of timm's, but got onnx:"):
        add_speeds([find_network(f"onnx:{tmp_path}/m.onnx")], folder, FakeRuler(), lambda event: None)
