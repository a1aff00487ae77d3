"""Which proxy is scored how, under which name, and what it has no use for."""

import dataclasses

import pytest
from builders import build_data, build_manifest, build_measurement, build_plan, build_record

from hilo_nas.errors import HiloNasError, UsageError
from hilo_nas.measurement import ProxyPlan
from hilo_nas.proxy.kinds import DEFAULT_PROXY, PROXIES, metric_named, proxy_named
from hilo_nas.proxy.kinds.formula import FORMULAS
from hilo_nas.proxy.recorded import score_record
from hilo_nas.searching import SearchConfig
from hilo_nas.searching.configuration.resolve import check_proxy_options, plan_of, reduction_factor_of
from hilo_nas.space import load_space

SOURCE = "def score(arch, build_model, budget, seed, callback):\n    return budget, 0\n"
DIGITS = load_space("litv2_digits")
HASH_BEFORE, OLDER_HASH_BEFORE = "40e34c6b8b57", "4619eb07c4a2"


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores/mine.py").write_text(SOURCE)
    return "scores/mine.py:score"


def manifest_of(proxy, **fields):
    return build_manifest(plan=build_plan(proxy=proxy, images=1, recipe=proxy_named(proxy).version, **fields))


def test_the_hash_of_a_trainings_plan_does_not_know_of_other_proxies():
    """As stored by the version before there were any."""
    plan = ProxyPlan(img_size=32, batch_size=64, images=3000, hflip=False, recipe="adamw-2")
    assert plan.hash("0123456789abcdef") == HASH_BEFORE
    older = dataclasses.replace(plan, recipe="adamw-1")
    assert older.hash("0123456789abcdef") == OLDER_HASH_BEFORE
    stored = {name: value for name, value in plan.to_dict().items() if name not in ("proxy", "source_hash")}
    assert ProxyPlan.from_dict(stored) == plan


@pytest.mark.parametrize(
    ("name", "own", "beside"),
    [
        ("naswot", "dac118d8d939", "3cc7ca92c154"),
        ("zico", "317c8038bf80", "eed89eab0c3f"),
        ("dss", "2a2fa7850758", "f66f8c34139d"),
        ("params", "30c56bd74cc8", None),
        ("macs", "f66e68a2062d", None),
        ("images_per_s", "e3845d37bf2c", None),
    ],
)
def test_scores_keep_the_names_under_which_studies_have_stored_them(name, own, beside):
    proxy, data_hash = proxy_named(name), "0123456789abcdef"
    plan = ProxyPlan(img_size=32, batch_size=64, images=1, hflip=False, proxy=name, recipe=proxy.version)
    assert plan.hash(data_hash) == own
    if beside is not None:
        studys = ProxyPlan(img_size=32, batch_size=64, images=3000, hflip=False)
        assert proxy.comparison_hash(studys.to_dict(), data_hash) == beside
    assert proxy.is_quick == (beside is not None)


def test_a_functions_scores_and_a_baselines_keep_their_names():
    plan = ProxyPlan(img_size=32, batch_size=64, images=3000, hflip=False)
    assert plan.baseline_hash("0123456789abcdef") == "f4452be0fc4d"
    function = dataclasses.replace(plan, proxy="mine.py:score", source_hash="a" * 64, recipe="own-1")
    assert function.hash("0123456789abcdef") == function.baseline_hash("0123456789abcdef") == "784820f8566d"


def test_every_proxy_and_every_source_has_a_hash_of_its_own():
    plans = [build_plan(proxy=proxy) for proxy in PROXIES]
    plans += [build_plan(proxy="mine.py:score", source_hash=digit * 64) for digit in "ab"]
    plans.append(build_plan(proxy="mine.py:other", source_hash="a" * 64))
    assert len({plan.hash(build_data().hash) for plan in plans}) == len(plans) == len(PROXIES) + 3


def test_scores_are_called_after_the_metric_of_the_training_or_the_proxy():
    assert build_plan(metric="balanced").score_metric == "balanced"
    assert build_plan(proxy="zico").score_metric == "zico"


def test_a_proxy_that_is_no_training_has_one_budget_and_no_rungs():
    assert build_plan(proxy="mine.py:score", source_hash="a" * 64, images=1000).budgets == (1000,)
    with pytest.raises(UsageError, match=r"rungs .*naswot"):
        build_plan(proxy="naswot", rungs=(100,))


@pytest.mark.parametrize("fields", [{"proxy": "mine.py:score"}, {"proxy": "zico", "source_hash": "a" * 64}])
def test_a_source_belongs_to_a_function_and_to_nothing_else(fields):
    with pytest.raises(UsageError, match="source_hash"):
        build_plan(**fields)


def test_the_formulas_give_what_the_record_says_with_its_unit():
    record = build_record(3, 900.0)
    names = [proxy.name for proxy in FORMULAS]
    values = {name: score_record(record, manifest_of(name)) for name in names}
    assert values["params"].value == record.parameters / 1e6
    assert values["macs"].value == record.macs / 1e9
    assert values["images_per_s"].value == 900.0
    assert [values[name].metric for name in names] == names
    for proxy, score in values.items():
        assert score.plan_hash == manifest_of(proxy).plan_hash
        assert dataclasses.replace(record, scores=(score,)).score_at(manifest_of(proxy).plan.budgets[-1]) == score


