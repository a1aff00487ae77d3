import dataclasses

import pytest
from builders import build_failed, build_measurement, build_record, build_score, demo_records, fresh, write_study

from hilo_nas.errors import NotFoundError, TrialStateError, UsageError
from hilo_nas.study.posteriors import Believed, Posteriors, hash_results
from hilo_nas.study.records import Subject
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.study.trial_choice import choose_trial, promises_of, recommend


@pytest.fixture
def study(tmp_path):
    return write_study(tmp_path, "demo", demo_records())


def test_a_trial_is_chosen_by_its_number(study):
    assert choose_trial(study, number=0).number == 0
    assert choose_trial(study, number=1).number == 1


@pytest.mark.parametrize(("speed", "number"), [(1.0, 2), (470.0, 2), (500.0, 3), (850.0, 3), (900.0, 4), (1000.0, 4)])
def test_a_trial_is_chosen_as_the_most_accurate_that_keeps_a_speed_surely(study, speed, number):
    assert choose_trial(study, limits={"images_per_s": speed}).number == number


@pytest.mark.parametrize(("latency_ms", "number"), [(1000.0, 2), (60.0, 3), (35.2, 4), (40.5, 3)])
def test_a_trial_is_chosen_as_the_most_accurate_that_keeps_a_latency_surely(study, latency_ms, number):
    assert choose_trial(study, limits={"latency_ms": latency_ms}).number == number


def test_a_limit_of_both_kinds_is_kept_as_a_whole(study):
    assert choose_trial(study, limits={"images_per_s": 1.0, "latency_ms": 60.0}).number == 3
    assert choose_trial(study, limits={"images_per_s": 900.0, "latency_ms": 1000.0}).number == 4


def build_with_latency(number, images_per_s, value, latency_ms):
    """A complete trial whose 95th percentile of latency is known to 2 %."""
    ends = {"latency_ms_p95_low": 0.98 * latency_ms, "latency_ms_p95_high": 1.02 * latency_ms}
    timing = build_measurement(images_per_s, latency_ms_p95=latency_ms, **ends)
    return build_record(number, images_per_s, value, measurements=(timing,))


def test_a_latency_is_kept_by_a_slower_trial_where_none_of_the_front_keeps_it(tmp_path):
    fast, quick = build_with_latency(0, 1000.0, 0.5, 26.0), build_with_latency(1, 990.0, 0.45, 13.0)
    folder = write_study(tmp_path, "two", [fast, quick])
    assert choose_trial(StoredStudy(folder.path), limits={"latency_ms": 15.6}).number == 1
    assert choose_trial(StoredStudy(folder.path), limits={"latency_ms": 30.0}).number == 0
    with pytest.raises(NotFoundError, match="the best, trial 1, has latency_ms 13"):
        choose_trial(StoredStudy(folder.path), limits={"latency_ms": 12.0})


def test_a_latency_that_none_keeps_surely_is_kept_by_the_most_probable(tmp_path):
    records = [build_with_latency(0, 1000.0, 0.5, 26.0), build_with_latency(1, 990.0, 0.45, 13.0)]
    folder = write_study(tmp_path, "two", records)
    record = choose_trial(StoredStudy(folder.path), limits={"latency_ms": 13.05})
    (promise,) = promises_of(fresh(folder).manifest, record, {"latency_ms": 13.05})
    assert (record.number, promise.is_sure) == (1, False)


def test_no_baseline_and_no_network_that_did_not_train_is_chosen_by_limits(tmp_path):
    baseline = dataclasses.replace(build_with_latency(1, 990.0, 0.9, 13.0), subject=Subject(timm="swift"))
    guessing = dataclasses.replace(build_with_latency(2, 990.0, 0.1, 13.0), scores=(build_score(0.1, chance=0.1),))
    folder = write_study(tmp_path, "two", [build_with_latency(0, 1000.0, 0.5, 26.0), baseline, guessing])
    with pytest.raises(NotFoundError, match="the best, trial 0, has latency_ms 26"):
        choose_trial(StoredStudy(folder.path), limits={"latency_ms": 15.6})


def test_how_surely_a_chosen_trial_keeps_its_limits_is_said(study):
    sure, unsure = (
        promises_of(fresh(study).manifest, study.record(4), {"images_per_s": speed})[0] for speed in (900, 1000)
    )
    assert (sure.text, sure.is_sure) == ("trial 4 meets images_per_s >= 900 with a probability of more than 99%", True)
    assert (unsure.text, unsure.is_sure) == ("trial 4 meets images_per_s >= 1000 with a probability of 50%", False)
    assert promises_of(fresh(study).manifest, study.record(4)) == []


def test_a_limit_of_the_study_is_promised_without_being_asked_for(study):
    manifest = dataclasses.replace(fresh(study).manifest, limits={"latency_ms": 36.0})
    (promise,) = promises_of(manifest, study.record(4))
    assert promise.text.startswith("trial 4 meets latency_ms <= 36 with a probability of ")


@pytest.mark.parametrize("bound", [0.0, -1.0, float("nan")])
def test_a_limit_that_is_not_above_zero_is_refused(study, bound):
    with pytest.raises(UsageError, match="images_per_s must be above 0, but got"):
        choose_trial(study, limits={"images_per_s": bound})


def test_a_trial_is_chosen_at_the_knee(study):
    assert choose_trial(study, at_knee=True).number == 3


