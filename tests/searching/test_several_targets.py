"""Searches on several targets: each network is timed on all of them and trained once, and each target has its front."""

import contextlib
import dataclasses
import json
import math

import pytest
import yaml
from builders import fresh

import hilo_nas
from hilo_nas.cli.app import main
from hilo_nas.errors import DeviceError, NotEnoughMemoryError, StudyMismatchError, UsageError
from hilo_nas.evaluation import Inspect
from hilo_nas.evaluation.named_networks import find_network
from hilo_nas.events import SearchStarted
from hilo_nas.export import source_of_study
from hilo_nas.measurement.fields import to_plain
from hilo_nas.report.study_comparison import compare_studies
from hilo_nas.report.study_view import StudyView
from hilo_nas.searching import RemeasureRequest, SearchConfig, run_remeasure, run_search
from hilo_nas.searching.configuration.resolve import config_of
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.records import FITS, Subject
from hilo_nas.study.states import TrialState
from hilo_nas.study.stored_study import StoredStudy, open_study, open_view, studies_folder
from hilo_nas.surrogate.observations import know_networks
from hilo_nas.testing import FakeAnswers, FakeEvaluator
from hilo_nas.text.figures import figure

PLAIN = {"space": "litv2_digits", "sampler": "random", "reduction_factor": 0.0, "remeasure": False}
CPU = "cpu-b32-32px-fp32-fused-t2"
CARD = "cuda-b32-32px-fp32-fused"
OTHER_CARD = "cuda-other-card-b32-32px-fp32-fused"
MACHINE = {"cpu": "fake, 2 cores", "cuda:0": "fake card", "cuda:1": "other card"}


class Answers(FakeAnswers):
    """A machine with a CPU and two cards of different models. A network that is fast on one target is slow on another.

    Args:
        models: Model of each device by name.
        drivers: Version of the driver by model.
        before: Called with each task; may raise.
    """

    def __init__(self, models=None, *, drivers=None, before=lambda task: None):
        super().__init__()
        self.models, self.drivers, self.before = models or MACHINE, drivers or {}, before

    def __call__(self, task):
        self.before(task)
        if isinstance(task, Inspect) and self._name(task.target or "cpu") not in self.models:
            raise DeviceError(f"this machine has no device {task.target}")
        return super().__call__(task)

    def identity_of(self, device):
        identity = super().identity_of(device)
        model = self.models[self._name(device)]
        driver = self.drivers.get(model, identity.driver)
        return dataclasses.replace(identity, model=model, driver=driver, serial=self._name(device))

    def speed_on(self, subject, device):
        own = super().speed_on(subject, device)
        return {"fake, 2 cores": own, "fake card": 1e6 / own, "other card": 2 * own}[self.models[self._name(device)]]

    def _name(self, device):
        return "cuda:0" if device == "cuda" else device


@pytest.fixture
def interrupted():
    """Returns a context that stops a search at the first timing for which `at` is true."""

    @contextlib.contextmanager
    def interrupt(at, models=None):
        def before(task):
            if task.kind == "time" and at(task):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            yield Answers(models, before=before)

    return interrupt


def search(answers=None, emit=lambda event: None, **options):
    evaluator = FakeEvaluator(answers or Answers())
    options = {**PLAIN, "study": "demo", "device": "cpu", "also": ("device=cuda:0",), "trials": 8, **options}
    return run_search(SearchConfig.of(**options), emit, evaluator=evaluator)[0], evaluator


def resume(answers=None, **options):
    evaluator = FakeEvaluator(answers or Answers())
    config = SearchConfig.of(**{"study": "demo", "remeasure": False, "trials": 2, **options})
    return run_search(config, lambda event: None, evaluator=evaluator)[0], evaluator


def tasks_of(evaluator, kind):
    return [task for task in evaluator.submitted if task.kind == kind]


def numbers(records):
    return [record.number for record in records]


def test_each_network_is_timed_on_each_target_and_trained_once():
    study, evaluator = search()
    records = fresh(study).records
    assert len(records) == 8
    for record in records:
        found = record.measurements_by_condition()
        assert list(found) == [CPU, CARD]
        assert [own.device.model for own in found.values()] == ["fake, 2 cores", "fake card"]
    legs = [(Subject.from_dict(task.subject).key, task.until) for task in tasks_of(evaluator, "score")]
    assert len({*legs}) == len(legs)  # one training each, in parts up to each rung
    assert {key for key, _ in legs} == {record.key for record in records}
    assert {task.target for task in tasks_of(evaluator, "score")} == {"cpu"}
    timed = {(task.condition.label(), task.target) for task in tasks_of(evaluator, "time")}
    assert timed == {(CPU, "cpu"), (CARD, "cuda:0")}


