"""Comparison of a front with anchors and baselines, as values and as sentences."""

import dataclasses

import pytest
from builders import (
    TINY,
    build_failed,
    build_infeasible,
    build_interrupted,
    build_record,
    build_score,
    demo_records,
)

from hilo_nas.study.front import Front
from hilo_nas.study.records import Subject
from hilo_nas.study.standings import Standing
from hilo_nas.study.transitions import interrupt


def sentences(*records) -> list[str]:
    return [standing.sentence() for standing in Front.from_records(records).standings]


def test_a_beaten_anchor_names_the_fastest_trial_that_beats_it():
    (standing,) = Front.from_records(demo_records()).standings
    assert (standing.name, standing.number, standing.verdict, standing.by) == ("litv2_tiny", 0, "beaten", 3)
    assert standing.speed_ratio == pytest.approx(900 / 800)
    assert standing.top1_gain == pytest.approx(0.15)
    assert standing.top1_gain_se == pytest.approx((0.75 * 0.25 / 400 + 0.6 * 0.4 / 400) ** 0.5, rel=0.01)
    assert standing.sentence() == (
        "trial 3 beats litv2_tiny (trial 0): 1.12 x its images/s, +15.0 ± 6.4 points of proxy top-1"
    )


def test_the_noise_of_seeds_is_in_the_error_of_a_gain():
    seeds = tuple(build_score(top1, seed=seed, standard_error=0.0) for seed, top1 in enumerate((0.74, 0.76)))
    anchor = build_record(0, 800.0, origin="anchor:a", scores=(build_score(0.6, standard_error=0.0),))
    (standing,) = Front.from_records([anchor, build_record(1, 900.0, scores=seeds)]).standings
    noise = 0.02 / 2**0.5
    assert standing.top1_gain_se == pytest.approx((noise**2 + noise**2 / 2) ** 0.5, rel=0.03)


def test_a_gain_is_distinguishable_exactly_where_it_exceeds_what_follows_the_sign():
    def standing(gain):
        return Standing(
            name="a",
            number=0,
            verdict="not beaten",
            by=1,
            speed_ratio=2.0,
            top1_gain=gain,
            top1_gain_se=0.02,
            probability=0.9,
        )

    assert "top-1 not distinguishable (+3.0 ± 3.9 points)" in standing(0.03).sentence()
    assert "+4.0 ± 3.9 points of proxy top-1" in standing(0.04).sentence()


def test_of_several_that_beat_an_anchor_the_fastest_is_named():
    anchor = build_record(0, 800.0, 0.6, origin="anchor:a")
    rivals = [build_record(1, 900.0, 0.9), build_record(2, 1000.0, 0.7), build_record(3, 1100.0, 0.5)]
    assert [standing.by for standing in Front.from_records([anchor, *rivals]).standings] == [2]
    assert [standing.by for standing in Front.from_records([anchor, *reversed(rivals)]).standings] == [2]


def test_an_anchor_that_none_beats_is_on_the_front():
    anchor = build_record(0, 800.0, 0.6, origin="anchor:a")
    assert sentences(anchor) == ["no trial beats a (trial 0): it is itself on the front"]
    assert sentences(anchor, build_record(1, 900.0, 0.5)) == [
        "trial 1: 1.12x the images/s of a (trial 0), -10.0 ± 6.8 points of proxy top-1; it is itself on the front"
    ]
    assert Front.from_records([anchor, build_record(1, 800.0, 0.6)]).standings[0].verdict == "on the front"


def test_an_anchor_that_failed_or_broke_a_limit_is_left_out_with_the_reason():
    assert sentences(build_failed(0, "the worker\n died", origin="anchor:a"), build_record(1)) == [
        "a (trial 0) is left out of the comparison: the worker died"
    ]
    (standing,) = Front.from_records([build_infeasible(2, origin="anchor:b"), build_record(1)]).standings
    assert (standing.verdict, standing.reason) == ("not measured", "images_per_s >= 900 is a limit, but got 10")
    assert standing.sentence() == f"b (trial 2) is left out of the comparison: {standing.reason}"


def test_an_anchor_whose_trial_runs_has_no_score_yet():
    running = build_record(0, None, None, state="running", origin="anchor:a")
    assert sentences(running) == ["a (trial 0) is left out of the comparison: it has no score yet"]


def test_a_network_that_was_only_timed_is_compared_with_nothing():
    timed = build_record(0, 800.0, None, state="timed", origin="anchor:a")
    assert sentences(timed) == []


def test_an_anchor_that_was_cut_off_lives_on_under_the_retry_of_an_earlier_version():
    cut = build_interrupted(0, origin="anchor:a", arch=TINY)
    retry = build_record(1, 800.0, 0.6, origin="anchor:a", arch=TINY)
    (standing,) = Front.from_records([cut, retry, build_record(2, 900.0, 0.7)]).standings
    assert (standing.name, standing.number, standing.verdict, standing.by) == ("a", 1, "beaten", 2)


def test_anchors_stand_in_the_order_of_their_trials():
    some = [build_record(i, 100.0 * (i + 1), 0.5, origin=f"anchor:{name}") for i, name in enumerate("abc")]
    assert [standing.name for standing in Front.from_records(some).standings] == ["a", "b", "c"]
    assert [standing.by for standing in Front.from_records(some).standings] == [2, 2, None]


