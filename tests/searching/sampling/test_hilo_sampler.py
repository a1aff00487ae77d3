import math
import pickle
from random import Random

import optuna
import pytest
from builders import TINY, digits
from fakes import speed, top1
from known_networks import draw_archs
from optuna.trial import TrialState

import hilo_nas
from hilo_nas import HiloSampler
from hilo_nas.arch.cost import count_params
from hilo_nas.errors import SpaceExhaustedError, UsageError
from hilo_nas.searching.sampling.samplers import distributions_of
from hilo_nas.space.space_file import build_space
from hilo_nas.study.pareto import hypervolume

DIGITS = digits()


@pytest.fixture(autouse=True)
def _quiet_optuna():
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(level)


def small(**fields):
    """A space of eight networks."""
    content = {**DIGITS.to_dict(), "embed_dims": [8, 16, 24, 32], "mlp_ratios": [2, 4], "alpha": [0.5]}
    content |= {"depths": [[1], [1], [1], [1]], "window_size": [[1], [1], [1], [1]], "anchors": {}}
    return build_space("small", {**content, **fields})


def build(space=DIGITS, **options):
    return HiloSampler(space, **{"img_size": 32, "num_classes": 10, "chance": 0.1, "seed": 0, **options})


def study_of(sampler, **options):
    return optuna.create_study(directions=["maximize", "maximize"], sampler=sampler, **options)


def arch_of(trial, space=DIGITS):
    return space.decode({name: trial.params[name] for name in space.dimensions})


def evaluate(arch):
    return speed(arch), top1(arch)


def ask(study, space=DIGITS):
    return study.ask(distributions_of(space))


def search(study, trials, space=DIGITS):
    """Runs trials by ask and tell, and returns the keys of the networks."""
    for _ in range(trials):
        trial = ask(study, space)
        study.tell(trial, evaluate(arch_of(trial, space)))
    return [arch_of(trial, space).key() for trial in study.trials]


def test_the_sampler_is_public():
    assert hilo_nas.HiloSampler is HiloSampler


def test_a_study_runs_with_ask_and_tell():
    keys = search(study_of(build()), 12)
    assert len(set(keys)) == 12


@pytest.mark.parametrize("jobs", [1, 3])
def test_a_study_runs_with_optimize(jobs):
    def objective(trial):
        return evaluate(
            DIGITS.decode({name: trial.suggest_int(name, 0, n - 1) for name, n in DIGITS.dimensions.items()})
        )

    study = study_of(build())
    study.optimize(objective, n_trials=12, n_jobs=jobs)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 12
    assert len({arch_of(trial).key() for trial in study.trials}) == 12


def test_an_equal_seed_gives_equal_proposals():
    first, second, other = (search(study_of(build(seed=seed)), 10) for seed in (1, 1, 2))
    assert first == second
    assert first != other


def test_a_sampler_that_was_pickled_or_built_anew_goes_on_as_before():
    whole = search(study_of(build()), 10)
    study = study_of(build())
    search(study, 6)
    study.sampler = pickle.loads(pickle.dumps(study.sampler))
    search(study, 2)
    study.sampler = build()
    assert search(study, 2) == whole


def test_without_a_seed_samplers_differ():
    assert search(study_of(build(seed=None)), 4) != search(study_of(build(seed=None)), 4)


def test_each_network_is_proposed_once_until_the_space_is_exhausted():
    space = small()
    study = study_of(build(space))
    assert len(set(search(study, 8, space))) == 8
    with pytest.raises(SpaceExhaustedError):
        ask(study, space)


def test_running_trials_are_not_proposed_again():
    """They are asked without parameters, so that the study knows none of them yet."""
    space = small()
    study = study_of(build(space))
    running = [study.ask() for _ in range(8)]
    params = [{name: trial.suggest_int(name, 0, n - 1) for name, n in space.dimensions.items()} for trial in running]
    assert len({space.decode(own).key() for own in params}) == 8


def test_networks_that_failed_or_were_pruned_or_queued_are_not_proposed_again():
    space = small()
    study = study_of(build(space))
    study.enqueue_trial(dict.fromkeys(space.dimensions, 0))
    queued = study.ask()
    states = [TrialState.FAIL, TrialState.PRUNED, TrialState.FAIL]
    for state in states:
        study.tell(ask(study, space), state=state)
    search_on = [ask(study, space) for _ in range(4)]
    zero = space.decode(dict.fromkeys(space.dimensions, 0)).key()
    others = [arch_of(trial, space).key() for trial in study.trials if trial.number != queued.number]
    assert len(search_on) == 4
    assert len(set(others)) == 7
    assert zero not in others


@pytest.mark.parametrize("seed", [0, 1])
def test_networks_that_fail_are_avoided(seed):
    """Widths have no part in the score, but wide networks may fail."""
    speeds = {arch: 1000.0 + i for i, arch in enumerate(draw_archs(60))}
    wide = {}
    for fails in (False, True):
        study = study_of(build(speeds=speeds, seed=seed))
        for _ in range(30):
            trial = ask(study)
            arch = arch_of(trial)
            if fails and arch.embed_dims[0] >= 24:
                study.tell(trial, state=TrialState.FAIL)
            else:
                study.tell(trial, (1000.0, 0.5 + arch.depths[2] / 40))
        wide[fails] = sum(arch_of(trial).embed_dims[0] >= 24 for trial in study.trials[10:])
    assert wide[True] < 0.7 * wide[False]


