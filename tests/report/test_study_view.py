import dataclasses

import pytest
from builders import (
    TINY,
    build_arch,
    build_manifest,
    build_measurement,
    build_record,
    build_score,
    demo_records,
    write_study,
)

from hilo_nas.errors import UsageError
from hilo_nas.report.study_view import NetworkView, Place, StudyView, check_same_metric
from hilo_nas.study.posteriors import Posteriors, PredictedNetwork, hash_results
from hilo_nas.study.records import Subject
from hilo_nas.text.figures import with_spread


def view_of(tmp_path, records=None, manifest=None):
    return StudyView.from_study(write_study(tmp_path, "demo", demo_records() if records is None else records, manifest))


def test_every_trial_has_its_place(tmp_path):
    baseline = build_record(7, 300.0, 0.7, subject=Subject(timm="resnet18"))
    stopped = build_record(8, 600.0, 0.3, arch=build_arch(9), state="stopped")
    untrained = build_record(9, 600.0, 0.1, arch=build_arch(10), scores=(build_score(0.1, chance=0.1),))
    waiting = build_record(10, None, None, arch=build_arch(11), state="waiting")
    timed = build_record(11, 600.0, None, arch=build_arch(12), state="timed")
    view = view_of(tmp_path, [*demo_records(), baseline, stopped, untrained, waiting, timed])
    assert {own.number: own.place for own in view.networks} == {
        0: Place.BEATEN,
        1: Place.BEATEN,
        2: Place.FRONT,
        3: Place.FRONT,
        4: Place.FRONT,
        5: Place.INFEASIBLE,
        6: Place.FAILED,
        7: Place.BASELINE,
        8: Place.STOPPED,
        9: Place.UNTRAINED,
        10: Place.OPEN,
        11: Place.TIMED,
    }
    assert view.networks[0].anchor == "litv2_tiny"
    assert view.networks[7].title == "timm:resnet18"


def test_figures_are_those_of_the_front(tmp_path):
    view = view_of(tmp_path)
    own = view.networks[2]
    assert (own.images_per_s, own.value) == (500.0, 0.80)
    assert own.value_high - own.value == pytest.approx(view.front.half_widths[2])
    assert own.probability == view.front.probabilities()[2]
    assert view.networks[5].value is None
    assert view.networks[5].is_drawable
    assert not view.networks[6].is_drawable


def test_copied_results_cost_this_study_nothing(tmp_path):
    old = "2020-01-01T00:00:00+00:00"
    copied = build_record(
        0,
        measurements=(build_measurement(900.0, measured_at=old),),
        scores=(build_score(0.5, scored_at=old),),
        finished_at=old,
    )
    view = view_of(tmp_path, [copied, build_record(1)])
    assert [(own.timing_s, own.training_s, own.seconds) for own in view.networks] == [(0.0, 0.0, 0.0), (2.5, 7.5, 10.0)]


def test_predicted_networks_follow_the_trials(tmp_path):
    study = write_study(tmp_path, "demo", demo_records())
    space = study.manifest.space
    params = space.encode(TINY)
    predicted = PredictedNetwork(
        key=TINY.key(),
        params=params,
        images_per_s=1000.0,
        images_per_s_low=900.0,
        images_per_s_high=1100.0,
        is_timed=False,
        value=0.7,
        value_low=0.6,
        value_high=0.8,
        feasible_probability=1.0,
    )
    study.write_posteriors(
        Posteriors(
            results_hash=hash_results(study.records, study.manifest),
            written_at="2026-07-01",
            believed={},
            predicted=(predicted,),
            outlook=(),
        )
    )
    last = StudyView.from_study(study).networks[-1]
    assert (last.number, last.place, last.value) == (None, Place.PREDICTED, 0.7)
    assert last.knobs["depths_1"] == TINY.depths[0]


@pytest.mark.parametrize("share", [0.04, 2.0])
def test_a_speed_has_the_interval_of_its_measurement(share):
    measured = build_measurement(1000.0, images_per_s_low=980.0, images_per_s_high=1020.0, calibration_error=share)
    low, high = measured.images_per_s_interval
    view = NetworkView(
        number=0,
        key="k",
        place=Place.OPEN,
        title="",
        images_per_s=1000.0,
        images_per_s_low=low,
        images_per_s_high=high,
    )
    assert view.speed_text == with_spread(1000.0, measured.images_per_s_half_width)


def test_the_reference_point_is_the_limit_and_guessing_where_known(tmp_path):
    assert view_of(tmp_path / "a").ref_point == (500.0, pytest.approx(0.1))
    limited = build_manifest(limits={"images_per_s": 400.0})
    assert view_of(tmp_path / "b", manifest=limited).ref_point[0] == 400.0
    with pytest.raises(UsageError, match="no complete trial"):
        _ = view_of(tmp_path / "c", []).ref_point


def test_studies_of_different_metrics_do_not_share_axes(tmp_path):
    view = view_of(tmp_path)
    params = dataclasses.replace(view.manifest.plan, proxy="params", metric="params")
    other = dataclasses.replace(view, name="other", manifest=dataclasses.replace(view.manifest, plan=params))
    assert check_same_metric([view, view]).name == "top1"
    with pytest.raises(UsageError, match="demo has top1, other has params"):
        check_same_metric([view, other])
