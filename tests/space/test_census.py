"""Counting a space, against going through all of it."""

import itertools
from random import Random

import pytest

from hilo_nas.arch.cost import count_macs, count_params
from hilo_nas.errors import UsageError
from hilo_nas.space import SearchSpace, census, count_space, list_shipped, load_space, report_dead_knobs
from hilo_nas.space.space_file import build_space

BASE = {
    "patch_size": [2],
    "embed_dims": [8],
    "depths": [1],
    "head_dim": [8],
    "attention": [["none"], ["none"], ["hilo"], ["hilo"]],
    "alpha": [0.5],
    "window_size": [2],
    "mlp_ratios": [2],
}


def build(**changes) -> SearchSpace:
    content = {**BASE, **changes}
    return build_space("small", {name: value for name, value in content.items() if value is not None})


SMALL = {
    "dead everywhere": build(alpha=[0.0, 0.5, 1.0], window_size=[1, 2], depths=[[1], [1, 2], [1], [1]]),
    "shared and per stage": build(
        patch_size=[1, 2], alpha=[[0.5], [0.5], [0.0, 0.3, 0.5], [0.0, 1.0]], window_size=[1, 2], mlp_ratios=[1, 2]
    ),
    "placement": build(
        attention=[["none", "hilo"], ["none"], ["none", "hilo"], ["hilo"]], alpha=[0.0, 0.4, 0.9], window_size=[1, 2, 4]
    ),
    "heads by number": build(
        head_dim=None,
        num_heads=[[1, 2], [1, 2], [2, 4], [4, 8]],
        embed_dims=[[8], [8, 16], [16], [32]],
        alpha=[0.2, 0.25, 0.5],
    ),
    "ratios that fold": build(
        embed_dims=[[8], [8], [8], [8]], mlp_ratios=[1, 1.05, 1.1, 1.2], depths=[[1], [1], [1], [1, 2]]
    ),
    "kinds": build(
        attention=[["none"], ["none", "xca"], ["hilo", "sra", "msa"], ["hilo", "pooled"]],
        alpha=[0.0, 0.5, 0.6],
        window_size=[1, 2],
    ),
    "one network": build(),
}


def all_archs(space):
    for indices in itertools.product(*(range(n) for n in space.dimensions.values())):
        yield space.decode(dict(zip(space.dimensions, indices, strict=True)))


@pytest.mark.parametrize("name", SMALL)
def test_the_census_counts_what_going_through_the_space_counts(name):
    space = SMALL[name]
    archs = list(all_archs(space))
    found = count_space(space, img_size=32, num_classes=10)
    assert found.n_configs == len(archs) == space.n_configs
    assert found.n_networks == len({arch.key() for arch in archs})
    assert found.is_exact
    assert found.n_networks_se == 0
    params = [count_params(arch, num_classes=10) / 1e6 for arch in archs]
    macs = [count_macs(arch, 32, num_classes=10) / 1e9 for arch in archs]
    assert found.params_m == (min(params), max(params))
    assert found.gmacs == (min(macs), max(macs))
    assert found.within_limits == 1.0


def test_spaces_with_knobs_without_effect_have_fewer_networks_than_settings():
    counts = {
        name: (space.n_configs, count_space(space, img_size=32, num_classes=10).n_networks)
        for name, space in SMALL.items()
    }
    assert counts["one network"] == (1, 1)
    assert counts["dead everywhere"][1] < counts["dead everywhere"][0]
    assert counts["placement"][1] < counts["placement"][0]


@pytest.mark.parametrize("name", ["dead everywhere", "shared and per stage", "placement", "heads by number", "kinds"])
def test_the_estimate_lies_within_four_standard_errors_of_the_count(name):
    exact = count_space(SMALL[name], img_size=32, num_classes=10)
    estimate = count_space(SMALL[name], img_size=32, num_classes=10, exact_up_to=1)
    assert not estimate.is_exact
    assert estimate.n_networks_se < exact.n_networks / 10
    assert abs(estimate.n_networks - exact.n_networks) <= 4 * estimate.n_networks_se + 0.5


