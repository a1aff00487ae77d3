"""A proposed search: what is chosen, what is kept, and that the search takes it."""

import pytest
from builders import build_arch
from fakes import write_speeds

import hilo_nas
from hilo_nas.errors import NotFoundError, UsageError
from hilo_nas.searching import SearchConfig, fit_search, plan_search, run_search
from hilo_nas.searching.forecast.search_plan import choose_space
from hilo_nas.space import load_space


def plan(hours=1.0, **settings):
    return plan_search(SearchConfig.of(**settings), hours, lambda event: None)


@pytest.mark.parametrize(("img_size", "name"), [(32, "litv2_cifar"), (64, "litv2_cifar"), (65, "litv2_imagenet")])
def test_the_space_follows_from_the_image_size_and_takes_images_of_it(machine, img_size, name):
    found = plan(200.0, data="digits", img_size=img_size)
    assert choose_space(img_size) == found.config.space == found.setup.space.name == name
    assert f"space {name}, made for images of {load_space(name).defaults['img_size']} pixels" in found.reasons


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


def take(found, **changes):
    """Runs the search that was proposed, with two trials of the random sampler."""
    return run_search(found.config.replace({"search.until_trials": 2, **changes}), lambda event: None)[0]


def test_the_search_takes_the_proposal_and_a_second_plan_of_the_study_is_refused(machine):
    found = plan(space="litv2_digits", study="planned", sampler="random")
    assert take(found).manifest.plan.images == found.config.proxy.images
    with pytest.raises(UsageError, match="a plan is for a new study, but study planned exists"):
        plan(space="litv2_digits", study="planned")


def test_a_plan_without_a_name_is_refused_where_the_study_exists(machine):
    take(plan(space="litv2_digits", sampler="random"))
    with pytest.raises(UsageError, match="study litv2_digits exists"):
        plan(space="litv2_digits")


def test_a_plan_with_timings_of_another_study_keeps_their_conditions_and_networks(machine, tmp_path):
    write_speeds(tmp_path, [build_arch(i) for i in range(8)])
    found = plan(space="litv2_digits", speeds=str(tmp_path / "edge"), study="fast", sampler="random")
    assert found.config.search.until_trials == 8
    assert take(found).manifest.speeds == "edge"


def test_baselines_cost_what_they_cost_at_the_chosen_budget(machine):
    machine.baselines["resnet18"] = (500.0, 0.2)
    without = plan(0.2, space="litv2_cifar", data="digits", sampler="random")
    found = plan(0.2, space="litv2_cifar", data="digits", sampler="random", baselines=["resnet18"])
    assert found.cost.baselines == 1
    assert found.config.search.baselines == ("timm:resnet18",)
    assert found.config.proxy.images <= without.config.proxy.images < 200_000
    assert found.cost.total_s <= 720


def test_proxies_without_images_and_custom_ones_keep_their_settings(machine, tmp_path):
    assert plan(space="litv2_digits", proxy="params", img_size=32).config.proxy.img_size is None
    (tmp_path / "mine.py").write_text("def score(arch, build_model, budget, seed, callback):\n    return 1.0, 0.1\n")
    found = plan(space="litv2_digits", proxy=f"{tmp_path}/mine.py:score")
    assert found.config.search.until_trials >= 12
    assert "3,000 images per network, a default: only the budget of trainings is planned" in found.reasons


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reuse": "other"}, "cannot choose a budget with study.reuse"),
        ({"proxy": "none"}, "a plan needs a proxy"),
        ({"networks": ["litv2_small"]}, "search.networks"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_any_work(machine, settings, said):
    run_search(SearchConfig.of(space="litv2_digits", study="other", trials=1, sampler="random"), lambda event: None)
    before = len(machine.submitted)
    with pytest.raises(UsageError, match=said):
        plan(space="litv2_digits", study="new", **settings)
    assert len(machine.submitted) == before


def fit(hours=1.0, **settings):
    return fit_search(SearchConfig.of(**settings), hours, lambda event: None)


def test_a_new_study_with_something_left_out_is_planned(machine):
    config, found = fit(space="litv2_digits", study="planned")
    assert config == found.config.replace({"search.timeout_s": config.search.timeout_s})
    assert 3500 < config.search.timeout_s < 3600


@pytest.mark.parametrize(
    "settings",
    [
        {"proxy": "none"},
        {"proxy_images": 3_000, "trials": 2},
        {"proxy": "params", "trials": 2},
    ],
)
def test_a_search_without_a_choice_only_gets_its_timeout(machine, settings):
    config, found = fit(0.5, space="litv2_digits", **settings)
    assert found is None
    assert config == SearchConfig.of(space="litv2_digits", timeout_s=1800.0, **settings)


def test_a_stored_study_is_not_planned_named_or_not(machine):
    first, found = fit(space="litv2_digits", sampler="random", device="cpu")
    assert found is not None
    run_search(first.replace({"search.until_trials": 1}), lambda event: None)
    assert fit(space="litv2_digits", device="cpu")[1] is None
    assert fit(study="litv2_digits-cpu")[0] == SearchConfig.of(study="litv2_digits-cpu", timeout_s=3600.0)
    first, found = fit(20.0, data="digits", img_size=32, sampler="random", device="cpu")
    assert found is not None
    run_search(first.replace({"search.until_trials": 1}), lambda event: None)
    again, found = fit(20.0, data="digits", img_size=32, device="cpu")
    assert found is None
    assert again.space == "litv2_cifar"


def test_a_mistyped_study_is_not_a_new_one(machine):
    run_search(SearchConfig.of(space="litv2_digits", study="my-gpu", trials=1, sampler="random"), lambda event: None)
    with pytest.raises(NotFoundError, match="my-gpu"):
        fit(study="my-gup")


def test_the_api_adds_how_well_the_proxy_ranks(machine):
    found = hilo_nas.plan_search("litv2_digits", hours=0.5)
    assert "hilo-nas proxy check litv2_digits" in found.reasons[-1]
    assert len(hilo_nas.plan_search("litv2_digits", hours=0.5, settings={"proxy.name": "params"}).reasons) == 0


@pytest.mark.parametrize("settings", [{"space": "litv2_digits", "img_size": 64, "study": "s"}, {"data": "digits"}])
def test_hours_change_nothing_but_the_timeout_of_a_stored_study(machine, settings):
    run_search(SearchConfig.of(trials=1, sampler="random", **settings), lambda event: None)
    assert fit(0.5, **settings) == (SearchConfig.of(timeout_s=1800.0, **settings), None)
    assert run_search(fit(0.5, trials=1, **settings)[0], lambda event: None)[1].measured == 2


def test_hours_change_nothing_but_the_timeout_of_scores_that_are_reused(machine):
    run_search(SearchConfig.of(space="litv2_digits", study="s", trials=1, sampler="random"), lambda event: None)
    settings = {"reuse": "s", "img_size": 64, "study": "new"}
    assert fit(0.5, **settings) == (SearchConfig.of(timeout_s=1800.0, **settings), None)
