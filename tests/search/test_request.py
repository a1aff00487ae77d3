"""Values that no study can have are faults of what was typed, whatever study they are typed for."""

import pytest

from hilo_nas.errors import UsageError
from hilo_nas.search import SearchRequest


@pytest.mark.parametrize(
    ("options", "law"),
    [
        ({"metric": "top5"}, "metric must be one of top1"),
        ({"env": "foo"}, "env must be one of tuned"),
        ({"runtime": "tensorrt"}, "runtime must be one of torch"),
        ({"precision": "fp8"}, "precision must be one of fp32"),
        ({"proxy_precision": "fp16"}, "proxy precision must be one of fp32"),
        ({"group_by": "["}, "group_by must be a regular expression"),
        ({"seed": -1}, "seed must lie between 0 and 4294967295"),
        ({"seed": 2**32}, "seed must lie between 0 and 4294967295"),
    ],
)
def test_a_value_that_no_study_can_have_is_refused(options, law):
    with pytest.raises(UsageError, match=law):
        SearchRequest(study="stored", **options)


def test_all_faults_are_told_at_once():
    with pytest.raises(UsageError) as caught:
        SearchRequest(metric="top5", env="foo", seed=-1, trials=0)
    assert len(str(caught.value).splitlines()) == 4