def test_the_manifest_holds_the_identity_of_each_target_and_reads_back():
    study, _ = search()
    manifest = study.manifest
    assert [manifest.calibrations[label].device.model for label in (CPU, CARD)] == ["fake, 2 cores", "fake card"]
    assert Manifest.from_yaml(manifest.to_yaml()).to_yaml() == manifest.to_yaml()
    first, second = yaml.safe_load(manifest.to_yaml())["timings"]
    assert "model" not in {**first["condition"], **second["condition"]}  # the kinds differ


def test_only_a_study_with_several_targets_has_a_schema_that_earlier_versions_refuse():
    study, _ = search(trials=1)
    assert study.manifest_path.read_text("utf-8").startswith("schema_version: 3\n")
    assert open_study("demo").manifest == study.manifest
    single, _ = search(study="single", also=("batch_size=1",), trials=1)
    assert single.manifest_path.read_text("utf-8").startswith("schema_version: 2\n")
    request = RemeasureRequest(study="demo", device="cuda:1", into="moved")
    moved = run_remeasure(request, lambda event: None, evaluator=FakeEvaluator(Answers()))
    assert moved.manifest_path.read_text("utf-8").startswith("schema_version: 2\n")


def test_conditions_on_two_models_of_one_kind_have_different_labels():
    study, _ = search(device="cuda:0", also=("device=cuda:1", "device=cuda:1,batch_size=1", "device=cpu"))
    labels = [condition.label() for condition in study.manifest.conditions]
    assert labels == [CARD, OTHER_CARD, "cuda-other-card-b1-32px-fp32-fused", CPU]
    assert Manifest.from_yaml(study.manifest.to_yaml()).conditions == study.manifest.conditions
    (record, *_) = fresh(study).records
    assert [own.condition.model for own in record.measurements] == [None, "other card", "other card", None]
    assert [own.device.model for own in record.measurements][1::2] == ["other card", "fake, 2 cores"]


def test_an_equal_card_is_no_other_target():
    answers = Answers({"cuda:0": "fake card", "cuda:1": "fake card"})
    study, evaluator = search(answers, device="cuda:0", also=("device=cuda:1,batch_size=1",))
    assert [condition.model for condition in study.manifest.conditions] == [None, None]
    assert {task.target for task in tasks_of(evaluator, "time")} == {"cuda:0"}
    with pytest.raises(UsageError, match="must differ from the objective"):
        search(answers, study="same", device="cuda:0", also=("device=cuda:1",))


def test_a_search_names_all_its_devices_at_the_start():
    events = []
    search(emit=events.append, trials=1)
    (started,) = [event for event in events if isinstance(event, SearchStarted)]
    assert started.device == "cpu (fake, 2 cores), cuda (fake card)"


def test_each_target_has_its_front():
    study, _ = search(trials=12)
    own, card = study.front(), study.front("cuda")
    assert numbers(own.members) != numbers(card.members)
    assert card.condition == CARD
    view = open_view("demo@cuda")
    assert view.title == f"demo@{CARD}"
    assert numbers(view.front().members) == numbers(card.members)
    assert {record.measurement.device.model for record in view.records} == {"fake card"}
    assert {record.measurement.device.model for record in fresh(study).records} == {"fake, 2 cores"}
    assert numbers(view.front("cpu").members) == numbers(own.members)


def test_a_view_has_no_speeds_of_the_objective():
    study, _ = search(sampler="hilo", trials=16, also=("device=cuda:0", "batch_size=1"), reduction_factor=3.0)
    brief = [record for record in study.records if {*record.measurements_by_condition()} == {CPU}]
    assert brief  # the sampler times networks before its proposals, under the objective only
    view = open_view("demo@cuda")
    assert {record.measurement.condition.label() for record in view.records if record.measurement} == {CARD}
    shown = {network.number: network for network in StudyView.from_study(view).networks}
    assert {shown[record.number].images_per_s for record in brief} == {None}
    frame = hilo_nas.load_study("demo@cuda").trials()
    assert {*frame["condition"].dropna()} == {CARD}
    timed = [record for record in view.records if record.measurement is not None]
    assert len(timed) + len(brief) == len(study.records)


def test_a_view_has_no_timings_of_another_driver():
    study, _ = search(trials=3)
    calibration = study.manifest.calibrations[CARD]
    device = dataclasses.replace(calibration.device, driver="2")
    calibrations = study.manifest.calibrations | {CARD: dataclasses.replace(calibration, device=device)}
    study.write_manifest(dataclasses.replace(study.manifest, calibrations=calibrations))
    view = open_view("demo@cuda")
    assert [record.measurements for record in view.records] == [(), (), ()]
    assert not view.front().members


