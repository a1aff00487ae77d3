"""Searches scored by something else than a training: what is stored, who works, and when a study does not go on."""

import dataclasses

import pytest
import yaml
from builders import build_manifest, build_plan, build_score, fresh
from fakes import top1

from hilo_nas.errors import NotFoundError, ProxyError, StudyMismatchError, UsageError
from hilo_nas.events import TrialFinished
from hilo_nas.searching import SearchConfig, estimate_cost, run_search
from hilo_nas.searching.sampling.optuna_study import impute
from hilo_nas.study.local_settings import load_local, write_local

SOURCE = "def score(arch, build_model, budget, seed, callback):\n    return budget, 0\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores/mine.py").write_text(SOURCE)
    return tmp_path


def search(home, events=None, **options):
    options = {"study": "demo", "sampler": "random", "remeasure": False, **options}
    request = SearchConfig.of(**options)
    return run_search(request, (events if events is not None else []).append)[0]


def begin(home, events=None, **options):
    return search(home, events, space="litv2_digits", **{"trials": 3, "proxy": "scores/mine.py:score", **options})


@pytest.mark.parametrize("proxy", ["params", "macs", "images_per_s"])
def test_a_formula_scores_without_a_worker(home, machine, proxy):
    folder = begin(home, proxy=proxy)
    records = fresh(folder).records
    assert [record.state for record in records] == ["complete"] * 3
    assert machine.scored == []
    values = {
        "params": lambda record: record.parameters / 1e6,
        "macs": lambda record: record.macs / 1e9,
        "images_per_s": lambda record: record.measurement.images_per_s,
    }
    assert [record.score.value for record in records] == [values[proxy](record) for record in records]


@pytest.mark.parametrize("proxy", ["naswot", "zico", "dss", "scores/mine.py:score"])
def test_other_proxies_are_asked_for_once_per_network_at_their_whole_budget(home, machine, proxy):
    folder = begin(home, proxy=proxy)
    manifest, records = fresh(folder).manifest, fresh(folder).records
    assert [record.state for record in records] == ["complete"] * 3
    assert [leg[2] for leg in machine.legs] == [manifest.plan.images] * 3
    assert {record.score.plan_hash for record in records} == {manifest.plan_hash}


def test_the_study_knows_the_functions_name_and_source_but_its_folder_only_on_this_machine(home, machine):
    folder = begin(home, proxy_images=1000)
    plan = fresh(folder).manifest.plan
    assert (plan.proxy, plan.images, len(plan.source_hash)) == ("mine.py:score", 1000, 64)
    assert str(home) not in folder.manifest_path.read_text()
    assert load_local(folder.local_path).values["proxy.name"] == f"{home}/scores/mine.py:score"
    assert machine.loaded == [f"{home}/scores/mine.py:score"]


def test_what_is_told_of_a_trial_names_the_metric(home, machine):
    events = []
    begin(home, events, proxy="zico")
    assert {event.metric for event in events if isinstance(event, TrialFinished)} == {"zico"}


def test_a_study_finds_its_function_again_from_any_folder(home, machine, monkeypatch):
    begin(home)
    (home / "elsewhere").mkdir()
    monkeypatch.chdir(home / "elsewhere")
    folder = search(home, trials=2)
    assert len(fresh(folder).records) == 5
    assert machine.loaded == [f"{home}/scores/mine.py:score"] * 2


def test_an_edited_function_is_refused_with_the_way_out(home, machine):
    folder = begin(home)
    (home / "scores/mine.py").write_text(SOURCE + "# better\n")
    with pytest.raises(StudyMismatchError) as caught:
        search(home, trials=2)
    assert str(caught.value).startswith("mine.py:score ")
    assert "study demo" in str(caught.value)
    assert "--study NAME" in str(caught.value)
    assert len(fresh(folder).records) == 3


