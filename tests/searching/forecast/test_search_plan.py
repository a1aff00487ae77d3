"""A proposed search: what is chosen, what is kept, and that the search takes it."""

import dataclasses

import pytest

import hilo_nas
from hilo_nas.errors import UsageError
from hilo_nas.searching import SearchConfig, plan_search, run_search
from hilo_nas.searching.forecast.search_plan import choose_space, is_plannable
from hilo_nas.space import load_space


def plan(hours=1.0, **settings):
    return plan_search(SearchConfig.of(**settings), hours, lambda event: None)


@pytest.mark.parametrize(("img_size", "name"), [(32, "litv2_cifar"), (64, "litv2_cifar"), (65, "litv2_imagenet")])
def test_the_space_follows_from_the_image_size_and_takes_images_of_it(img_size, name):
    assert choose_space(img_size) == name
    assert load_space(name).defaults["img_size"] in (32, 224)


def test_sizes_are_those_of_deployment_or_smaller(machine):
    small, large = (plan(100.0, data="digits", img_size=size) for size in (64, 224))
    assert (small.config.space, small.config.proxy.img_size) == ("litv2_cifar", 64)
    assert (large.config.space, large.config.proxy.img_size) == ("litv2_imagenet", 128)
    assert "smaller than in deployment" in " ".join(large.reasons)


def test_without_a_size_and_a_space_only_the_digits_can_be_planned(machine):
    assert plan(0.1).config.space == "litv2_digits"
    with pytest.raises(UsageError, match="Set --img-size, or name a space"):
        plan(data="scans/")


def test_what_is_given_is_kept(machine):
    found = plan(space="litv2_digits", proxy_images=5_000, seed=3, sampler="random", img_size=64).config
    assert (found.proxy.images, found.search.seed, found.search.sampler) == (5_000, 3, "random")
    assert plan(space="litv2_digits", trials=13).config.search.trials == 13
    assert plan(space="litv2_digits", trials=13).config.search.until_trials is None


def test_the_estimated_time_fits_and_the_timeout_is_the_time(machine):
    found = plan(0.5, space="litv2_digits")
    assert found.config.search.timeout_s == 1800
    assert 0.5 * 1800 < found.cost.total_s <= 1800
    assert found.cost.trials == found.config.search.until_trials


def test_limits_are_reported_with_the_share_that_meets_them(machine):
    (reason,) = [text for text in plan(space="litv2_digits", min_images_per_s=1.0).reasons if "random networks" in text]
    assert reason.startswith("12 of 12 random networks meet images_per_s >= 1")


def test_other_proxies_get_a_number_of_trials(machine):
    found = plan(space="litv2_digits", proxy="naswot")
    assert found.config.search.until_trials >= 12
    assert found.config.proxy.images is None
    with pytest.raises(UsageError, match="a plan needs a proxy"):
        plan(space="litv2_digits", proxy="none")


@pytest.mark.parametrize("hours", [0.0, -1.0, float("inf"), float("nan")])
def test_hours_are_a_positive_number(hours):
    with pytest.raises(UsageError, match="hours must be a number above 0"):
        plan(hours)


def test_the_search_takes_the_proposal(machine):
    found = plan(space="litv2_digits", study="planned")
    short = found.config.replace({"search.until_trials": 3, "search.sampler": "random"})
    study, finished = run_search(short, lambda event: None)
    assert finished.measured == 3
    assert study.manifest.plan.images == found.config.proxy.images
    with pytest.raises(UsageError, match="a plan is for a new study, but study planned exists"):
        plan(space="litv2_digits", study="planned")


def test_only_a_new_study_with_something_left_out_is_planned(machine):
    new = SearchConfig.of(space="litv2_digits", study="planned")
    assert is_plannable(new)
    assert is_plannable(SearchConfig.of())
    assert not is_plannable(SearchConfig.of(space="litv2_digits", proxy="none"))
    assert not is_plannable(SearchConfig.of(space="litv2_digits", proxy_images=3_000, trials=2))
    run_search(dataclasses.replace(new).replace({"search.trials": 1}), lambda event: None)
    assert not is_plannable(new)
    assert not is_plannable(SearchConfig.of(study="planned"))


def test_the_api_adds_how_well_the_proxy_ranks(machine):
    found = hilo_nas.plan_search("litv2_digits", hours=0.5)
    assert "hilo-nas proxy check litv2_digits" in found.reasons[-1]