def test_a_view_of_a_study_is_never_written():
    search(trials=1)
    view = open_view("demo@cuda")
    for write in (lambda: view.write(view.records[0]), lambda: view.write_manifest(view.manifest)):
        with pytest.raises(UsageError, match=f"must not be written, but got demo@{CARD}. Use study demo"):
            write()


def test_an_unknown_condition_is_refused():
    search(trials=1)
    for name in ("demo@mps", "demo@c", "demo@"):
        with pytest.raises(UsageError, match=f"condition must be one of {CPU}, {CARD}"):
            open_view(name)


def test_limits_hold_on_their_target():
    study, _ = search(also=("device=cuda:0,min_images_per_s=2000",), trials=6)
    name = f"images_per_s@{CARD}"
    assert study.manifest.limits == {name: 2000.0}
    records = fresh(study).records
    kept = [record for record in records if record.measurements_by_condition()[CARD].images_per_s >= 2000]
    assert 0 < len(kept) < len(records)
    assert {record.number for record in records if record.state == TrialState.COMPLETE} == {*numbers(kept)}
    ruled_out = next(record for record in records if record.state == TrialState.INFEASIBLE)
    assert f"at {CARD}" in ruled_out.reason
    view = open_view("demo@cuda")
    assert view.manifest.limits_in_force["images_per_s"] == 2000.0
    assert {record.reason for record in view.records if record.number == ruled_out.number} == {ruled_out.reason}


def test_a_view_names_the_objective_in_the_reason_of_its_limit():
    study, _ = search(min_images_per_s=600.0, trials=6)
    (ruled_out, *_) = [record for record in study.records if record.state == TrialState.INFEASIBLE]
    shown = {record.number: record.reason for record in open_view("demo@cuda").records}
    assert shown[ruled_out.number] == f"{CPU}: {ruled_out.reason}"


def test_a_network_that_does_not_fit_on_one_target_is_infeasible():
    def refuse(task):
        if task.kind == "time" and len(task.entries) == 1 and task.target == "cuda:0":
            raise NotEnoughMemoryError("it needs 3 GiB")

    study, evaluator = search(Answers(before=refuse), trials=2)
    assert {record.state for record in study.records} == {TrialState.INFEASIBLE}
    assert all(FITS in record.violations for record in study.records)
    assert tasks_of(evaluator, "score") == []


def test_a_resumed_search_finds_the_devices_by_their_identity():
    study, _ = search(also=("device=cuda:1",))
    assert study.manifest.conditions[1].label() == CARD  # the first target of this kind, so it needs no model
    study, evaluator = resume()
    assert len(study.records) == 10
    assert {task.target for task in tasks_of(evaluator, "time") if task.condition.device == "cuda"} == {"cuda:1"}
    swapped = {"cpu": "fake, 2 cores", "cuda:0": "other card"}
    study, evaluator = resume(Answers(swapped))
    assert len(study.records) == 12
    assert {task.target for task in tasks_of(evaluator, "time") if task.condition.device == "cuda"} == {"cuda"}
    assert all({*record.measurements_by_condition()} == {CPU, CARD} for record in study.records)


def test_a_resumed_search_finds_the_device_of_the_objective_by_its_identity():
    search(device="cuda:1", also=("device=cpu",), trials=2)
    study, evaluator = resume()
    assert len(study.records) == 4
    assert {task.target for task in tasks_of(evaluator, "time")} == {"cuda:1", "cpu"}
    evaluator = FakeEvaluator(Answers(drivers={"other card": "2"}))
    again = run_remeasure(RemeasureRequest(study="demo"), lambda event: None, evaluator=evaluator)
    assert (again.name, again.manifest.device.driver) == ("demo", "2")


def test_a_new_study_must_not_hide_the_condition_of_another():
    search(trials=1)
    with pytest.raises(UsageError, match=r"demo@cuda means study demo under its condition 'cuda'.* such as demo-cuda"):
        search(study="demo@cuda", trials=1)
    study, _ = search(study="other@cuda", trials=1)
    resumed, _ = resume(study="other@cuda")
    assert resumed.path == study.path


def test_a_resumed_search_may_name_the_devices_again():
    search(device="cuda:0", also=("device=cuda:1",))
    study, _ = resume(device="cuda:0", also=("device=cuda:1",))
    assert len(study.records) == 10
    with pytest.raises(StudyMismatchError, match=r"timing.also: \['cuda-other-card-.* in the study, \['cpu-"):
        resume(device="cuda:0", also=("device=cpu",))


