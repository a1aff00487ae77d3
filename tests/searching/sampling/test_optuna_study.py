"""The Optuna study in memory follows from the records: trial by trial, or from scratch where an earlier one changed."""

import dataclasses
import functools
import math
from random import Random

import pytest
from builders import build_failed, build_infeasible, build_record
from optuna.samplers import RandomSampler

from hilo_nas.searching.sampling.optuna_study import OptunaStudy
from hilo_nas.searching.sampling.samplers import FeasibleSampler, build_sampler
from hilo_nas.space import load_space
from hilo_nas.study.records import FITS, Subject

DIGITS = load_space("litv2_digits")


def spell(record):
    return dataclasses.replace(record, params=DIGITS.encode(record.subject.arch))


def build_study(**options):
    return OptunaStudy(DIGITS, RandomSampler(seed=0), **options)


def told(study):
    return [(trial.state.name, trial.values, trial.params, trial.constraints) for trial in study.trials]


@pytest.fixture
def records():
    return [spell(build_record(i, 1000.0 + i, 0.5 + i / 50)) for i in range(5)]


def test_trials_are_added_as_records_end_and_equal_those_from_scratch(records):
    grown = build_study()
    for count in range(len(records) + 1):
        grown.update(records[:count])
    trials = grown.trials
    whole = build_study()
    whole.update(records)
    assert told(grown) == told(whole)
    assert [trial.values for trial in trials] == [[math.log(1000.0 + i), 0.5 + i / 50] for i in range(5)]
    grown.update([dataclasses.replace(record) for record in records])  # read anew, and the same
    assert all(new is old for new, old in zip(grown.trials, trials, strict=True))


def test_a_proposal_runs_until_its_record_ends(records):
    study = build_study()
    proposal = study.propose(records)
    subject = Subject(arch=DIGITS.decode(proposal.params))
    running = build_record(5, None, None, state="running", subject=subject, params=proposal.params)
    study.update([*records, running])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5 + ["RUNNING"]
    study.update([*records, build_record(5, 800.0, 0.9, subject=subject, params=proposal.params)])
    assert study.trials[-1].values == [math.log(800.0), 0.9]
    assert len(study.trials) == 6


def test_several_proposals_may_run_and_end_in_any_order(records):
    study, some = build_study(), list(records)
    for number in range(5, 8):
        params = study.propose(some).params
        subject = Subject(arch=DIGITS.decode(params))
        some.append(build_record(number, None, None, state="running", subject=subject, params=params))
    for number in (6, 5, 7):
        some[number] = build_record(
            number, 500.0 + number, 0.7, subject=some[number].subject, params=some[number].params
        )
        study.update(some)
    whole = build_study()
    whole.update(some)
    assert told(study) == told(whole)
    assert {trial.state.name for trial in study.trials} == {"COMPLETE"}


def propose_beside(sampler, records, *, running):
    """A proposal after these records, and the next one while the first may still run; nothing else differs."""
    space = load_space("litv2_cifar")
    feasible = FeasibleSampler(
        functools.partial(build_sampler, sampler),
        space,
        excess=lambda params: 0.0,
        is_known=lambda params: False,
        seed=0,
        count_proposals=lambda: 0,
    )
    random = Random(0)
    known = [
        dataclasses.replace(record, params={name: random.randrange(n) for name, n in space.dimensions.items()})
        for record in records
    ]
    first = OptunaStudy(space, feasible).propose(known).params
    if running:
        known.append(build_record(len(known), None, None, state="running", params=first))
    return first, OptunaStudy(space, feasible).propose(known).params


@pytest.mark.parametrize(("sampler", "sees"), [("tpe", True), ("gp", True), ("nsga2", False), ("random", False)])
def test_tpe_and_gp_propose_something_else_because_a_trial_is_running(sampler, sees):
    records = [build_record(i, 1000.0 + 37 * (i * 7 % 12), 0.5 + (i * 5 % 12) / 50) for i in range(12)]
    first, again = propose_beside(sampler, records, running=False)
    assert first == again
    first, beside = propose_beside(sampler, records, running=True)
    assert (beside != first) == sees


def test_a_proposal_that_failed_tells_a_sampler_nothing(records):
    study = build_study()
    params = study.propose(records).params
    study.update([*records, build_failed(5, subject=Subject(arch=DIGITS.decode(params)), params=params)])
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5 + ["FAIL"]


@pytest.mark.parametrize("place", [0, 2])
def test_an_earlier_record_that_changed_rebuilds_the_study(records, place):
    study = build_study()
    study.update(records)
    records[place] = spell(build_record(place, 77.0, 0.5))
    study.update(records)
    assert study.trials[place].values == [math.log(77.0), 0.5]
    assert len(study.trials) == 5


def test_limits_that_a_formula_decides_are_no_constraints(records):
    limits = {"params_m": 0.7, "gmacs": 1.0, "latency_ms": 20.0, "latency_ms@cpu-b1": 3.0}
    records[1] = dataclasses.replace(records[1], violations=dict.fromkeys(limits, -0.1))
    study = build_study(limits=limits)
    study.update(records)
    assert {frozenset(trial.constraints) for trial in study.trials} == {frozenset({"latency_ms", "latency_ms@cpu-b1"})}
    assert study.trials[1].constraints == {"latency_ms": -0.1, "latency_ms@cpu-b1": -0.1}
    free = build_study(limits={"params_m": 0.7})
    free.update(records)
    assert not any(trial.constraints for trial in free.trials)


def test_the_first_network_that_did_not_fit_adds_a_constraint_to_all(records):
    study = build_study(limits={})
    study.update(records)
    imputed = {"images_per_s": 900.0, "value": 0.5}
    records.append(spell(build_infeasible(5, None, violations={FITS: 1.0}, imputed=imputed)))
    study.update(records)
    assert [trial.constraints for trial in study.trials] == [{FITS: -1.0}] * 5 + [{FITS: 1.0}]


def test_a_baseline_tells_a_sampler_nothing(records):
    study = build_study()
    study.update([*records, build_record(5, subject=Subject(timm="resnet18"))])
    assert len(study.trials) == 5