def test_a_speed_that_none_reaches_is_answered_with_the_fastest(study):
    with pytest.raises(NotFoundError) as caught:
        choose_trial(study, limits={"images_per_s": 1000.5})
    for part in ("study demo meets images_per_s >= 1000.5", "trial 4, has images_per_s 1000.", "--trials"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "ways",
    [
        {},
        {"number": 3, "at_knee": True},
        {"number": 0, "limits": {"images_per_s": 1.0}},
        {"limits": {"images_per_s": 1.0}, "at_knee": True},
    ],
)
def test_exactly_one_way_of_choosing_is_wanted(study, ways):
    with pytest.raises(UsageError, match="give exactly one of a trial's number, the knee, and limits"):
        choose_trial(study, **ways)


def test_a_trial_that_cannot_serve_is_refused(study):
    with pytest.raises(NotFoundError, match="study demo has no trial 99"):
        choose_trial(study, number=99)
    with pytest.raises(NotFoundError, match="study demo has no trial -1"):
        choose_trial(study, number=-1)
    for number, state in ((5, "infeasible"), (6, "failed")):
        with pytest.raises(TrialStateError, match=f"trial {number} of study demo is {state} "):
            choose_trial(study, number=number)


@pytest.mark.parametrize("way", [{"at_knee": True}, {"limits": {"images_per_s": 1.0}}])
def test_a_study_without_a_complete_trial_offers_none(tmp_path, way):
    folder = write_study(tmp_path, "empty", [build_failed(0)])
    with pytest.raises(NotFoundError, match=r"study empty has no complete trial yet: see `hilo-nas status .*empty`"):
        choose_trial(StoredStudy(folder.path), **way)


def test_a_score_is_kept_by_the_fastest(study):
    assert choose_trial(study, min_value=0.4).number == 4
    assert choose_trial(study, min_value=0.65).number == 3
    assert choose_trial(study, min_value=0.65, limits={"latency_ms": 100.0}).number == 3
    with pytest.raises(NotFoundError, match=r"meets top-1 >= 90\.0 %; the best, trial 2, has top-1 80\.0 %"):
        choose_trial(study, min_value=0.9)


def test_a_recommendation_states_its_rule_and_its_uncertainty(tmp_path):
    records = [build_record(0, 1000.0, 0.70), build_record(1, 990.0, 0.69), build_record(2, 980.0, 0.30)]
    found = recommend(write_study(tmp_path, "close", records), limits={"images_per_s": 500.0})
    assert found.record.number == 0
    assert set(found.best_probabilities) == {0, 1}  # trial 2 is beaten in every draw
    assert 0.5 < found.best_probabilities[0] < 0.75
    rule, promise, best = found.sentences()
    assert rule.startswith("trial 0 is recommended: the best score among the networks that meet images_per_s >= 500")
    assert promise == "trial 0 meets images_per_s >= 500 with a probability of more than 99%"
    assert "trial 1 " in best


def test_a_recommendation_that_is_not_sure_warns(study):
    found = recommend(study, limits={"images_per_s": 1000.0})
    assert found.record.number == 4
    assert found.sentences()[0].startswith("trial 4 is recommended: no network meets images_per_s >= 1000")
    assert found.sentences()[1].startswith("warning: trial 4 meets images_per_s >= 1000 with a probability of 50% only")


def test_a_recommendation_by_score_counts_the_error_of_the_score(study):
    found = recommend(study, min_value=0.745)
    assert found.record.number == 2
    assert found.promises[0].text == "trial 2 meets top-1 >= 74.5 % with a probability of more than 99%"
    assert found.best_probabilities[3] > 0.5  # trial 3 is faster, and its 75 % may be true


def test_the_knee_is_recommended_without_a_probability(study):
    found = recommend(study, at_knee=True)
    assert (found.record.number, found.best_probabilities, len(found.sentences())) == (3, {}, 1)


def test_a_limit_of_the_study_does_not_make_the_choice_unsure(study):
    manifest = dataclasses.replace(study.manifest, limits={"latency_ms": 35.21})
    limited = write_study(study.path.parent, "limited", demo_records(), manifest)
    found = recommend(limited, limits={"images_per_s": 900.0})
    assert found.record.number == 4
    assert not all(promise.is_sure for promise in found.promises)  # that of the study's own limit
    assert found.rule.startswith("the best score among the networks that meet images_per_s >= 900")


def test_a_limit_on_what_was_not_measured_is_refused(tmp_path):
    timing = build_measurement(900.0, memory_mib=None)
    study = write_study(tmp_path, "no-memory", [build_record(0, measurements=(timing,))])
    with pytest.raises(UsageError, match="did not measure it"):
        choose_trial(study, limits={"memory_mib": 100.0})


def test_a_minimum_score_counts_posteriors_where_there_are_any(tmp_path):
    study = write_study(tmp_path, "demo", [build_record(0, 900.0, 0.51), build_record(1, 800.0, 0.49)])
    first, second = study.records
    believed = {
        first.key: Believed(value=0.48, standard_error=0.01),
        second.key: Believed(value=0.505, standard_error=0.01),
    }
    results = hash_results(study.records, study.manifest)
    study.write_posteriors(
        Posteriors(results_hash=results, written_at="2026-07-01", believed=believed, predicted=(), outlook=())
    )
    assert choose_trial(study, min_value=0.5).number == 1  # its measured score is below, its posterior above