def test_a_resumed_search_may_name_the_devices_in_another_order():
    also = ("device=cuda:0,max_latency_ms=900", "device=cuda:1,max_latency_ms=800")
    search(also=also, trials=2)
    study, evaluator = resume(also=also[::-1])
    assert len(study.records) == 4
    timed = {task.condition.label(): task.target for task in tasks_of(evaluator, "time")}
    assert timed == {CPU: "cpu", CARD: "cuda:0", OTHER_CARD: "cuda:1"}
    with pytest.raises(StudyMismatchError, match=rf"limit on latency_ms@{OTHER_CARD}: 800.0 in the study, 900.0 now"):
        resume(also=(also[0], "device=cuda:1,max_latency_ms=900"))


def test_other_conditions_are_refused_without_advice_to_time_again():
    search(trials=1)
    with pytest.raises(StudyMismatchError) as caught:
        resume(also=("device=cuda:1,batch_size=1",), answers=Answers(drivers={"fake, 2 cores": "2"}))
    assert "device driver" in str(caught.value)
    assert "timing.also" in str(caught.value)
    assert "remeasure" not in str(caught.value)


def test_a_missing_target_is_refused_with_its_model_and_the_way_out():
    search()
    with pytest.raises(DeviceError) as caught:
        resume(Answers({"cpu": "fake, 2 cores", "cuda:0": "other card"}))
    text = str(caught.value)
    assert f"this machine has no cuda device fake card for {CARD}; it has cuda (other card)" in text
    assert text.endswith("hilo-nas remeasure demo --device cpu --study demo-cpu")
    request = RemeasureRequest(study="demo", device="cpu", into="demo-cpu")
    alone = run_remeasure(request, lambda event: None, evaluator=FakeEvaluator(Answers({"cpu": "fake, 2 cores"})))
    assert [condition.label() for condition in alone.manifest.conditions] == [CPU]


def test_a_broken_device_is_named_with_its_fault():
    search(trials=1)

    def refuse(task):
        if task.kind == "inspect" and (task.target or "").startswith("cuda"):
            raise DeviceError("cuda:0 has an uncorrectable memory error")

    with pytest.raises(
        DeviceError, match=r"it has none \(cuda:0 has an uncorrectable memory error\)\. Use the machine"
    ):
        resume(Answers(before=refuse))


def test_a_target_that_differs_is_refused_with_the_difference():
    search()
    with pytest.raises(StudyMismatchError, match=f"device driver at {CARD}: '1' in the study, '2' now"):
        resume(Answers(drivers={"fake card": "2"}))


def test_a_wrong_name_of_a_target_is_refused_as_an_option():
    search(trials=1)
    with pytest.raises(StudyMismatchError) as caught:
        resume(also=("device=cuda:1",))
    text = str(caught.value)
    assert "timing.also: ['cuda (fake card)'] in the study, ['cuda:1 (other card)'] now" in text
    assert "Leave out the settings that differ" in text
    assert "remeasure" not in text
    resume(also=("device=cuda:0",), trials=1)


def test_devices_of_one_model_that_differ_otherwise_are_no_two_targets():
    class OtherHost(Answers):
        def identity_of(self, device):
            host = "another host" if device == "cuda:1" else "this host"
            return dataclasses.replace(super().identity_of(device), host=host)

    answers = OtherHost({"cuda:0": "fake card", "cuda:1": "fake card"})
    with pytest.raises(UsageError, match=r"two targets must differ in kind or model, .* differ in host"):
        search(answers, device="cuda:0", also=("device=cuda:1,batch_size=1",))


def test_a_missing_device_is_refused_before_there_is_a_study():
    with pytest.raises(DeviceError, match="no device cuda:2"):
        search(also=("device=cuda:2",))
    with pytest.raises(DeviceError, match=r"device=cuda,model=nvidia-l4 must name .* cuda \(fake-card\), cuda:1"):
        search(also=("device=cuda,model=NVIDIA L4",))


def test_the_configuration_of_a_study_creates_another_one():
    study, _ = search(device="cuda:0", also=("device=cuda:1,batch_size=1,max_latency_ms=900", "device=cpu"))
    config = config_of(study.manifest)
    assert config.timing.also == (
        "device=cuda,model=other-card,batch_size=1,max_latency_ms=900.0",
        "device=cpu,threads=2",
    )
    again = config.replace({"study.name": "again", "search.until_trials": 1, "timing.remeasure": False})
    found, _ = run_search(again, lambda event: None, evaluator=FakeEvaluator(Answers()))
    assert found.manifest.conditions == study.manifest.conditions
    assert found.manifest.limits == study.manifest.limits


