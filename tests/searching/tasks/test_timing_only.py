"""Studies without a proxy: networks that are listed or drawn, timed in cohorts, never trained."""

import pytest
from builders import TINY, build_arch
from fakes import speed

from hilo_nas.arch.config import PRESETS
from hilo_nas.errors import DeviceError, UsageError
from hilo_nas.events import NetworksTimed, SearchFinished, SearchStarted
from hilo_nas.searching import RemeasureRequest, SearchConfig, run_remeasure, run_search
from hilo_nas.space import list_networks, load_space
from hilo_nas.study.manifest import Manifest
from hilo_nas.study.stored_study import open_study

DIGITS = load_space("litv2_digits")


@pytest.fixture
def studies(tmp_path, machine):
    return tmp_path


def search(studies, events=None, **options):
    options = {"study": "edge", "space": "litv2_digits", "proxy": "none", **options}
    request = SearchConfig.of(**options)
    return run_search(request, (events if events is not None else []).append)


def resume(studies, events=None, **options):
    return search(studies, events, **{"space": None, "proxy": None, **options})


def test_networks_are_drawn_at_random_after_the_anchors_and_only_timed(studies, machine):
    study, finished = search(studies, trials=20)
    assert (finished.measured, finished.total, finished.stopped_by) == (20, 20, "total")
    assert [str(record.state) for record in study.records] == ["timed"] * 20
    assert [record.origin for record in study.records] == ["anchor:litv2_tiny", *["random"] * 19]
    drawn = [arch.key() for arch, _ in list_networks(DIGITS, img_size=32, num_classes=10, count=21)]
    assert {record.key for record in study.records} <= {TINY.key(), *drawn}
    assert machine.scored == machine.measured == []
    assert [len(keys) for _, keys, _ in machine.cohorts] == [16, 4]
    for record in study.records:
        assert record.measurement.images_per_s == pytest.approx(speed(record.subject.arch), rel=0.02)
        assert record.params == DIGITS.encode(record.subject.arch)
        assert record.macs > 0


def test_no_images_are_read_and_the_manifest_says_so(studies, machine):
    study, _ = search(studies, trials=1)
    assert machine.grouped_by == []
    manifest = study.manifest
    assert (manifest.plan.proxy, manifest.sampler, manifest.reduction_factor, manifest.data.n_images) == (
        "none",
        "random",
        None,
        0,
    )
    assert manifest.data.num_classes == 10
    assert Manifest.from_yaml(manifest.to_yaml()) == manifest


def test_the_same_seed_draws_the_same_networks_however_often_it_was_stopped(studies):
    whole, _ = search(studies, trials=6, study="whole", seed=3)
    search(studies, trials=2, seed=3)
    resume(studies, trials=1)
    pieces, finished = resume(studies, until_trials=6)
    assert finished.measured == 6
    assert [record.key for record in pieces.records] == [record.key for record in whole.records]
    other, _ = search(studies, trials=6, study="other", seed=4)
    assert {record.key for record in other.records} != {record.key for record in whole.records}


def test_a_stop_keeps_the_cohorts_that_were_timed(studies, machine):
    def stop(verb, count):
        if (verb, count) == ("cohort", 1):
            raise KeyboardInterrupt

    machine.happen = stop
    with pytest.raises(KeyboardInterrupt):
        search(studies, trials=20)
    assert len(open_study(studies / "edge").records) == 16
    machine.happen = lambda verb, count: None
    study, finished = resume(studies)
    assert (finished.measured, finished.total) == (20, 20)
    assert len({record.key for record in study.records}) == 20


def test_networks_that_are_listed_are_all_that_is_timed_unless_more_are_asked_for(studies, machine, tmp_path):
    study, finished = search(studies, networks=("litv2_small", "litv2_base"), img_size=64)
    assert [record.key for record in study.records] == [PRESETS[n].key() for n in ("litv2_small", "litv2_base")]
    assert {(record.origin, record.params) for record in study.records} == {("listed", None)}
    assert (finished.measured, finished.stopped_by) == (2, "total")
    study, finished = resume(studies, networks=("litv2_small", "litv2_medium"), trials=2)
    assert (finished.measured, finished.total) == (4, 4)
    assert [record.origin for record in study.records] == ["listed"] * 3 + ["anchor:litv2_tiny"]


def test_networks_that_were_listed_wait_through_a_fault(studies, machine):
    machine.before = lambda task: (_ for _ in ()).throw(DeviceError("gone")) if getattr(task, "entries", 0) else None
    with pytest.raises(DeviceError):
        search(studies, networks=("litv2_small",), img_size=64)
    assert [str(record.state) for record in open_study(studies / "edge").records] == ["waiting"]
    machine.before = lambda task: None
    study, _ = resume(studies)
    assert [str(record.state) for record in study.records] == ["timed"]