def test_the_estimate_of_a_shipped_space_agrees_with_its_count():
    space = load_space("litv2_digits")
    exact = count_space(space, img_size=32, num_classes=10)
    assert exact.is_exact
    estimate = count_space(space, img_size=32, num_classes=10, exact_up_to=1000)
    assert abs(estimate.n_networks - exact.n_networks) <= 4 * estimate.n_networks_se


def test_a_space_without_dead_settings_is_estimated_without_error():
    space = build(depths=[[1, 2, 3, 4]] * 4)
    estimate = count_space(space, img_size=32, num_classes=10, exact_up_to=1)
    assert (estimate.n_networks, estimate.n_networks_se) == (256, 0.0)


@pytest.mark.parametrize("name", list_shipped())
def test_no_sample_of_a_shipped_space_lies_outside_its_range(name):
    space, random = load_space(name), Random(7)
    size, classes = space.defaults["img_size"], space.defaults["num_classes"]
    found = count_space(space, img_size=size, num_classes=classes)
    inside = 0
    for _ in range(200):
        arch = space.decode(space.sample(random))
        params = count_params(arch, num_classes=classes) / 1e6
        gmacs = count_macs(arch, size, num_classes=classes) / 1e9
        assert found.params_m[0] <= params <= found.params_m[1]
        assert found.gmacs[0] <= gmacs <= found.gmacs[1]
        inside += params <= space.limits.get("params_m", params) and gmacs <= space.limits.get("gmacs", gmacs)
    assert found.within_limits == pytest.approx(inside / 200, abs=0.15)
    assert found.is_exact == (found.n_configs <= census.EXACT_UP_TO)


def test_the_share_within_limits_is_that_of_free_limits_alone():
    plain = build(depths=[[1], [1], [1], [1, 2]])
    params = sorted(count_params(arch, num_classes=10) / 1e6 for arch in all_archs(plain))
    limited = build(depths=[[1], [1], [1], [1, 2]], limits={"params_m": sum(params) / 2, "images_per_s": 1e9})
    assert count_space(limited, img_size=32, num_classes=10).within_limits == pytest.approx(0.5, abs=0.1)
    assert count_space(plain, img_size=32, num_classes=10).within_limits == 1.0


def test_images_smaller_than_the_stride_of_some_network_are_refused():
    space = build(patch_size=[2, 4])
    count_space(space, img_size=32, num_classes=10)
    with pytest.raises(UsageError, match=r"at least 32 pixels .*but got 31 x 31"):
        count_space(space, img_size=31, num_classes=10)


def test_the_cifar_space_says_what_dies_at_32_pixels_with_patch_4():
    found = report_dead_knobs(load_space("litv2_cifar"), img_size=32, proxy_img_size=32)
    assert (
        "at 32 px (timing and proxy size) with patch_size 4, stage 3: window_size 4 exceeds the map of 2 x 2 tokens: "
        "most of each window is padding"
    ) in found
    assert (
        "at 32 px (timing and proxy size) with patch_size 4, stage 4: the map is 1 x 1: attention sees one token, so "
        "alpha and window_size have no effect"
    ) in found
    assert not any("patch_size 1," in text for text in found)
    assert not any("patch_size 2," in text for text in found)


def test_the_cifar_space_fits_at_64_pixels():
    found = report_dead_knobs(load_space("litv2_cifar"), img_size=64, proxy_img_size=64)
    assert not any("patch_size" in text for text in found)


def test_timing_size_and_proxy_size_are_reported_separately():
    found = report_dead_knobs(load_space("litv2_cifar"), img_size=64, proxy_img_size=32)
    assert any(text.startswith("at 32 px (proxy size) with patch_size 4, stage 3: window_size 4") for text in found)
    assert not any("timing" in text for text in found)
    found = report_dead_knobs(load_space("litv2_cifar"), img_size=32, proxy_img_size=64)
    assert any(text.startswith("at 32 px (timing size) with patch_size 4, stage 3: window_size 4") for text in found)
    assert not any("proxy" in text for text in found)


