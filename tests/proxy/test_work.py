"""A job of scoring as plain data: what it fills in, and what it refuses."""

from pathlib import Path

import pytest

from hilo_nas.errors import RecordError, UsageError
from hilo_nas.measurement import ProxyPlan
from hilo_nas.proxy.work import Prepared, ScoreJob

PLAN = ProxyPlan(img_size=16, batch_size=32, images=250, hflip=False)


def job(data, plan=PLAN, **changes):
    fields = {"subject": {"timm": "test_vit"}, "plan": plan.to_dict(), "data": data.to_dict()}
    return ScoreJob.from_dict({**fields, "prepared": {}, "seed": 3, "device": "cpu", **changes})


def test_plain_data_becomes_values(digits16):
    found = job(digits16, until=64, checkpoint="a.pt", score_under=["amp-bf16"], prepared={"facts": {"a": 1}})
    assert (found.plan, found.data, found.prepared) == (PLAN, digits16, Prepared(facts={"a": 1}))
    assert (found.until, found.checkpoint, found.score_under) == (64, Path("a.pt"), ("amp-bf16",))
    assert (found.subject, found.seed, found.device) == ({"timm": "test_vit"}, 3, "cpu")


@pytest.mark.parametrize("absent", [{}, {"until": None, "checkpoint": None, "score_under": None}])
def test_a_job_is_the_whole_budget_without_a_checkpoint_unless_it_says_more(digits16, absent):
    found = job(digits16, **absent)
    assert (found.until, found.checkpoint, found.score_under) == (256, None, ())


def test_a_checkpoint_means_nothing_to_a_proxy_without_rungs(digits16):
    assert job(digits16, PLAN.for_comparison("naswot"), checkpoint="a.pt").checkpoint is None


def test_every_wrong_field_is_named(digits16):
    with pytest.raises(RecordError) as caught:
        job(digits16, seed="first", device=0, colour="red")
    assert {line.split(" ")[0] for line in str(caught.value).split("\n")} == {"seed", "device", "colour"}
    with pytest.raises(RecordError, match="subject, plan, data, prepared, device are missing"):
        ScoreJob.from_dict({"seed": 1})


@pytest.mark.parametrize(
    ("plan", "changes", "law"),
    [
        ({"recipe": "short-0"}, {}, "but has 'short-0'"),
        ({"img_size": 24}, {}, "must be 16, .* but is 24"),
        ({}, {"score_under": ["fp8"]}, "score_under must be one of fp32, .*, but got 'fp8'"),
    ],
)
def test_what_is_not_there_is_refused(digits16, plan, changes, law):
    with pytest.raises(UsageError, match=law):
        job(digits16, ProxyPlan(**{**PLAN.to_dict(), **plan}), **changes)


def test_a_proxy_that_trains_nothing_scores_under_no_other_precision(digits16):
    with pytest.raises(UsageError, match="naswot cannot score under another precision, but got 'amp-bf16'"):
        job(digits16, PLAN.for_comparison("naswot"), score_under=["amp-bf16"])