def test_equal_cards_stay_one_target_beside_a_further_one():
    answers = Answers({"cpu": "fake, 2 cores", "cuda:0": "fake card", "cuda:1": "fake card"})
    study, evaluator = search(answers, device="cuda:0,cuda:1", also=("device=cpu",), trials=10)
    assert len({record.key for record in study.records}) == 10
    assert all({*record.measurements_by_condition()} == {CARD, CPU} for record in study.records)
    trainings = [run for run in evaluator.runs if run.task.kind == "score"]
    assert {run.device for run in trainings} == {"cuda:0", "cuda:1"}
    assert any(
        one.begins < other.ends and other.begins < one.ends
        for i, one in enumerate(trainings)
        for other in trainings[:i]
        if one.device != other.device
    )


def test_the_models_of_the_sampler_learn_the_speeds_of_the_objective_only():
    study, _ = search(sampler="hilo", trials=14)
    speeds = {record.key: record.measurements_by_condition()[CPU].images_per_s for record in study.records}
    known = [own for own in know_networks(study.records, study.manifest) if own.log_speed is not None]
    assert len(known) >= 14
    for network in known:
        assert math.exp(network.log_speed) == pytest.approx(speeds[network.key])


def test_a_study_with_further_targets_copies_no_timing_without_the_objective():
    search(device="cuda:0", also=())
    study, evaluator = search(study="both", reuse="demo", trials=1)
    assert len(tasks_of(evaluator, "score")) < 8  # most networks keep their scores
    for record in fresh(study).records:
        assert record.measurement.device.model == "fake, 2 cores"
        assert {*record.measurements_by_condition()} == {CPU, CARD}


def test_remeasuring_times_all_networks_on_both_targets():
    search()
    evaluator = FakeEvaluator(Answers())
    study = run_remeasure(RemeasureRequest(study="demo", everything=True), lambda event: None, evaluator=evaluator)
    together = {(task.condition.label(), task.target) for task in tasks_of(evaluator, "time") if len(task.entries) == 8}
    assert together == {(CPU, "cpu"), (CARD, "cuda")}
    assert all(len(record.measurements) == 4 for record in study.records)


def test_the_end_of_a_search_times_the_front_of_each_target_in_shared_rounds():
    study, _ = search(remeasure=True)
    for label in (CPU, CARD):
        cohorts = {record.measurements_by_condition()[label].cohort for record in study.front(label).members}
        assert len(cohorts) == 1


def test_contended_timings_of_a_target_wait_for_a_quiet_moment_of_that_target():
    class Loaded(Answers):
        """Other programs use the CPU during timings of single networks on it."""

        def __call__(self, task):
            found = super().__call__(task)
            if task.kind != "time" or task.target != "cpu" or len(task.entries) != 1:
                return found
            state = {"cores": 2, "others_cores": 1.5, "quietest": {"others_cores": 1.5}, "with": []}
            timed = {name: dataclasses.replace(own, device_state=state) for name, own in found.measurements.items()}
            return dataclasses.replace(found, measurements=timed)

    study, evaluator = search(Loaded(), device="cuda:0", also=("device=cpu",), remeasure=True)
    looks = [task for task in evaluator.submitted if task.kind == "inspect" and task.watch is not None]
    assert {(task.target, task.watch.label()) for task in looks} == {("cpu", CPU)}
    again = [task for task in tasks_of(evaluator, "time") if task.condition.label() == CPU and len(task.entries) > 1]
    assert {task.target for task in again} == {"cpu"}
    assert any(record.measurements_by_condition()[CPU].contention is None for record in study.records)


def test_a_changed_driver_of_one_target_times_all_networks_again():
    search()
    evaluator = FakeEvaluator(Answers(drivers={"fake card": "2"}))
    study = run_remeasure(RemeasureRequest(study="demo"), lambda event: None, evaluator=evaluator)
    assert study.manifest.calibrations[CARD].device.driver == "2"
    resumed, _ = resume(Answers(drivers={"fake card": "2"}))
    assert len(resumed.records) == 10


def test_a_study_for_another_device_has_the_conditions_of_the_objective():
    search(also=("device=cuda:0,max_latency_ms=9000", "batch_size=1,max_latency_ms=9000"))
    request = RemeasureRequest(study="demo", device="cuda:1", into="moved")
    moved = run_remeasure(request, lambda event: None, evaluator=FakeEvaluator(Answers()))
    labels = [condition.label() for condition in moved.manifest.conditions]
    assert labels == [CARD, "cuda-b1-32px-fp32-fused"]
    assert moved.manifest.limits == {"latency_ms@cuda-b1-32px-fp32-fused": 9000.0}
    assert moved.manifest.device.model == "other card"