@pytest.mark.parametrize("by_key", [False, True])
def test_only_networks_of_known_speed_are_proposed(by_key):
    archs = draw_archs(15)
    speeds = {arch.key() if by_key else arch: speed(arch) for arch in archs}
    study = study_of(build(speeds=speeds))
    assert set(search(study, 15)) == {arch.key() for arch in archs}
    with pytest.raises(SpaceExhaustedError):
        ask(study)


def test_known_speeds_decide_about_proposals():
    """Of two networks alike, the one that is said to be much faster comes first."""
    archs = draw_archs(40)
    slow, fast = (
        {arch: 1e-3 if (i % 2 == 0) == is_even else 1e3 for i, arch in enumerate(archs)} for is_even in (0, 1)
    )
    for speeds in (slow, fast):
        study = study_of(build(speeds=speeds, chance=0.0))
        for _ in range(16):
            trial = ask(study)
            arch = arch_of(trial)
            study.tell(trial, (speeds[next(own for own in archs if own.key() == arch.key())], top1(arch)))
        later = [trial.values[0] for trial in study.trials[6:]]
        assert sum(images_per_s == 1e3 for images_per_s in later) >= 7


def test_speeds_outside_the_space_or_its_limits_are_left_out():
    outside = hilo_nas.ArchConfig(
        embed_dims=(10, 20, 40, 80), depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), patch_size=2
    )
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"params_m": 0.5}})
    archs = draw_archs(20)
    within = {arch.key() for arch in archs if count_params(arch, num_classes=10) <= 0.5e6}
    study = study_of(build(space, speeds={outside: 10.0, **dict.fromkeys(archs, 100.0)}))
    found = set(search(study, len(within)))
    assert found == within
    assert 0 < len(found) < 20
    with pytest.raises(SpaceExhaustedError):
        ask(study)


def test_limits_on_size_are_met():
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"params_m": 0.5}})
    study = study_of(build(space))
    search(study, 10, space)
    assert all(count_params(arch_of(trial), num_classes=10) <= 0.5e6 for trial in study.trials)


def test_a_limit_on_speed_draws_proposals_to_fast_networks():
    limit = 2000.0
    space = build_space("digits", {**DIGITS.to_dict(), "limits": {"images_per_s": limit}})
    study = study_of(build(space))
    search(study, 25, space)
    share = sum(trial.values[0] >= limit for trial in study.trials[10:]) / 15
    random = Random(0)
    of_all = sum(speed(DIGITS.decode(DIGITS.sample(random))) >= limit for _ in range(300)) / 300
    assert share > 0.65 > 2 * of_all


def test_more_of_the_front_is_found_than_by_chance():
    volumes = {}
    for name, sampler in (("hilo", build()), ("random", optuna.samplers.RandomSampler(seed=0))):
        study = study_of(sampler)
        search(study, 25)
        points = [(math.log(trial.values[0]), trial.values[1]) for trial in study.trials]
        volumes[name] = hypervolume(points, (math.log(100), 0.1))
    assert volumes["hilo"] > volumes["random"]


def test_parameters_outside_the_space_are_drawn_too():
    study = study_of(build())
    for _ in range(7):
        trial = ask(study)
        rate = trial.suggest_float("rate", 0.1, 0.2)
        study.tell(trial, evaluate(arch_of(trial)))
        assert 0.1 <= rate <= 0.2
    assert len({trial.params["rate"] for trial in study.trials}) > 1


@pytest.mark.parametrize("directions", [["maximize"], ["minimize", "maximize"], ["maximize"] * 3])
def test_a_study_of_other_directions_is_refused(directions):
    with pytest.raises(UsageError):
        ask(optuna.create_study(directions=directions, sampler=build()))


def test_a_parameter_of_another_range_is_refused():
    trial = study_of(build()).ask()
    with pytest.raises(UsageError):
        trial.suggest_int("depths_3", 10, 20)


@pytest.mark.parametrize("images_per_s", [0.0, -3.0])
def test_a_speed_that_is_none_is_refused(images_per_s):
    with pytest.raises(UsageError):
        build(speeds={TINY: images_per_s})
    study = study_of(build())
    study.tell(ask(study), (images_per_s, 0.5))
    with pytest.raises(UsageError):
        ask(study)


@pytest.mark.parametrize("speeds", [{}, {"0123456789ab": 10.0}])
def test_speeds_of_no_network_of_the_space_are_refused(speeds):
    with pytest.raises(UsageError):
        build(speeds=speeds)


def test_keys_in_a_large_space_are_refused_and_architectures_are_not():
    space = hilo_nas.load_space("litv2_cifar")
    arch = space.decode(space.sample(Random(0)))
    with pytest.raises(UsageError):
        build(space, speeds={arch.key(): 10.0})
    study = study_of(build(space, speeds={arch: 10.0}))
    assert arch_of(ask(study, space), space).key() == arch.key()
