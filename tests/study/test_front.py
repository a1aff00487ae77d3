"""The front and the networks tied with it, compared by paired rounds if there are any, otherwise by intervals."""

import dataclasses
import math
from collections import Counter
from random import Random

import pytest
from builders import (
    build_arch,
    build_cohort,
    build_condition,
    build_failed,
    build_infeasible,
    build_measurement,
    build_record,
    build_score,
    demo_records,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from hilo_nas.measurement.intervals import normal_above_zero
from hilo_nas.study.comparison import SURE
from hilo_nas.study.front import Front, speed_hypervolume
from hilo_nas.study.pareto import dominates
from hilo_nas.study.records import Subject
from hilo_nas.study.states import TrialState


def probability_of_speed(own, other):
    """Returns the probability that the first of two trials is faster."""
    return Front.from_records([own, other]).probability_faster(own.number, other.number)


def probability_beats(own, other):
    """Returns the probability that the first of two trials is both faster and more accurate."""
    return Front.from_records([own, other]).probability_beats(own.number, other.number)


def numbers(some):
    return [record.number for record in some]


def exactly(images_per_s, **fields):
    """A measurement whose interval has no width."""
    return build_measurement(images_per_s, images_per_s_low=images_per_s, images_per_s_high=images_per_s, **fields)


def trial(number, measurement, value=0.5, se=0.001):
    """A complete trial with this measurement."""
    score = build_score(value, standard_error=se, n_val=10**6)
    return build_record(number, arch=build_arch(number), measurements=(measurement,), scores=(score,))


def cohort(*points, se=0.001, **options):
    """Trials of (images/s, top-1) that shared their rounds."""
    archs = [build_arch(i) for i in range(len(points))]
    found = build_cohort({arch.key(): speed for arch, (speed, _) in zip(archs, points, strict=True)}, **options)
    return [trial(i, found[arch.key()], points[i][1], se) for i, arch in enumerate(archs)]


def apart(some):
    """The same trials, as if each had been timed alone."""
    return [
        dataclasses.replace(r, measurements=(dataclasses.replace(r.measurement, cohort=f"alone-{r.number}"),))
        for r in some
    ]


def test_one_percent_in_every_round_is_distinguishable_even_if_intervals_overlap():
    fast, slow = cohort((1010.0, 0.9), (1000.0, 0.5))
    assert slow.measurement.images_per_s_high > fast.measurement.images_per_s_low
    assert probability_of_speed(fast, slow) > 0.99
    assert Front.from_records([fast, slow]).ties == {}
    assert 0.6 < probability_of_speed(*apart([fast, slow])) < 0.7
    assert Front.from_records(apart([fast, slow])).ties == {1: (0,)}


def test_paired_rounds_count_even_where_the_anchored_values_say_otherwise():
    fast, slow = cohort((1010.0, 0.9), (1000.0, 0.5))
    turned = dataclasses.replace(
        slow.measurement, ratio=1020.0 / slow.measurement.reference_images_per_s
    )  # the reference was slow just then
    assert probability_of_speed(fast, trial(1, turned)) > 0.99


@pytest.mark.parametrize("whose", ["the own rounds", "the other's rounds"])
def test_networks_timed_in_the_same_rounds_are_paired_whichever_was_the_candidate(whose):
    fast, slow = cohort((1010.0, 0.9), (1000.0, 0.5))
    (alone,) = apart([fast]) if whose == "the other's rounds" else apart([slow])
    if whose == "the own rounds":  # the faster one was the candidate, the slower one its rival
        candidate = dataclasses.replace(fast.measurement, beside={slow.key: slow.measurement.call_seconds})
        pair = trial(0, candidate), alone
    else:
        candidate = dataclasses.replace(slow.measurement, beside={fast.key: fast.measurement.call_seconds})
        pair = alone, trial(1, candidate)
    assert probability_of_speed(*pair) == probability_of_speed(fast, slow) > 0.99
    assert probability_of_speed(*reversed(pair)) == pytest.approx(1 - probability_of_speed(*pair))


def test_rounds_shared_only_with_a_third_network_pair_nothing():
    fast, slow = cohort((1010.0, 0.9), (1000.0, 0.5))
    beside = dataclasses.replace(fast.measurement, beside={build_arch(9).key(): fast.measurement.call_seconds})
    pair = [trial(0, beside), slow]
    assert probability_of_speed(*apart(pair)) == probability_of_speed(*apart([fast, slow]))


@pytest.mark.parametrize(("faster", "probability"), [(1.0, 0.5), (1.01, 0.637), (1.05, 0.958), (1.2, 1.0)])
def test_without_shared_rounds_each_speed_has_an_extra_error_of_two_percent(faster, probability):
    pair = trial(0, exactly(1000.0 * faster)), trial(1, exactly(1000.0))
    assert probability_of_speed(*pair) == pytest.approx(probability, abs=0.001)
    assert probability_of_speed(*reversed(pair)) == pytest.approx(1 - probability, abs=0.001)


def test_without_shared_rounds_intervals_add_to_the_doubt():
    wide = build_measurement(1100.0, images_per_s_low=1000.0, images_per_s_high=1200.0)
    error = math.hypot(100 / 1.96 / 1100, 0.02, 0.02)
    expected = normal_above_zero(math.log(1.1), error)
    assert probability_of_speed(trial(0, wide), trial(1, exactly(1000.0))) == pytest.approx(expected)
    assert expected < probability_of_speed(trial(0, exactly(1100.0)), trial(1, exactly(1000.0)))


def test_an_old_timing_without_an_interval_has_the_spread_of_a_round_instead():
    old = build_measurement(1100.0, images_per_s_spread=100.0, protocol=1)
    new = build_measurement(1100.0, images_per_s_low=1000.0, images_per_s_high=1200.0)
    other = trial(1, exactly(1000.0))
    assert probability_of_speed(trial(0, old), other) == probability_of_speed(trial(0, new), other)


def test_timings_that_name_no_cohort_share_none():
    some = [build_measurement(speed, cohort="", call_seconds=(1 / speed,) * 3) for speed in (1010.0, 1000.0)]
    assert probability_of_speed(trial(0, some[0]), trial(1, some[1])) < 0.7


def test_both_objectives_must_be_better_for_a_network_to_be_beaten():
    fast, slow = cohort((1010.0, 0.52), (1000.0, 0.50), se=0.02)
    sure = normal_above_zero(0.02, math.hypot(0.02, 0.02)) * probability_of_speed(fast, slow)
    assert probability_beats(fast, slow) == pytest.approx(sure, abs=1e-3)
    assert probability_beats(fast, slow) < SURE
    assert Front.from_records([fast, slow]).ties == {1: (0,)}


def test_of_equal_accuracy_none_is_surely_beaten():
    fast, slow = cohort((2000.0, 0.5), (1000.0, 0.5), se=0.0)
    assert probability_beats(fast, slow) == 0.5
    assert Front.from_records([fast, slow]).ties == {1: (0,)}


def test_a_network_that_is_clearly_beaten_is_tied_with_none():
    assert Front.from_records(cohort((1000.0, 0.9), (500.0, 0.5))).ties == {}
    assert Front.from_records(demo_records()[:4]).ties == {}


def test_a_tie_names_each_member_of_the_front_that_beats_it_by_its_values():
    some = cohort((1000.0, 0.50), (990.0, 0.60), (900.0, 0.70), (985.0, 0.49), (895.0, 0.69), se=0.05)
    assert numbers(Front.from_records(some).members) == [0, 1, 2]
    assert Front.from_records(some).ties == {3: (0, 1), 4: (2,)}
    assert list(Front.from_records(some).ties) == [3, 4]  # the fastest first


def test_one_that_beats_surely_is_enough():
    """The first member of the front may not be told from the network; the second beats it beyond doubt."""
    some = cohort((1000.0, 0.500), (990.0, 0.90), (900.0, 0.499), se=0.01)
    assert probability_beats(some[0], some[2]) < SURE < probability_beats(some[1], some[2])
    assert Front.from_records(some).ties == {}


def test_only_complete_and_scored_trials_are_tied():
    best = build_record(0, 1000.0, 0.9)
    others = [
        build_infeasible(1, 999.0),
        build_failed(2),
        build_record(3, 999.0, None),
        build_record(4, None, 0.9),
        build_record(5, 999.0, 0.9, state="running"),
    ]
    assert Front.from_records([best, *others]).ties == {}
    assert numbers(Front.from_records([best, *others]).near(at_most=9)) == [0]
    assert Front.from_records([]).ties == {}
    assert Front.from_records([]).near(at_most=3) == []


POINTS = st.lists(
    st.tuples(st.sampled_from([900.0, 980.0, 1000.0, 1010.0]), st.sampled_from([0.4, 0.5, 0.52])), max_size=7
)


@settings(max_examples=40, deadline=None)
@given(POINTS, st.booleans(), st.randoms())
def test_no_member_of_the_front_is_tied_and_the_order_does_not_matter(points, are_paired, random):
    some = cohort(*points, se=0.02, rounds=4)
    some = some if are_paired else apart(some)
    front, ties = Front.from_records(some).members, Front.from_records(some).ties
    values = {r.number: (r.measurement.images_per_s, r.score.value) for r in some}
    assert not set(numbers(front)) & set(ties)
    for number, rivals in ties.items():
        assert rivals
        assert set(rivals) <= set(numbers(front))
        assert all(dominates(values[rival], values[number]) for rival in rivals)
        assert all(probability_beats(rival, some[number]) < SURE for rival in front)
    for record in some:
        if record.number not in ties and record not in front:
            assert any(probability_beats(rival, record) >= SURE for rival in front)
    shuffled = random.sample(some, len(some))
    assert {number: set(rivals) for number, rivals in Front.from_records(shuffled).ties.items()} == {
        number: set(rivals) for number, rivals in ties.items()
    }
    assert set(numbers(Front.from_records(shuffled).near(at_most=20))) == {*numbers(front), *ties}


def test_near_the_front_are_its_members_and_their_ties_the_fastest_first():
    some = cohort((1000.0, 0.50), (985.0, 0.49), (900.0, 0.70), (895.0, 0.69), (400.0, 0.2), se=0.05)
    assert numbers(Front.from_records(some).near(at_most=16)) == [0, 1, 2, 3]


def test_with_too_many_ties_the_hardest_to_distinguish_are_kept():
    some = cohort((1000.0, 0.50), (999.9, 0.499), (980.0, 0.45), (995.0, 0.48), se=0.05)
    assert set(Front.from_records(some).ties) == {1, 2, 3}
    assert numbers(Front.from_records(some).near(at_most=2)) == [0, 1]
    assert numbers(Front.from_records(some).near(at_most=3)) == [0, 1, 3]
    assert numbers(Front.from_records(some).near(at_most=4)) == [0, 1, 3, 2]


def test_a_long_front_is_never_cut_and_leaves_no_room_for_ties():
    some = cohort((1000.0, 0.50), (900.0, 0.60), (800.0, 0.70), (999.0, 0.499), se=0.05)
    assert numbers(Front.from_records(some).near(at_most=2)) == [0, 1, 2]


def seeded(number, images_per_s, *top1s, se=0.0, **fields):
    """Returns a complete trial with one seed per top-1, timed alone and without an interval."""
    some = tuple(build_score(top1, standard_error=se, n_val=10**6, seed=seed) for seed, top1 in enumerate(top1s))
    values = {"arch": build_arch(number), "measurements": (exactly(images_per_s),), "scores": some}
    return build_record(number, **{**values, **fields})


def test_clear_cut_networks_are_surely_on_the_front_or_surely_not():
    some = [seeded(0, 1000.0, 0.5), seeded(1, 500.0, 0.8), seeded(2, 400.0, 0.4)]
    assert Front.from_records(some).probabilities() == {0: 1.0, 1: 1.0, 2: 0.0}


@pytest.mark.parametrize(("faster", "gain", "se"), [(1.0, 0.0, 0.01), (1.02, 0.01, 0.01), (1.03, 0.0, 0.02)])
def test_of_two_networks_the_probability_is_that_the_other_does_not_beat_it(faster, gain, se):
    pair = trial(0, exactly(1000.0 * faster), 0.5 + gain, se), trial(1, exactly(1000.0), 0.5, se)
    found = Front.from_records(pair).probabilities(draws=20_000)
    assert found[0] == pytest.approx(1 - probability_beats(*reversed(pair)), abs=0.015)
    assert found[1] == pytest.approx(1 - probability_beats(*pair), abs=0.015)


def test_probabilities_have_the_documented_standard_error():
    pair = trial(0, exactly(1000.0), 0.5, 0.01), trial(1, exactly(1000.0), 0.5, 0.01)
    several = [Front.from_records(pair).probabilities(seed=seed)[0] - 0.75 for seed in range(40)]
    assert 0.5 < math.sqrt(sum(e * e for e in several) / 40) / math.sqrt(0.75 * 0.25 / 1000) < 1.5


def test_networks_of_shared_rounds_share_what_differs_between_timings():
    """Two per cent that hit both change nothing of who is faster."""
    pair = cohort((1020.0, 0.52), (1000.0, 0.50), se=0.001)
    quiet = [
        dataclasses.replace(
            r,
            measurements=(
                dataclasses.replace(
                    r.measurement,
                    ratio_low=r.measurement.ratio * 0.999,
                    ratio_high=r.measurement.ratio * 1.001,
                ),
            ),
        )
        for r in pair
    ]
    assert Front.from_records(quiet).probabilities()[1] == 0.0
    assert Front.from_records(apart(quiet)).probabilities()[1] == pytest.approx(0.24, abs=0.05)


def test_probabilities_do_not_depend_on_the_order_of_records_and_leave_out_what_has_none():
    some = cohort((1000.0, 0.50), (990.0, 0.51), (900.0, 0.52), (985.0, 0.49), se=0.02)
    others = [build_infeasible(7), build_failed(8), build_record(9, 5000.0, 0.9, state="stopped")]
    found = Front.from_records(some).probabilities()
    assert Front.from_records([*others, *reversed(some)]).probabilities() == found
    assert set(found) == {0, 1, 2, 3}
    assert 0 < min(found.values()) < max(found.values()) < 1
    assert Front.from_records(others).probabilities() == {}


def test_the_noise_of_seeds_is_pooled_over_all_networks_that_have_several():
    some = [seeded(0, 1000.0, 0.50, 0.52), seeded(1, 900.0, 0.60, 0.61, 0.62), seeded(2, 800.0, 0.7)]
    assert Front.from_records(some).seed_noise == pytest.approx(math.sqrt((0.0002 + 0.0002) / 3))
    assert (
        Front.from_records([*some, seeded(3, 700.0, 0.1, 0.9, state="stopped")]).seed_noise
        == Front.from_records(some).seed_noise
    )
    assert Front.from_records(some[2:]).seed_noise == Front.from_records([]).seed_noise == 0.0


def test_seeds_of_a_lower_rung_are_not_used_for_the_full_budget():
    rungs = tuple(build_score(top1, seed=seed, images_seen=1024) for seed, top1 in enumerate((0.1, 0.3)))
    record = seeded(0, 1000.0, 0.5)
    assert Front.from_records([dataclasses.replace(record, scores=(*rungs, *record.scores))]).seed_noise == 0.0


def test_the_error_of_a_single_seed_includes_the_pooled_noise_and_several_seeds_reduce_it():
    some = [
        seeded(0, 1000.0, 0.50, 0.52, se=0.003),
        seeded(1, 900.0, 0.6, 0.6, se=0.003),
        seeded(2, 800.0, 0.7, se=0.004),
    ]
    noise = 0.01
    assert Front.from_records(some).seed_noise == pytest.approx(noise)
    assert Front.from_records(some).standard_errors == {
        0: pytest.approx(math.hypot(0.003, noise / math.sqrt(2)), rel=1e-3),
        1: pytest.approx(
            math.hypot(0.003, noise / math.sqrt(2)), rel=1e-3
        ),  # not certain because two seeds agreed by chance
        2: pytest.approx(math.hypot(0.004, noise), rel=1e-3),
    }


def test_without_further_seeds_or_with_one_network_alone_errors_are_the_scores_own():
    single = [seeded(0, 1000.0, 0.5, se=0.003), seeded(1, 900.0, 0.6, se=0.004)]
    assert Front.from_records(single).standard_errors == pytest.approx({0: 0.003, 1: 0.004}, rel=1e-3)
    alone = seeded(0, 1000.0, 0.50, 0.53, 0.51, se=0.003)
    assert Front.from_records([alone]).standard_errors[0] == pytest.approx(alone.score.standard_error, rel=1e-3)


def test_the_noise_of_seeds_makes_ties_of_what_one_seed_seemed_to_decide():
    beaten = [seeded(0, 1200.0, 0.55, se=0.005), seeded(1, 800.0, 0.53, se=0.005)]
    assert Front.from_records(beaten).ties == {}
    noisy = seeded(2, 600.0, 0.90, 0.96, se=0.005)
    assert Front.from_records([*beaten, noisy]).ties == {1: (0,)}
    assert (
        Front.from_records([*beaten, noisy]).probabilities()[1] > 10 * Front.from_records(beaten).probabilities()[1] > 0
    )


def test_a_perfect_score_on_few_images_has_an_error():
    perfect, good = (
        build_record(i, 1000.0 + i, scores=(build_score(top1, n_val=8, standard_error=0.0, chance=0.1),))
        for i, top1 in enumerate((1.0, 0.875))
    )
    (error,) = Front.from_records([perfect]).standard_errors.values()
    assert error == pytest.approx(0.083, abs=0.001)  # half of Wilson's .676 to 1, over 1.96
    assert 0.5 < Front.from_records([good, perfect]).probabilities()[0] < 0.99


def test_contended_rounds_are_weaker_evidence_of_which_network_is_faster():
    keys = [build_arch(i).key() for i in (0, 1)]
    busy = {"cores": 2, "others_cores": 1.0, "quietest": {"others_cores": 1.0}}
    probabilities = []
    for state in ({}, busy):
        found = build_cohort({keys[0]: 1100.0, keys[1]: 1000.0}, device_state=state)
        one, two = (build_record(i, 1000.0, 0.5, arch=build_arch(i), measurements=(found[keys[i]],)) for i in (0, 1))
        probabilities.append(probability_of_speed(one, two))
    quiet, loaded = probabilities
    assert quiet > 0.99
    assert 0.5 < loaded < 0.7


@st.composite
def studies(draw):
    """Up to seven trials: candidates in shared rounds or alone, one or two seeds each, stopped ones, and baselines."""
    points = draw(POINTS)
    some = cohort(*points, se=0.02, rounds=4)
    some = some if draw(st.booleans()) else apart(some)
    changed = []
    for record in some:
        kind = draw(st.sampled_from(["candidate"] * 4 + ["seeds", "stopped", "baseline", "guessing"]))
        (score,) = record.scores
        if kind == "seeds":
            again = dataclasses.replace(score, seed=1, value=score.value + draw(st.sampled_from([-0.03, 0.0, 0.02])))
            record = dataclasses.replace(record, scores=(score, again))
        elif kind == "stopped":
            record = dataclasses.replace(record, state=TrialState.STOPPED)
        elif kind == "baseline":
            name = f"net{record.number}"
            record = dataclasses.replace(record, subject=Subject(timm=name), origin=f"baseline:{name}")
        elif kind == "guessing":
            record = dataclasses.replace(record, scores=(dataclasses.replace(score, chance=0.9),))
        changed.append(record)
    return changed


def said(front):
    """All that a front says."""
    return (
        numbers(front.members),
        numbers(front.records),
        numbers(front.candidates),
        numbers(front.baselines),
        numbers(front.untrained),
        list(front.ties.items()),
        numbers(front.near(at_most=4)),
        front.seed_noise,
        dict(front.standard_errors),
        dict(front.half_widths),
        front.standings,
        dict(front.probabilities(draws=50)),
        front.hypervolume((100.0, 0.0)),
    )


@settings(max_examples=40, deadline=None)
@given(studies(), st.randoms())
def test_a_front_says_the_same_in_any_order_and_however_it_came_about(some, random):
    whole = said(Front.from_records(some))
    assert said(Front.from_records(random.sample(some, len(some)))) == whole
    grown = Front.from_records([])
    for record in random.sample(some, len(some)):  # each first under way, as a search writes it
        grown = grown.updated(dataclasses.replace(record, state=TrialState.RUNNING, scores=())).updated(record)
    assert said(grown) == whole


@settings(max_examples=40, deadline=None)
@given(studies(), studies())
def test_a_front_follows_records_that_change(some, others):
    front = Front.from_records(some)
    front.probabilities(draws=50)
    changed = {record.number: record for record in some} | {record.number: record for record in others}
    for record in others:
        front = front.updated(record)
    assert said(front) == said(Front.from_records(changed.values()))


@settings(max_examples=40, deadline=None)
@given(studies())
def test_members_and_ties_are_those_that_comparing_all_pairs_finds(some):
    front = Front.from_records(some)
    scored = [r for r in some if r.state == TrialState.COMPLETE and not r.is_baseline and r.has_trained]
    values = {r.number: (r.measurement.images_per_s, r.score.value) for r in scored}
    members = {n for n, own in values.items() if not any(dominates(other, own) for other in values.values())}
    assert set(numbers(front.members)) == members
    assert [-values[n][0] for n in numbers(front.members)] == sorted(-values[n][0] for n in members)
    tied = {n for n in values if n not in members and all(front.probability_beats(m, n) < SURE for m in members)}
    assert set(front.ties) == tied
    for number in tied:
        beaten_by = [m for m in numbers(front.members) if dominates(values[m], values[number])]
        assert list(front.ties[number]) == beaten_by != []


def by_one_draw_after_another(front, draws):
    """P(front), slowly: each draw is compared pair by pair. For networks that shared no rounds."""
    random, wins = Random(0), Counter()
    points = {
        record.number: (math.log(record.measurement.images_per_s), record.measurement, record.score.value)
        for record in front.candidates
    }
    for _ in range(draws):
        drawn = {
            number: (
                random.gauss(speed, math.hypot(timing.half_width / 1.96 / timing.images_per_s, 0.02)),
                random.gauss(value, front.standard_errors[number]),
            )
            for number, (speed, timing, value) in points.items()
        }
        wins.update(n for n, own in drawn.items() if not any(dominates(other, own) for other in drawn.values()))
    return {number: wins[number] / draws for number in points}


def test_the_simulation_counts_what_drawing_one_by_one_counts():
    some = apart(cohort((1000.0, 0.50), (990.0, 0.51), (900.0, 0.52), (985.0, 0.49), (300.0, 0.1), se=0.02))
    front = Front.from_records(some)
    slowly, found = by_one_draw_after_another(front, 4000), front.probabilities(draws=20_000)
    assert found == {number: pytest.approx(p, abs=0.035) for number, p in slowly.items()}
    assert found[4] == 0.0


def test_a_network_excluded_from_the_simulation_changes_no_probability():
    some = cohort((1000.0, 0.50), (990.0, 0.51), (900.0, 0.52), se=0.02)
    hopeless = trial(9, exactly(50.0), 0.05)
    assert Front.from_records([*some, hopeless]).probabilities() == {**Front.from_records(some).probabilities(), 9: 0.0}


def test_probabilities_are_cached_until_a_record_changes():
    some = cohort((1000.0, 0.50), (990.0, 0.51), se=0.02)
    front = Front.from_records(some)
    assert front.probabilities() is front.probabilities()
    assert front.updated(trial(7, exactly(5000.0), 0.9)).probabilities() == {0: 0.0, 1: 0.0, 7: 1.0}


def test_a_front_under_another_condition_counts_the_speeds_taken_there():
    single = build_condition(batch_size=1)
    timings = {0: (1000.0, 10.0), 1: (900.0, 40.0)}
    some = [
        build_record(i, measurements=(exactly(batch), exactly(one, condition=single)), value=0.5 + i / 100)
        for i, (batch, one) in timings.items()
    ]
    alone = build_record(2, 9000.0, 0.9)
    assert numbers(Front.from_records([*some, alone]).members) == [2]
    assert numbers(Front.from_records([*some, alone], single.label()).members) == [1]
    assert Front.from_records(some, single.label()).probability_faster(1, 0) > 0.99


def test_hypervolume_is_over_log_images_per_s_and_value():
    some = [trial(0, exactly(1000.0), 0.5), trial(1, exactly(100.0), 0.8), trial(2, exactly(90.0), 0.4)]
    expected = math.log(10) * 0.8 + (math.log(100) - math.log(10)) * 0.5
    assert Front.from_records(some).hypervolume((10.0, 0.0)) == pytest.approx(expected)
    faster = [(10 * r.measurement.images_per_s, r.score.value) for r in some]
    assert speed_hypervolume(faster, (100.0, 0.0)) == pytest.approx(expected)  # the unit of a speed does not matter
    assert Front.from_records(some).hypervolume((2000.0, 0.0)) == 0.0
