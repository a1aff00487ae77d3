"""Plans and scores of the proxy training: budgets in whole batches, names that no budget changes, seeds joined."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import build_plan, build_score
from hypothesis import given
from hypothesis import strategies as st

from hilo_nas.errors import UsageError
from hilo_nas.measurement import ProxyPlan, mean_score
from hilo_nas.proxy.kinds.short_training import RECIPE

STORED = Path(__file__).parent / "assets" / "schema_1" / "protocol_1" / "manifest.yaml"


# Budgets.


@pytest.mark.parametrize(
    ("rungs", "images", "budgets"),
    [
        ((), 3000, (3008,)),
        ((), 64, (64,)),
        ((), 1, (64,)),
        ((100, 1000), 3000, (128, 1024, 3008)),
        ((10, 20, 65), 3000, (64, 128, 3008)),  # two rungs in one batch are one
        ((2990,), 3000, (3008,)),  # a rung in the last batch is the end
    ],
)
def test_budgets_are_whole_batches_rounded_up(rungs, images, budgets):
    assert build_plan(batch_size=64, images=images, rungs=rungs).budgets == budgets


@given(
    st.integers(1, 500),
    st.lists(st.integers(1, 10**5), min_size=1, max_size=5, unique=True).map(sorted),
)
def test_budgets_ascend_and_none_is_more_than_a_batch_beyond_what_was_asked_for(batch_size, steps):
    plan = build_plan(batch_size=batch_size, images=steps[-1], rungs=tuple(steps[:-1]))
    budgets = plan.budgets
    assert list(budgets) == sorted(set(budgets))
    assert all(budget % batch_size == 0 for budget in budgets)
    for images in steps:
        assert min(budget - images for budget in budgets if budget >= images) < batch_size


@pytest.mark.parametrize("rungs", [(3000,), (4000,), (0, 100), (-5,), (200, 100), (100, 100)])
def test_rungs_that_do_not_ascend_to_the_budget_are_refused(rungs):
    with pytest.raises(UsageError) as caught:
        build_plan(images=3000, rungs=rungs)
    given_rungs = ", ".join(map(str, rungs))
    assert str(caught.value).startswith("rungs ")
    assert str(caught.value).endswith(f"(3000), but got {given_rungs}")


def test_a_budget_of_nothing_is_told_once_and_all_faults_together():
    with pytest.raises(UsageError) as caught:
        build_plan(images=0)
    assert str(caught.value) == "images must be at least 1, but got 0"
    with pytest.raises(UsageError) as caught:
        build_plan(batch_size=0, rungs=(5, 4), metric="loss")
    assert [line.split(" must")[0] for line in str(caught.value).splitlines()] == ["batch_size", "metric", "rungs"]


# Names.


def test_a_plan_survives_json():
    for plan in (build_plan(), build_plan(rungs=(100, 200)), build_plan(group_by="^(.+)/", recipe="adamw-1")):
        assert ProxyPlan.from_dict(json.loads(json.dumps(plan.to_dict()))) == plan


def test_neither_budget_nor_rungs_change_the_name_of_a_training_without_a_horizon():
    assert build_plan().recipe == RECIPE
    name = build_plan().hash("data")
    assert {build_plan(images=9).hash("data"), build_plan(rungs=(64, 128)).hash("data")} == {name}


def test_the_budget_is_part_of_the_name_where_the_schedule_knew_its_end():
    old = build_plan(recipe="adamw-1")
    assert dataclasses.replace(old, images=9).hash("data") != old.hash("data")
    assert old.hash("data") != build_plan().hash("data")


@pytest.mark.parametrize("recipe", ["adamw-1", RECIPE])
@pytest.mark.parametrize(
    "change",
    [
        {"img_size": 16},
        {"batch_size": 32},
        {"precision": "amp-bf16"},
        {"metric": "balanced"},
        {"val_fraction": 0.3},
        {"val_images": 10},
        {"hflip": True},
        {"group_by": "a"},
    ],
)
def test_all_else_changes_the_name(recipe, change):
    assert build_plan(recipe=recipe, **change).hash("data") != build_plan(recipe=recipe).hash("data")
    assert build_plan(recipe=recipe).hash("other") != build_plan(recipe=recipe).hash("data")


def test_a_plan_of_an_older_version_keeps_the_name_that_it_was_stored_under():
    content = yaml.safe_load(STORED.read_text())
    stored = dict(content["plan"])
    name = stored.pop("hash")
    assert "rungs" not in stored
    plan = ProxyPlan.from_dict(stored)
    assert (plan.recipe, plan.rungs, plan.group_by, plan.budgets) == ("adamw-1", (), None, (8000,))
    assert plan.hash(content["data"]["hash"]) == name


def test_the_quantization_is_part_of_the_name_and_a_plan_stored_without_its_version_keeps_its_name():
    old = build_plan(int8_runtime="openvino")
    assert "int8_version" not in old.to_dict()
    assert old.hash("data") == "893dde972097"
    assert dataclasses.replace(old, int8_version="2").hash("data") != old.hash("data")
    assert "int8_version" not in build_plan().to_dict()
    with pytest.raises(UsageError, match="int8_version needs an int8_runtime"):
        build_plan(int8_version="2")


# Seeds.


def test_one_seed_is_its_own_mean():
    score = build_score(0.5)
    assert mean_score([score]) is score


def test_a_mean_over_seeds_joins_what_the_images_and_what_the_seeds_leave_open():
    scores = [
        build_score(top1, standard_error=se, seed=seed, loss=loss, seconds=10.0)
        for seed, (top1, se, loss) in enumerate([(0.50, 0.03, 1.0), (0.56, 0.04, 1.5), (0.53, 0.05, 2.0)])
    ]
    mean = mean_score(scores)
    assert mean.value == pytest.approx(0.53)
    of_images = math.sqrt((0.03**2 + 0.04**2 + 0.05**2) / 3)
    of_seeds = 0.03 / math.sqrt(3)
    assert mean.standard_error == pytest.approx(math.sqrt(of_images**2 + of_seeds**2))
    assert (mean.loss, mean.seeds, mean.seconds) == (pytest.approx(1.5), 3, 30.0)
    assert (mean.plan_hash, mean.images_seen, mean.n_val) == (scores[0].plan_hash, 3008, 400)


def test_seeds_that_agree_leave_what_the_images_leave():
    mean = mean_score([build_score(0.5, seed=seed) for seed in range(4)])
    assert mean.standard_error == pytest.approx(build_score(0.5).standard_error)


def test_the_standard_error_of_a_mean_is_what_repeated_draws_show():
    """Images are drawn once for all seeds: each has its own chance to be found, which the seeds share in part."""
    rng = np.random.default_rng(0)
    n_val, n_seeds, means, errors = 400, 3, [], []
    for _ in range(1500):
        hardness = rng.normal(0, 2, n_val)  # of the images held out
        scores = []
        for seed in range(n_seeds):
            skill = rng.normal(0, 0.2)  # of the seed
            top1 = float(np.mean(skill > hardness))
            scores.append(build_score(top1, seed=seed, n_val=n_val))
        mean = mean_score(scores)
        means.append(mean.value)
        errors.append(mean.standard_error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.1)


def test_a_proxy_that_has_no_loss_has_none_in_the_mean():
    assert mean_score([build_score(loss=None, seed=seed) for seed in range(2)]).loss is None
