import math
from random import Random

import pytest
from builders import build_manifest, fresh, write_study
from fakes import RESOURCES, FakeMachine
from hypothesis import given, settings
from hypothesis import strategies as st

from hilo_nas.errors import SpaceExhaustedError, UsageError
from hilo_nas.searching.configuration.search_config import SAMPLERS, SearchConfig
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.searching.sampling.nearby import find_near
from hilo_nas.searching.sampling.optuna_study import OptunaStudy
from hilo_nas.searching.sampling.samplers import build_sampler
from hilo_nas.space import load_space
from hilo_nas.space.space_file import build_space
from hilo_nas.study.pareto import hypervolume
from hilo_nas.study.stored_study import StoredStudy

DIGITS = load_space("litv2_digits")


def never(params):
    return False


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_an_allowed_and_new_proposal_is_left_alone(seed):
    proposal = DIGITS.sample(Random(seed))
    assert find_near(DIGITS, proposal, excess=lambda p: 0.0, is_known=never, random=Random(0)) == proposal


@given(st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_a_known_proposal_moves_by_one_step_where_that_is_enough(seed):
    proposal = DIGITS.sample(Random(seed))
    found = find_near(DIGITS, proposal, excess=lambda p: 0.0, is_known=lambda p: p == proposal, random=Random(seed))
    assert sum(abs(found[name] - proposal[name]) for name in proposal) == 1


def test_a_proposal_beyond_a_limit_moves_to_one_within():
    largest = {name: n - 1 for name, n in DIGITS.dimensions.items()}

    def excess(params):
        return sum(params.values()) - 6.0

    found = find_near(DIGITS, largest, excess=excess, is_known=never, random=Random(0))
    assert sum(found.values()) == 6


def test_the_last_network_of_a_large_known_space_is_found():
    last = dict.fromkeys(DIGITS.dimensions, 0)
    start = {name: n - 1 for name, n in DIGITS.dimensions.items()}
    found = find_near(DIGITS, start, excess=lambda p: 0.0, is_known=lambda p: p != last, random=Random(0))
    assert found == last


def test_a_space_without_anything_allowed_is_exhausted():
    with pytest.raises(SpaceExhaustedError):
        find_near(DIGITS, DIGITS.sample(Random(0)), excess=lambda p: 1.0, is_known=never, random=Random(0))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_proposes_only_new_networks_within_the_limits(tmp_path, sampler):
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"params_m": 0.7}})
    folder = write_study(tmp_path, manifest=build_manifest(space=space, sampler=sampler, trials=26))
    SearchLoop(fresh(folder), fresh(folder).manifest, FakeMachine(), RESOURCES, lambda event: None).run()
    records = [record for record in fresh(folder).records if record.state != "timed"]
    assert len({record.key for record in records}) == 26
    assert all(record.parameters <= 0.7e6 for record in records)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("verb", ["measure", "score"])
def test_a_search_that_was_cut_off_proposes_what_an_uninterrupted_one_does(tmp_path, sampler, verb):
    def interrupt(what, count):
        if (what, count) == (verb, 12):
            raise KeyboardInterrupt

    def search(name, machine):
        folder = StoredStudy(tmp_path / name)
        SearchLoop(fresh(folder), fresh(folder).manifest, machine, RESOURCES, lambda event: None).run()
        return [record.key for record in fresh(folder).records if record.origin == "sampler" and record.scores]

    for name in ("whole", "cut"):
        write_study(tmp_path, name, manifest=build_manifest(name, sampler=sampler, trials=16))
    with pytest.raises(KeyboardInterrupt):
        search("cut", FakeMachine(interrupt))
    whole = search("whole", FakeMachine())
    assert search("cut", FakeMachine()) == whole
    assert len(set(whole)) == len(whole) > 12


def test_nsga2_remembers_its_generations_in_the_records(tmp_path):
    folder = write_study(tmp_path, manifest=build_manifest(sampler="nsga2", trials=45))
    SearchLoop(fresh(folder), fresh(folder).manifest, FakeMachine(), RESOURCES, lambda event: None).run()
    records = fresh(folder).records
    generations = [record.sampler_memory.get("NSGAIISampler:generation") for record in records]
    assert max(g for g in generations if g is not None) >= 1
    study = OptunaStudy(fresh(folder).manifest.space, build_sampler("nsga2", 0))
    study.update(records)
    assert [trial.system_attrs.get("NSGAIISampler:generation") for trial in study.trials] == generations


@pytest.mark.slow
def test_the_default_sampler_finds_more_of_the_front_than_chance(tmp_path):
    volumes = {}
    for sampler in ("gp", "random"):
        folder = write_study(tmp_path, sampler, manifest=build_manifest(sampler, sampler=sampler, trials=30))
        loop = SearchLoop(fresh(folder), fresh(folder).manifest, FakeMachine(), RESOURCES, lambda event: None)
        loop.run()
        points = [(math.log(r.measurement.images_per_s), r.score.value) for r in loop.records]
        volumes[sampler] = hypervolume(points, (math.log(100), 0.1))
    assert volumes["gp"] > volumes["random"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 0}, "trials must be at least 1, but got 0"),
        ({"until_trials": -3}, "until_trials must be at least 1, but got -3"),
        ({"trials": 1, "until_trials": 2}, "not both"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"sampler": "magic"}, "sampler must be one of hilo, gp, tpe, nsga2, random, but got 'magic'"),
        ({"timeout_s": 0.0}, "search.timeout_s must be a number above 0"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        SearchConfig.of(**options)


def test_all_faults_of_a_request_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        SearchConfig.of(trials=0, threads=-1, sampler="x")
    assert len(str(caught.value).split("\n")) == 3