def test_a_study_with_copied_timings_has_the_targets_of_their_study():
    search(proxy="none", sampler=None, reduction_factor=None)
    config = SearchConfig.of(
        study="trained", speeds="demo", reduction_factor=0.0, trials=3, also=("device=cuda:3,min_images_per_s=1",)
    )
    evaluator = FakeEvaluator(Answers())
    study, _ = run_search(config, lambda event: None, evaluator=evaluator)
    assert [condition.label() for condition in study.manifest.conditions] == [CPU, CARD]
    assert study.manifest.limits == {f"images_per_s@{CARD}": 1.0}
    assert tasks_of(evaluator, "time") == []
    again, _ = run_search(
        SearchConfig.of(study="trained", trials=1), lambda event: None, evaluator=FakeEvaluator(Answers())
    )
    assert sum(record.state == TrialState.COMPLETE for record in again.records) == 4


@pytest.fixture
def two_targets(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    return search(trials=12)[0]


def test_compare_names_who_changes_rank_between_the_targets(two_targets, capsys):
    assert main(["compare", "demo"]) == 0
    text = capsys.readouterr().out
    view = open_view("demo@cuda")
    found, back = compare_studies(two_targets, view), compare_studies(view, two_targets)
    assert found.speed_tau == pytest.approx(-1)  # the fastest network of one target is the slowest of the other
    assert f"{found.networks} networks of demo are complete. Kendall's tau of their speeds: -1.00." in text
    assert f"{CPU} on fake, 2 cores\n{CARD} on fake card\n" in text
    for own, names in ((found, (CPU, CARD)), (back, (CARD, CPU))):
        kept = f"{100 * (1 - own.hypervolume_loss):.1f} % of the hypervolume"
        assert f"Chosen at {names[0]} and used at {names[1]}, a front keeps {kept}" in text
        fastest, reached = (figure(speed, 3) for speed in own.fastest)
        assert f"They reach {reached} images/s there, and the front {fastest}." in text
        only = ", ".join(str(number) for number in own.front if number not in own.chosen)
        assert f"Only at {names[1]}: {only}." in text
    assert f"1 -> {found.networks}" in text
    assert main(["compare", "demo", "--format", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["conditions"] == [CPU, CARD]
    assert row["there"] == json.loads(json.dumps(to_plain(found)))
    assert main(["compare", "demo", "demo@cuda"]) == 0
    assert "trials " in capsys.readouterr().out


def test_compare_and_front_of_timings_alone_name_the_cause_and_the_condition(capsys):
    search(proxy="none", sampler=None, reduction_factor=None)
    assert main(["compare", "demo"]) == 2
    assert "needs studies with scores, but demo has only timings" in " ".join(capsys.readouterr().err.split())
    assert main(["front", "demo@cuda"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"demo@{CARD}: 8 networks of litv2_digits timed but not scored")
    assert "study.speeds" not in text
    assert main(["front", "demo"]) == 0
    assert "--set study.speeds=demo" in capsys.readouterr().out


def test_an_exported_view_has_its_condition_in_its_name():
    search(trials=1)
    source = source_of_study(open_view("demo@cuda"))
    assert (source.name, source.manifest.name) == (f"study demo@{CARD}", f"demo@{CARD}")
    assert source_of_study(open_view("demo")).manifest.name == "demo"


def test_compare_needs_a_second_condition(capsys):
    search(also=())
    assert main(["compare", "demo"]) == 2
    assert f"has only {CPU}. Name a second study" in " ".join(capsys.readouterr().err.split())


def test_commands_show_the_front_of_a_target(two_targets, tmp_path, capsys):
    card = numbers(two_targets.front("cuda").members)
    assert main(["front", "demo"]) == 0
    assert f"The front of fake card: hilo-nas front demo@{CARD}" in capsys.readouterr().out
    assert main(["front", "demo@cuda"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"demo@{CARD}: {len(card)} of 12 scored networks")
    assert f"images/s: {CARD} on fake card" in text
    assert main(["front", "demo@cuda", "--format", "json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert (content["condition"], [row["number"] for row in content["front"]]) == (CARD, card)
    assert main(["front", "demo@cuda", "--format", "csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [int(row.split(",")[0]) for row in rows[1 : len(card) + 1]] == card
    fastest = max(own.images_per_s for own in two_targets.front("cuda").points.values())
    assert main(["front", "demo@cuda", "--min-images-per-s", f"{0.9 * fastest:.0f}"]) == 0
    assert f"trial {card[0]} is recommended" in capsys.readouterr().out
    assert main(["front", "demo@cuda", "--predicted"]) == 2
    assert "hilo-nas front demo --predicted" in capsys.readouterr().err
    assert main(["status", "demo"]) == 0
    text = capsys.readouterr().out
    assert f"{CARD} on fake card" in text
    assert f"{CARD}: trial {', '.join(map(str, card))}" in text
    out = tmp_path / "out"
    assert main(["export", "demo@cuda", "--knee", "-o", str(out)]) == 0
    assert CARD in (out / "train.yaml").read_text("utf-8")
    assert open_study("demo").manifest.space.hash() in (out / "provenance.yaml").read_text("utf-8")


def test_csv_files_mark_the_front_of_each_target(two_targets):
    card = numbers(two_targets.front("cuda").members)
    header, *rows = (two_targets.path / "trials.csv").read_text("utf-8").splitlines()
    column = header.split(",").index(f"on_front@{CARD}")
    assert [int(row.split(",")[0]) for row in rows if row.split(",")[column] == "True"] == sorted(card)


def test_a_report_shows_the_front_of_each_target(two_targets, tmp_path):
    path = tmp_path / "report.html"
    assert main(["report", "demo", "-o", str(path)]) == 0
    text = path.read_text("utf-8")
    assert f'"name":"demo@{CARD}"' in text
    assert "hilo-nas export demo --trial" in text
    assert f"hilo-nas export demo@{CARD} --trial" in text


def test_the_export_that_a_view_shows_has_the_speed_of_the_view(two_targets, tmp_path, capsys):
    number = two_targets.front("cuda").members[0].number
    assert main(["show", f"demo@cuda:{number}"]) == 0
    assert f"hilo-nas export demo@{CARD} --trial {number} -o out/" in capsys.readouterr().out
    assert main(["export", f"demo@{CARD}", "--trial", str(number), "-o", str(tmp_path / "out")]) == 0
    assert CARD in (tmp_path / "out" / "train.yaml").read_text("utf-8")


def test_python_reads_a_study_under_its_conditions():
    search(trials=2)
    study, view = hilo_nas.load_study("demo"), hilo_nas.load_study("demo@cuda")
    assert study.under("cpu").title == view.under("cpu").title == "demo"
    assert (view.title, study.under("cuda").title) == (f"demo@{CARD}", f"demo@{CARD}")
    assert repr(view).startswith(f"Study('demo@{CARD}', 2 of 2 trials")
    assert CARD in repr(open_view("demo@cuda"))
    with pytest.raises(UsageError, match=r"only speeds under the objective .* load_study\('demo'\)\.forecast\(\)"):
        view.forecast()
    with pytest.raises(UsageError, match="condition must be one of"):
        hilo_nas.load_study("demo@mps")


def test_an_interrupted_trial_is_timed_only_on_the_targets_that_are_missing(interrupted):
    with interrupted(at=lambda task: task.target == "cuda:0" and task.entries) as answers:
        search(answers, trials=3)
    (record,) = open_study("demo").records
    assert [own.condition.label() for own in record.measurements] == [CPU]
    kept = record.measurements[0].measured_at
    study, evaluator = search(trials=3)
    timed = [task.target for task in tasks_of(evaluator, "time") if record.key in task.entries]
    assert timed == ["cuda:0"]
    record = fresh(study).records[0]
    assert list(record.measurements_by_condition()) == [CPU, CARD]
    assert record.measurements[0].measured_at == kept
    assert all({*own.measurements_by_condition()} == {CPU, CARD} for own in study.records)


def test_an_interrupted_baseline_is_timed_only_on_the_targets_that_are_missing(interrupted):
    search(trials=1)

    def is_baseline(task):
        return task.target == "cuda" and "timm:resnet18" in task.entries and open_study("demo").records[1:]

    with interrupted(at=is_baseline) as answers:
        resume(answers, baselines=("timm:resnet18",), trials=None, until_trials=1)
    assert [own.condition.label() for own in open_study("demo").records[1].measurements] == [CPU]
    study, evaluator = resume(trials=None, until_trials=1)
    timed = [task.target for task in tasks_of(evaluator, "time") if "timm:resnet18" in task.entries]
    assert timed == ["cpu", "cuda", "cuda"]  # the first two estimate the cost of the baseline
    assert {*study.records[1].measurements_by_condition()} == {CPU, CARD}


def test_a_network_that_is_timed_twice_resumes_with_the_second_timing():
    study, _ = search(study="free", trials=1)
    bound = 1.001 * study.records[0].measurements[0].images_per_s
    timed = []

    def search_until(count, study):
        """Interrupts the search after some timings within trials."""

        def before(task):
            if task.kind == "time" and task.entries and StoredStudy(studies_folder() / study).records:
                if len(timed) == count:
                    raise KeyboardInterrupt
                timed.append(task.target)

        return search(Answers(before=before), study=study, trials=1, min_images_per_s=bound)[0]

    search_until(9, "whole")
    assert timed == ["cpu", "cuda:0", "cpu", "cuda:0"]
    for finished in range(1, 4):
        timed.clear()
        with pytest.raises(KeyboardInterrupt):
            search_until(finished, f"cut-{finished}")
        study = search_until(9, f"cut-{finished}")
        assert timed == ["cpu", "cuda:0", "cpu", "cuda:0"]
        assert len(study.records[0].measurements) == 4


def test_a_failed_target_keeps_the_timing_of_the_other_one():
    def refuse(task):
        if task.kind == "time" and len(task.entries) == 1 and task.target == "cuda:0":
            raise NotEnoughMemoryError("it needs 3 GiB")

    study, _ = search(Answers(before=refuse), trials=2)
    for record in fresh(study).records:
        assert [own.condition.label() for own in record.measurements] == [CPU]
        assert "images_per_s" not in record.imputed


def test_timings_of_parallel_trials_are_kept(interrupted):
    cards = {"cpu": "fake, 2 cores", "cuda:0": "fake card", "cuda:1": "fake card"}
    options = {"device": "cuda:0,cuda:1", "also": ("device=cpu",), "trials": 4}
    seen = iter(range(99))
    with interrupted(
        at=lambda task: task.target == "cpu" and task.entries and next(seen) == 2, models=cards
    ) as answers:
        search(answers, **options)
    stored = {record.key: {*record.measurements_by_condition()} for record in open_study("demo").records}
    assert {CARD} in stored.values()
    study, evaluator = search(Answers(cards), **options)
    for task in tasks_of(evaluator, "time"):
        assert not any(task.condition.label() in stored.get(key, ()) for key in task.entries)
    assert all({*record.measurements_by_condition()} == {CARD, CPU} for record in study.records)


def test_a_timing_before_a_proposal_is_kept(interrupted):
    ahead = []

    def is_ahead(task):
        running = [record.key for record in open_study("demo").records if record.state == TrialState.RUNNING]
        found = task.target == "cuda:0" and not task.is_brief and not {*running} & {*task.entries}
        ahead.extend(task.entries if found else ())
        return bool(ahead)

    with interrupted(at=lambda task: task.entries and is_ahead(task)) as answers:
        search(answers, sampler="hilo", trials=14)
    (record,) = [own for own in open_study("demo").records if own.key == ahead[0]]
    assert (record.state, [own.condition.label() for own in record.measurements]) == (TrialState.TIMED, [CPU])
    assert record.seconds >= record.measurements[0].seconds


def test_a_trial_of_a_view_is_a_network_with_the_condition_of_the_view(capsys):
    study, _ = search(also=("device=cuda:0", "device=cuda:1", "batch_size=1"), trials=1)
    found = find_network("demo@cpu-b1:0")
    assert found.subject == study.records[0].subject.to_dict()
    assert (found.defaults["batch_size"], found.defaults["device"]) == (1, "cpu")
    other = find_network(f"demo@{OTHER_CARD}:0")
    assert (other.defaults["device"], "model" in other.defaults) == ("cuda", False)
    with pytest.raises(UsageError, match="condition must be one of"):
        find_network("demo@mps:0")


@pytest.mark.parametrize(
    "words",
    [["status", "demo@cpu"], ["remeasure", "demo@cpu"], ["repair", "demo@cpu"], ["search", "--study", "demo@cpu"]],
)
def test_a_command_that_needs_the_whole_study_says_so(words, capsys):
    search(trials=1)
    assert main([*words]) == 2
    assert "use demo without @cpu" in " ".join(capsys.readouterr().err.split())


def test_too_few_networks_of_one_study_need_a_longer_search(capsys):
    search(trials=1)
    assert main(["compare", "demo"]) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "Search for more: hilo-nas search --study demo --trials 2" in text
    assert "remeasure" not in text


def test_limits_that_no_trial_of_a_view_meets_name_the_view(capsys):
    search(trials=2)
    assert main(["front", "demo@cuda", "--min-images-per-s", "1e12"]) == 2
    assert f"no trial of study demo@{CARD} meets" in " ".join(capsys.readouterr().err.split())


def test_a_stopped_study_of_timings_keeps_those_of_the_finished_targets(interrupted):
    options = {"proxy": "none", "sampler": None, "reduction_factor": None, "trials": 4}
    with interrupted(at=lambda task: task.target == "cuda:0" and task.entries) as answers:
        search(answers, **options)
    stored = open_study("demo").records
    assert [[own.condition.label() for own in record.measurements] for record in stored] == [[CPU]] * 4
    study, evaluator = search(**options)
    assert [task.target for task in tasks_of(evaluator, "time") if task.entries] == ["cuda:0"]
    assert [record.key for record in study.records] == [record.key for record in stored]
    for record in fresh(study).records:
        assert record.state == TrialState.TIMED
        assert [own.condition.label() for own in record.measurements] == [CPU, CARD]