def test_the_digits_space_fits_its_maps_and_reports_equivalent_alphas():
    found = report_dead_knobs(load_space("litv2_digits"), img_size=32, proxy_img_size=32)
    assert "stage 3: 5 values of alpha give 3 different networks at 2 heads" in found
    assert all("values of alpha give" in text for text in found)


def test_knobs_of_stages_without_attention_are_dead():
    space = build(attention=[["none"]] * 4, alpha=[0.0, 0.5], window_size=[[1, 2], [1], [1], [1]], head_dim=[4, 8])
    found = report_dead_knobs(space, img_size=64, proxy_img_size=64)
    assert found == [
        f"{param} has no effect: no stage with this knob can have attention"
        for param in ("head_dim", "alpha", "window_size_1")
    ]


def test_alpha_has_no_effect_with_a_window_size_of_one():
    space = build(alpha=[[0.5], [0.5], [0.5], [0.0, 0.5]], window_size=[[2], [2], [2], [1]])
    found = report_dead_knobs(space, img_size=64, proxy_img_size=64)
    assert len(found) == 1
    assert found[0].startswith("stage 4: alpha_4 has no effect")


def test_a_knob_that_no_attention_of_its_stages_uses_has_no_effect():
    space = build(
        attention=[["none"], ["none"], ["msa", "none"], ["sra", "window"]],
        alpha=[[0.5], [0.5], [0.0, 0.5], [0.0, 0.5]],
        window_size=[[2], [2], [2, 4], [2, 4]],
    )
    assert report_dead_knobs(space, img_size=64, proxy_img_size=64) == [
        f"{param} has no effect: no stage with this knob can have attention that uses it"
        for param in ("alpha_3", "alpha_4", "window_size_3")
    ]


def test_a_knob_that_one_attention_uses_is_not_reported():
    space = build(
        attention=[["none"], ["none"], ["msa", "hilo"], ["pooled", "carrier"]],
        alpha=[[0.5], [0.5], [0.0, 0.5], [0.5]],
        window_size=[[2], [2], [2], [2, 4]],
    )
    assert report_dead_knobs(space, img_size=64, proxy_img_size=64) == []


def test_on_a_map_of_one_token_only_knobs_in_use_are_named():
    space = build(
        attention=[["none"], ["none"], ["msa"], ["sra"]], alpha=[0.0, 0.5], window_size=[2, 4], patch_size=[4]
    )
    found = report_dead_knobs(space, img_size=64, proxy_img_size=32)
    assert [text for text in found if "1 x 1" in text] == [
        "at 32 px (proxy size) with patch_size 4, stage 4: the map is 1 x 1: attention sees one token, so window_size "
        "has no effect"
    ]


@pytest.mark.parametrize("kind", ["window", "shifted"])
def test_window_attention_with_windows_of_one_token_is_reported(kind):
    space = build(attention=[["none"], ["none"], ["hilo", "sra"], ["hilo", kind]], window_size=[1, 2])
    assert report_dead_knobs(space, img_size=64, proxy_img_size=64) == [
        f"stage 4: with window_size 1, each token of {kind} attention attends only to itself"
    ]


def test_a_space_in_which_every_setting_counts_has_nothing_to_report():
    space = build(depths=[1, 2], alpha=[[0.5], [0.5], [0.0, 0.5], [0.0, 0.5]], window_size=[2])
    assert report_dead_knobs(space, img_size=64, proxy_img_size=64) == []


def test_an_image_below_the_stride_is_reported_and_the_rest_still_is():
    found = report_dead_knobs(load_space("litv2_cifar"), img_size=32, proxy_img_size=16)
    assert any(
        text.startswith("at 16 px (proxy size) with patch_size 4: an image must be at least 32") for text in found
    )
    assert any(text.startswith("at 16 px (proxy size) with patch_size 2, stage 3: window_size 4") for text in found)
