"""Networks at random: within the limits, each once, the same for the same seed."""

import itertools

import pytest

from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.errors import UsageError
from hilo_nas.space import draw_networks, load_space
from hilo_nas.space.space_file import build_space

DIGITS = load_space("litv2_digits")


def draw(space=DIGITS, limits=None, **options):
    return list(draw_networks(space, limits or {}, **{"img_size": 32, "num_classes": 10, "draws": 300, **options}))


def test_networks_are_drawn_once_each_with_what_they_cost():
    found = draw()
    assert len({arch.key() for arch, _ in found}) == len(found) > 100
    for arch, cost in found:
        assert cost.parameters == count_params(arch, num_classes=10)
        assert cost.macs == count_macs(arch, 32, num_classes=10)


def test_the_limits_that_formulas_decide_are_kept_and_others_are_passed_over():
    free = draw()
    bound = sorted(cost.macs for _, cost in free)[len(free) // 2]
    within = draw(limits={"gmacs": bound / 1e9, "images_per_s": 1e9})
    assert within == [(arch, cost) for arch, cost in free if cost.macs <= bound]


def test_a_seed_gives_the_same_networks_however_many_are_taken():
    few = itertools.islice(draw_networks(DIGITS, {}, img_size=32, num_classes=10, draws=10_000, seed=3), 20)
    assert list(few) == draw(seed=3)[:20]
    assert draw(seed=3) != draw(seed=4)


def test_where_nothing_is_within_the_limits_nothing_is_drawn():
    assert draw(limits={"params_m": 1e-9}) == []


def test_networks_that_are_too_large_for_the_images_are_passed_over_only_where_asked_for():
    space = build_space("patches", {**DIGITS.to_dict(), "anchors": {}, "patch_size": [1, 4]})
    with pytest.raises(UsageError, match="at least 32 pixels"):
        draw(space, img_size=16)
    assert {arch.patch_size for arch, _ in draw(space, img_size=16, skip_too_large=True)} == {1}