def test_a_trial_of_another_study_can_be_listed(studies):
    first, _ = search(studies, trials=3)
    study, _ = search(studies, study="again", networks=("edge:2",))
    assert [record.key for record in study.records] == [first.records[2].key]


def test_baselines_are_timed_and_count_for_none(studies, machine):
    machine.baselines = {"swift": (800.0, 0.5)}
    study, finished = search(studies, trials=2, baselines=("swift",))
    assert finished.measured == 2
    (baseline,) = [record for record in study.records if record.is_baseline]
    assert (baseline.state, baseline.origin) == ("timed", "baseline:swift")


def test_a_network_that_cannot_be_timed_has_failed_and_another_takes_its_place(studies, machine):
    broken = TINY.key()
    machine.failures = {broken: "it does not fit"}
    study, finished = search(studies, trials=3)
    assert finished.measured == 2
    assert {record.key: (str(record.state), record.reason) for record in study.records}[broken] == (
        "failed",
        "it does not fit",
    )
    _, finished = resume(studies)
    assert finished.measured == 3


def test_all_conditions_are_timed(studies, machine):
    study, _ = search(studies, trials=2, also=("batch_size=1",))
    labels = [condition.label() for condition in study.manifest.conditions]
    assert [[m.condition.label() for m in record.measurements] for record in study.records] == [labels] * 2


def test_a_space_that_is_used_up_ends_it(studies, tmp_path):
    one = {
        **DIGITS.to_dict(),
        "embed_dims": [16],
        "depths": [[1], [1], [1], [1]],
        "alpha": [0.5],
        "window_size": [[1], [1], [1], [1]],
        "mlp_ratios": [2, 4],
        "anchors": {},
    }
    (tmp_path / "two.yaml").write_text(str(one))
    _, finished = search(studies, space=str(tmp_path / "two.yaml"), trials=5)
    assert (finished.measured, finished.total, finished.stopped_by) == (2, 5, "exhausted")


def test_no_further_cohort_begins_after_the_timeout(studies):
    _, finished = search(studies, trials=20, timeout_s=1e-9)
    assert (finished.measured, finished.stopped_by) == (0, "timeout")


def test_its_course_is_told(studies):
    events = []
    search(studies, events, trials=20)
    told = [event for event in events if isinstance(event, SearchStarted | NetworksTimed | SearchFinished)]
    assert [type(event) for event in told] == [SearchStarted, NetworksTimed, NetworksTimed, SearchFinished]
    assert [(event.done, event.total) for event in told[1:3]] == [(16, 20), (20, 20)]


def test_its_networks_can_be_timed_again(studies, machine):
    search(studies, trials=3)
    machine.cohorts.clear()
    study = run_remeasure(RemeasureRequest(study=str(studies / "edge"), everything=True), lambda event: None)
    assert [len(record.measurements) for record in study.records] == [2, 2, 2]
    assert [str(record.state) for record in study.records] == ["timed"] * 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "tpe"}, "sampler must be random without a proxy, but got 'tpe'. Leave it out."),
        ({"speeds": "x"}, "study.speeds has no effect without a proxy"),
        ({"reuse": "x"}, "study.reuse has no effect without a proxy"),
        ({"min_images_per_s": 9.0}, "limits on images/s, latency and memory"),
        ({"also": ("batch_size=1,max_latency_ms=9",)}, "limits on images/s, latency and memory"),
        ({"confirm": 2}, "proxy.confirm has no effect with proxy none"),
        ({"networks": ("timm:resnet18",)}, "networks must be architectures, but got timm:resnet18"),
        ({"networks": ("litv2_small@64",)}, "study's image size, but got litv2_small@64"),
    ],
)
def test_options_of_a_search_that_trains_are_refused(studies, machine, options, said):
    machine.read_device = None  # told before
    with pytest.raises(UsageError, match=said.replace(".", r"\.")) as caught:
        search(studies, **options)
    assert said in str(caught.value)
    assert not (studies / "edge" / "manifest.yaml").exists()


def test_networks_of_a_study_that_trains_cannot_be_listed(studies):
    with pytest.raises(UsageError, match=r"search\.networks"):
        search(studies, proxy="params", networks=("litv2_small",))


def test_a_study_that_trains_can_search_with_it(studies, machine):
    search(studies, trials=5)
    machine.cohorts.clear()
    study, finished = search(studies, study="trains", proxy=None, speeds="edge", trials=9, sampler="random", rungs=1)
    assert (finished.measured, finished.stopped_by) == (5, "exhausted")
    assert [str(record.state) for record in study.records] == ["complete"] * 5
    assert machine.cohorts == machine.measured == []


def test_archs_of_a_file_can_be_listed(studies, tmp_path):
    (tmp_path / "arch.yaml").write_text(str(build_arch(9).to_dict()))
    study, _ = search(studies, networks=(str(tmp_path / "arch.yaml"),))
    (record,) = study.records
    assert (record.key, record.params) == (build_arch(9).key(), DIGITS.encode(build_arch(9)))