def test_counts_are_exact_and_a_speed_has_the_error_of_its_interval():
    timed = build_measurement(900.0, images_per_s_low=880.4, images_per_s_high=919.6)
    record = build_record(measurements=(timed,))
    assert score_record(record, manifest_of("params")).standard_error == 0.0
    assert score_record(record, manifest_of("images_per_s")).standard_error == pytest.approx(10.0)


def test_a_network_without_a_count_is_told():
    record = build_record(parameters=None)
    with pytest.raises(HiloNasError, match=r"proxy params needs parameters"):
        score_record(record, manifest_of("params"))


def test_values_are_written_in_their_unit():
    texts = {
        name: (metric.label, metric.heading, metric.title, metric.text(0.5), metric.difference_text(0.1, 0.02))
        for name in ("top1", "balanced", "params", "mine.py:score")
        for metric in [metric_named(name)]
    }
    assert texts == {
        "top1": ("top-1", "top-1 %", "top-1", "50.0 %", "+10.0 ± 2.0 points"),
        "balanced": ("top-1", "top-1 %", "top-1 (balanced)", "50.0 %", "+10.0 ± 2.0 points"),
        "params": ("score (params M)", "score (params M)", "score (params M)", "0.5", "+0.1 ± 0.02"),
        "mine.py:score": ("mine.py:score", "mine.py:score", "mine.py:score", "0.5", "+0.1 ± 0.02"),
    }


@pytest.mark.parametrize(
    ("metric", "largest", "chance"),
    [
        ("top1", 0.8, 0.8),
        ("top1", None, 0.1),
        ("balanced", 0.8, 0.1),
        ("likelihood", 0.8, 0.1),
        ("zico", 0.8, None),
        ("mine.py:score", None, None),
    ],
)
def test_each_metric_knows_what_guessing_gives(metric, largest, chance):
    assert metric_named(metric).chance(10, largest) == chance


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_plan_is_made_for_every_proxy(proxy):
    plan = plan_of(SearchConfig.of(proxy=proxy), DIGITS)
    assert (plan.proxy, plan.source_hash) == (proxy, None)
    assert bool(plan.rungs) == plan.declaration.has_rungs == (proxy == "training")
    assert plan.recipe == PROXIES[proxy].version
    assert plan_of(SearchConfig.of(), DIGITS) == plan_of(SearchConfig.of(proxy=DEFAULT_PROXY.name), DIGITS)


@pytest.mark.parametrize(("given", "kept"), [(None, 2.0), (2.0, 2.0), (3.0, 3.0), (0, None)])
def test_by_default_half_go_on_at_rungs_that_lie_threefold_apart(given, kept):
    config = SearchConfig.of(proxy_images=9000, reduction_factor=given)
    assert (reduction_factor_of(config), plan_of(config, DIGITS).rungs) == (kept, (1000, 3000))


def test_the_ratio_of_rungs_is_a_setting_of_its_own():
    config = SearchConfig.of(proxy_images=9000, rung_ratio=2.0)
    assert (reduction_factor_of(config), plan_of(config, DIGITS).rungs) == (2.0, (2250, 4500))


def test_the_plan_of_a_function_knows_its_source_and_no_folder(own):
    plan = plan_of(SearchConfig.of(proxy=own, proxy_images=512), DIGITS)
    assert (plan.proxy, plan.images, plan.budgets, plan.rungs) == ("mine.py:score", 512, (512,), ())
    assert len(plan.source_hash) == 64


USELESS = [
    ("naswot", {"rungs": 2}, "proxy.rungs has no effect with proxy naswot"),
    ("naswot", {"proxy_images": 9}, "proxy.images has no effect with proxy naswot"),
    ("params", {"confirm": 2}, "proxy.confirm has no effect with proxy params"),
    (
        "macs",
        {"proxy_batch_size": 8},
        "proxy.batch_size has no effect with proxy macs",
    ),
    (
        "m.py:f",
        {"val_source": "d"},
        "data.val_source has no effect with proxy m.py:f",
    ),
    (
        "dir/m.py:f",
        {"metric": "balanced"},
        "proxy.metric has no effect with proxy m.py:f",
    ),
]


@pytest.mark.parametrize(("proxy", "options", "reason"), USELESS)
def test_an_option_that_means_nothing_to_the_proxy_is_refused(proxy, options, reason):
    with pytest.raises(UsageError) as caught:
        check_proxy_options(SearchConfig.of(proxy=proxy, **options), proxy_named(proxy))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("proxy", "options"),
    [
        ("training", {"rungs": 2, "confirm": 1, "metric": "balanced", "proxy_images": 9}),
        ("zico", {"confirm": 1, "proxy_batch_size": 8, "group_by": "a", "reduction_factor": 0}),
        ("m.py:f", {"confirm": 1, "proxy_images": 9}),
        ("params", {"confirm": 0}),
    ],
)
def test_options_that_mean_something_or_ask_for_nothing_are_taken(proxy, options):
    check_proxy_options(SearchConfig.of(proxy=proxy, **options), proxy_named(proxy))


@pytest.mark.parametrize("proxy", ["flops", "mine.py", ":score", ""])
def test_an_unknown_proxy_is_refused_with_those_that_are_known(proxy):
    with pytest.raises(UsageError, match=r"proxy must be one of training, params, .* dss, none, or module:function"):
        SearchConfig.of(proxy=proxy)
