"""Models of a search, checked on networks that are left out."""

import math

import pytest
from builders import build_manifest, build_record, build_score

from hilo_nas.arch.cost import count_cost
from hilo_nas.bench.proxy_check.left_out import leave_out_scores, leave_out_speeds
from hilo_nas.space.space_file import load_space

MANIFEST = build_manifest()


def records(count=25, *, noise=0.0):
    space = load_space("litv2_tabular")
    found = {}
    for params in space.neighbours(dict.fromkeys(space.dimensions, 0)):
        for own in (params, *space.neighbours(params)):
            found.setdefault(space.decode(own).key(), space.decode(own))
    made = []
    for i, arch in enumerate([*found.values()][:count]):
        cost = count_cost(arch, 32, num_classes=10)
        value = 0.1 + 0.1 * math.log(cost.parameters / 1e4) + noise * math.sin(12.9898 * i)
        made.append(build_record(i, 1e9 / cost.macs, arch=arch, scores=(build_score(value, images_seen=3008),)))
    return made


def test_each_network_is_predicted_from_the_others():
    own = leave_out_scores(records(), MANIFEST, images=3008, seed=0)
    truth = {record.key: record.score.value for record in records()}
    assert own.predicted.keys() == truth.keys()
    assert own.error < 0.01
    speeds = leave_out_speeds(records(), MANIFEST)
    assert speeds.error < 0.2


def test_a_result_does_not_change_its_own_prediction_much():
    changed = records()
    changed[5] = build_record(
        5, changed[5].measurement.images_per_s, arch=changed[5].arch, scores=(build_score(0.9, images_seen=3008),)
    )
    before, after = (leave_out_scores(own, MANIFEST, images=3008, seed=0) for own in (records(), changed))
    assert abs(before.predicted[changed[5].key] - after.predicted[changed[5].key]) < 0.1
    assert after.error > before.error


def test_shares_within_intervals_are_named():
    own = leave_out_scores(records(noise=0.03), MANIFEST, images=3008, seed=0)
    assert 0.6 <= own.held[0.8] <= own.held[0.95] <= 1
    text = own.sentence("top1@3008", "2 points")
    assert text.startswith("model of top1@3008: each of 25 networks predicted from the others, error 2 points; ")
    assert text.endswith("of the 95 % intervals hold the result")


@pytest.mark.parametrize("count", [0, 1, 7])
def test_few_networks_have_no_check(count):
    assert leave_out_scores(records(count), MANIFEST, images=3008, seed=0) is None
    assert leave_out_speeds(records(count), MANIFEST) is None


def test_scores_of_another_budget_or_seed_do_not_count():
    assert leave_out_scores(records(), MANIFEST, images=999, seed=0) is None
    assert leave_out_scores(records(), MANIFEST, images=3008, seed=1) is None