def test_a_function_that_has_gone_is_missed_and_one_that_moved_is_found_by_its_name(home, machine):
    begin(home)
    (home / "scores/mine.py").rename(home / "mine.py")
    with pytest.raises(NotFoundError, match=r"there is no file .*scores/mine.py"):
        search(home, trials=1)
    search(home, trials=1, proxy="mine.py:score")
    assert len(fresh(search(home, trials=1)).records) == 5  # it is remembered


def test_what_a_proxy_prepared_is_stored_by_its_hash_and_must_be_the_same_again(home, machine):
    assert fresh(begin(home)).manifest.prepared is None  # a function that prepares no facts says nothing
    machine.prepared_facts = {"classes": 10}
    folder = begin(home, study="other")
    stored = fresh(folder).manifest.prepared
    assert len(stored) == 12
    assert fresh(search(home, study="other", trials=1)).manifest.prepared == stored
    machine.prepared_facts = {"classes": 11}
    with pytest.raises(StudyMismatchError, match=f": '{stored}' in the study"):
        search(home, study="other", trials=1)


def test_a_machine_that_does_not_know_where_the_function_lies_asks(home, machine):
    folder = begin(home)
    local = load_local(folder.local_path).values
    write_local(folder.local_path, {**local, "proxy.name": None})
    with pytest.raises(UsageError, match=r"study demo .*mine.py:score.* Name it: --proxy"):
        search(home, trials=1)


@pytest.mark.parametrize(
    ("first", "then", "line"),
    [
        ("zico", "training", "proxy.name: 'zico' in the study, 'training' now"),
        ("training", "scores/mine.py:score", "proxy.name: 'training' in the study, 'mine.py:score' now"),
        ("params", "macs", "proxy.name: 'params' in the study, 'macs' now"),
    ],
)
def test_another_proxy_is_refused(home, machine, first, then, line):
    begin(home, proxy=first)
    with pytest.raises(StudyMismatchError) as caught:
        search(home, trials=1, proxy=then)
    assert f"  {line}" in str(caught.value).split("\n")


def test_another_budget_of_a_function_is_refused(home, machine):
    begin(home, proxy_images=1000)
    with pytest.raises(StudyMismatchError, match=r"proxy\.images: 1000 in the study, 2000 now"):
        search(home, trials=1, proxy_images=2000)


def test_a_stored_study_refuses_options_that_mean_nothing_to_its_proxy(home, machine):
    begin(home, proxy="params")
    with pytest.raises(UsageError, match=r"proxy.confirm .* proxy params"):
        search(home, trials=1, confirm=2)
    with pytest.raises(UsageError, match=r"budget.* study demo "):
        search(home, raise_budget=10**6)


def test_further_seeds_confirm_a_front_of_a_function(home, machine):
    records = fresh(begin(home, confirm=2)).records
    assert max(record.score.seeds for record in records) == 3


def test_a_trial_fails_where_the_function_raises_and_says_why(home, machine):
    def happen(verb, count):
        if verb == "score" and count == 0:
            raise ProxyError("mine.py:score raised KeyError: 'a' (mine.py, line 2)")

    machine.happen = happen
    # The count of scores stands still where one raises, so only the first network is let fail.
    original = machine.score

    def score(*arguments, **options):
        try:
            return original(*arguments, **options)
        except ProxyError:
            machine.happen = lambda verb, count: None
            raise

    machine.score = score
    failed, *others = fresh(begin(home)).records
    assert (failed.state, failed.reason) == (
        "failed",
        "proxy: mine.py:score raised KeyError: 'a' (mine.py, line 2)",
    )
    assert {record.state for record in others} == {"complete"}


def test_an_edit_in_mid_search_ends_it_and_its_trial_is_due_again(home, machine):
    def happen(verb, count):
        if (verb, count) == ("score", 1):
            raise StudyMismatchError("mine.py:score was edited while it was in use")

    machine.happen = happen
    with pytest.raises(StudyMismatchError):
        begin(home)
    machine.happen = lambda verb, count: None
    records = fresh(search(home)).records
    assert [record.state for record in records] == ["complete"] * 3