def build_baseline(number, images_per_s, value, name="swift", **fields):
    """A trial of timm's network of that name."""
    subject = Subject(timm=name)
    return build_record(number, images_per_s, value, origin=f"baseline:{name}", subject=subject, **fields)


def test_a_baseline_is_beaten_as_an_anchor_is():
    (standing,) = Front.from_records([build_baseline(0, 800.0, 0.6), build_record(1, 900.0, 0.75)]).standings
    assert (standing.kind, standing.name, standing.verdict, standing.by) == ("baseline", "timm:swift", "beaten", 1)
    assert standing.sentence() == (
        "trial 1 beats timm:swift (trial 0): 1.12 x its images/s, +15.0 ± 6.4 points of proxy top-1"
    )


def test_a_baseline_that_none_beats_is_not_on_the_front_all_the_same():
    baseline = build_baseline(0, 2000.0, 0.9)
    assert sentences(baseline, build_record(1)) == [
        "no trial beats timm:swift (trial 0): none is as fast and as accurate"
    ]
    assert Front.from_records([baseline, build_record(1)]).standings[0].verdict == "not beaten"


def test_a_baseline_that_failed_is_left_out_with_the_reason():
    failed = build_baseline(0, None, None, state="failed", reason="the worker died")
    assert sentences(failed, build_record(1)) == ["timm:swift (trial 0) is left out of the comparison: the worker died"]


def test_a_baseline_that_was_cut_off_is_compared_by_its_second_trial():
    cut = interrupt(build_baseline(0, 800.0, None, state="running"))
    (standing,) = Front.from_records([cut, build_baseline(1, 800.0, 0.6), build_record(2, 900.0, 0.7)]).standings
    assert (standing.number, standing.by) == (1, 2)


def test_a_narrow_lead_over_a_reference_is_told_with_its_probability():
    (standing,) = Front.from_records([build_baseline(0, 880.0, 0.60), build_record(1, 900.0, 0.61)]).standings
    assert 0.3 < standing.probability < 0.95
    assert standing.verdict == "not beaten"
    assert standing.sentence() == (
        "trial 1: 1.02x the images/s of timm:swift (trial 0), top-1 not distinguishable (+1.0 ± 6.7 points), both "
        f"better with a probability of {standing.probability:.0%}"
    )


def test_a_trade_off_states_a_score_that_is_not_distinguishable():
    baseline = build_baseline(3, 1000.0, 0.515, "litv2_small")
    own = build_record(6, 6300.0, 0.5)
    (standing,) = Front.from_records([baseline, own, build_record(7, 9000.0, 0.2)]).standings
    assert (standing.verdict, standing.by) == ("not beaten", 6)
    assert standing.sentence() == (
        "trial 6: 6.3x the images/s of timm:litv2_small (trial 3), top-1 not distinguishable (-1.5 ± 6.9 points)"
    )


def test_without_an_even_trade_the_loss_or_the_gain_is_stated():
    baseline = build_baseline(0, 1000.0, 0.6)
    assert sentences(baseline, build_record(1, 2000.0, 0.3), build_record(2, 3000.0, 0.2))[0].startswith(
        "trial 1: 2x the images/s of timm:swift (trial 0), -30.0 ±"
    )
    assert sentences(baseline, build_record(1, 500.0, 0.8))[0].startswith(
        "trial 1: 0.5x the images/s of timm:swift (trial 0), +20.0 ±"
    )


def at_chance(record):
    """The record with a score that guessing would give, too."""
    (score,) = record.scores
    return dataclasses.replace(record, scores=(dataclasses.replace(score, chance=0.1),))


def test_a_baseline_at_chance_is_beaten_by_nobody_and_says_so():
    baseline = at_chance(build_baseline(0, 800.0, 0.1))
    (standing,) = Front.from_records([baseline, build_record(1, 900.0, 0.75)]).standings
    assert (standing.verdict, standing.by, standing.probability) == ("did not train", None, None)
    assert "did not train" in standing.sentence()
    assert "beats" not in standing.sentence()


def test_a_network_at_chance_is_ignored_regardless_of_its_speed():
    guessing, trained = at_chance(build_record(1, 9000.0, 0.11)), build_record(2, 900.0, 0.75)
    assert Front.from_records([guessing, trained]).members == (trained,)
    assert 1 not in Front.from_records([guessing, trained]).probabilities()
    assert sentences(at_chance(build_record(0, 5.0, 0.3, origin="anchor:a")), guessing)[0].startswith(
        "no trial beats a (trial 0)"
    )


def test_baselines_do_not_beat_one_another():
    some = [build_baseline(0, 800.0, 0.6, "slow"), build_baseline(1, 900.0, 0.7, "swift"), build_record(2, 700.0, 0.5)]
    assert [standing.verdict for standing in Front.from_records(some).standings] == ["not beaten", "not beaten"]


def test_a_study_without_anchors_has_no_standings():
    assert Front.from_records([build_record(0)]).standings == ()
    assert Front.from_records([]).standings == ()


def test_a_loss_of_accuracy_is_told_with_its_sign():
    standing = Standing(name="a", number=0, verdict="beaten", by=1, speed_ratio=2.0, top1_gain=0.0, top1_gain_se=0.01)
    assert standing.sentence().endswith("2.00 x its images/s, +0.0 ± 2.0 points of proxy top-1")
