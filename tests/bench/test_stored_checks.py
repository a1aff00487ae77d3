"""What a stored proxy check tells about a planned search."""

import shlex

import pytest
import yaml
from fakes import FakeTrainer

from hilo_nas.bench.proxy_check.proxy_check import ProxyCheck, run_proxy_check
from hilo_nas.bench.proxy_check.stored_checks import describe_ranking, find_ranking
from hilo_nas.cli import main
from hilo_nas.searching import SearchConfig, plan_search, run_search
from hilo_nas.space import load_space
from hilo_nas.study.stored_study import StoredStudy
from hilo_nas.testing import use_evaluator

TWELVE = {
    "patch_size": [4],
    "embed_dims": [8, 12, 16],
    "depths": [[1], [1, 2], [1, 2], [1]],
    "head_dim": [8],
    "attention": [["none"], ["hilo"], ["hilo"], ["none"]],
    "alpha": [0.5],
    "window_size": [[1], [2], [1], [1]],
    "mlp_ratios": [2],
    "defaults": {"img_size": 32, "proxy_images": 100_000},
}
"""A space of twelve networks."""
SIZES = {"data": "digits", "device": "cpu", "proxy_batch_size": 64, "rungs": 2}


@pytest.fixture
def space(tmp_path):
    path = tmp_path / "twelve.yaml"
    path.write_text(yaml.safe_dump(TWELVE))
    return str(path)


@pytest.fixture
def plan(space):
    return plan_search(
        SearchConfig.of(space=space, proxy_images=3_000, **SIZES), 2.0, lambda event: None, evaluator=FakeTrainer()
    )


def check(tmp_path, space, networks, **changes):
    run_proxy_check(
        SearchConfig.of(**{**SIZES, "proxy_images": 3_000, **changes}),
        load_space(space),
        StoredStudy(tmp_path / "checked"),
        ProxyCheck(networks=networks, second_seed=0),
        lambda event: None,
        evaluator=FakeTrainer(),
    )


def test_a_check_of_the_space_and_the_images_tells_how_well_its_largest_budget_ranks(tmp_path, space, plan):
    check(tmp_path, space, 12)
    found = find_ranking(plan)
    assert (found.study, found.networks, found.images, found.long_images) == ("checked", 12, 3_008, 30_016)
    assert found.low <= found.tau <= found.high
    assert found.tau > 0.8  # values rise with parameters at every budget
    assert describe_ranking(plan).startswith("the check in study checked (12 networks): after 3,008 images")


def test_without_a_check_the_command_is_given_and_tells_it(plan, space, monkeypatch, capsys):
    assert find_ranking(plan) is None
    command = describe_ranking(plan).partition(": ")[2]
    assert command.startswith(f"hilo-nas proxy check {space} --study twelve-check --data digits")
    with use_evaluator(FakeTrainer()):
        assert main([*shlex.split(command)[1:], "--networks", "12"]) == 0
    assert find_ranking(plan).study == "twelve-check"


def test_a_search_with_confirmations_is_no_check(plan, space, tmp_path):
    options = {**SIZES, "proxy_images": 3_000, "rungs": 1}
    config = SearchConfig.of(space=space, study="confirmed", trials=12, sampler="random", confirm=1, **options)
    study, _ = run_search(config, lambda event: None, evaluator=FakeTrainer())
    assert any(score.seed == 1 for record in study.records for score in record.scores)
    assert find_ranking(plan) is None


@pytest.mark.parametrize(
    ("networks", "changes"), [(9, {}), (12, {"proxy_batch_size": 32}), (12, {"img_size": 64, "proxy_img_size": 64})]
)
def test_small_checks_and_those_of_other_trainings_do_not_count(tmp_path, space, plan, networks, changes):
    check(tmp_path, space, networks, **changes)
    assert find_ranking(plan) is None


def test_a_study_that_cannot_be_read_is_skipped(tmp_path, space, plan):
    check(tmp_path, space, 12)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.yaml").write_text("schema_version: [")
    assert find_ranking(plan) is not None