def test_scores_are_taken_over_from_the_same_function_with_the_same_budget(home, machine):
    begin(home, proxy_images=1000)
    scored = len(machine.scored)
    again = {"study": "other", "reuse": "demo", "trials": 1}
    begin(home, proxy_images=1000, **again)
    assert len(machine.scored) == scored + 1
    with pytest.raises(StudyMismatchError, match="proxy images: 1000 there, 2000 here"):
        begin(home, proxy_images=2000, **{**again, "study": "third"})


def test_before_there_is_a_score_nothing_is_taken_for_chance(home):
    naswot = build_manifest(plan=build_plan(proxy="naswot"))
    assert (build_manifest().chance, naswot.chance) == (0.1, 0.0)
    assert impute([], chance_top1=naswot.chance)["value"] == 0.0


def price(home, machine, seconds_of, **options):
    tried = []

    def score(subject, plan, seed, until, task):
        tried.append(plan.images)
        return build_score(top1(subject.arch), seconds=seconds_of(plan.images))

    machine.score = score
    request = SearchConfig.of(space="litv2_digits", study="new", trials=10, **options)
    return estimate_cost(request, lambda event: None).training_s, sorted(set(tried))


def test_a_dry_run_prices_a_formula_at_nothing(home, machine):
    assert price(home, machine, lambda images: 1 / 0, proxy="params") == (0.0, [])


def test_a_dry_run_prices_a_cheap_proxy_by_trying_it(home, machine):
    assert price(home, machine, lambda images: 2.5, proxy="zico") == (2.5, [1])


@pytest.mark.parametrize(
    ("seconds_of", "whole"), [(lambda images: 1 + images / 1000, 101.0), (lambda images: 4.0, 4.0)]
)
def test_a_dry_run_prices_a_function_from_two_small_budgets(home, machine, seconds_of, whole):
    options = {"proxy": "scores/mine.py:score", "proxy_images": 100_000}
    priced, tried = price(home, machine, seconds_of, **options)
    assert priced == pytest.approx(whole)
    assert max(tried) < 10_000


def test_a_dry_run_tries_a_small_budget_whole(home, machine):
    priced, _ = price(home, machine, lambda images: images, proxy="scores/mine.py:score", proxy_images=64)
    assert priced == 64


def test_the_manifest_of_a_function_survives_its_file(home, machine):
    folder = begin(home)
    manifest = fresh(folder).manifest
    assert type(manifest).from_yaml(manifest.to_yaml()) == manifest
    fields = yaml.safe_load(manifest.to_yaml())
    fields["plan"]["source_hash"] = "0" * 64
    with pytest.raises(Exception, match="the plan was changed"):
        type(manifest).from_yaml(yaml.safe_dump(fields))
    assert dataclasses.replace(manifest.plan, proxy="zico", source_hash=None).hash("d") != manifest.plan.hash("d")


@pytest.mark.parametrize("proxy", ["params", "macs", "images_per_s"])
def test_a_formula_needs_no_images_in_any_space(home, machine, proxy):
    def read_images(*arguments, **options):
        raise AssertionError("no image is wanted")

    machine.prepare_data = read_images
    folder = search(home, space="litv2_cifar", trials=2, proxy=proxy)
    data = fresh(folder).manifest.data
    assert (data.name, data.n_images, data.num_classes) == ("no images", 0, 10)
    assert load_local(folder.local_path).values == {}
    assert len(fresh(search(home, trials=1)).records) == 3
    cost = estimate_cost(SearchConfig.of(space="litv2_cifar", study="other", proxy=proxy, trials=2), lambda event: None)
    assert cost.training_s == 0


def test_a_training_still_asks_for_images(home, machine):
    with pytest.raises(UsageError, match=r"needs images to train on\..* --data"):
        search(home, space="litv2_cifar", trials=2)
