"""Architectures: validation, conversion, canonical forms and keys."""

import json

import pytest
import yaml
from builders import archs, build_arch
from hypothesis import given
from hypothesis import strategies as st

from hilo_nas.arch.attentions import ATTENTION_KINDS, lofi_heads
from hilo_nas.arch.config import N_STAGES, PRESETS, ArchConfig, describe_arch
from hilo_nas.errors import ArchError, UsageError

BASE = {"embed_dims": (24, 48, 96, 192), "depths": (1, 1, 2, 1), "num_heads": (3, 6, 12, 24)}


def arch(**fields):
    return ArchConfig(**{**BASE, **fields})


def faults_of(**fields):
    with pytest.raises(ArchError) as caught:
        arch(**fields)
    return str(caught.value).split("\n")


@pytest.mark.parametrize(
    ("name", "width", "depths", "heads"),
    [
        ("litv2_small", 96, (2, 2, 6, 2), (3, 6, 12, 24)),
        ("litv2_medium", 96, (2, 2, 18, 2), (3, 6, 12, 24)),
        ("litv2_base", 128, (2, 2, 18, 2), (4, 8, 16, 32)),
    ],
)
def test_the_presets_are_the_papers_networks(name, width, depths, heads):
    preset = PRESETS[name]
    assert preset.embed_dims == tuple(width * 2**i for i in range(4))
    assert (preset.depths, preset.num_heads, preset.patch_size) == (depths, heads, 4)
    assert preset.attention == ("none", "none", "hilo", "hilo")
    assert (preset.alpha[2], preset.window_size[2:], set(preset.mlp_ratios)) == (0.9, (2, 1), {4.0})
    assert preset.stride == 32


@pytest.mark.parametrize(
    ("name", "key"),
    [("litv2_small", "8c16aa120c88"), ("litv2_medium", "84170833e994"), ("litv2_base", "6dd47d3c163d")],
)
def test_the_presets_keys_never_change(name, key):
    # Stored studies and exported files name networks by these: a change here orphans them.
    assert PRESETS[name].key() == key


@given(archs())
def test_canonical_is_idempotent_and_keeps_the_key(some):
    canonical = some.canonical()
    assert canonical.canonical() == canonical
    assert canonical.key() == some.key()
    assert canonical.depths == some.depths
    assert canonical.embed_dims == some.embed_dims


@given(archs())
def test_canonical_keeps_every_head_split_and_every_hidden_width(some):
    canonical = some.canonical()
    for i in range(N_STAGES):
        uses = ATTENTION_KINDS[some.attention[i]].uses
        assert int(some.embed_dims[i] * some.mlp_ratios[i]) == int(canonical.embed_dims[i] * canonical.mlp_ratios[i])
        assert canonical.num_heads[i] == some.num_heads[i] or "num_heads" not in uses
        assert canonical.window_size[i] == some.window_size[i] or "window_size" not in uses
        if "alpha" in uses:
            assert lofi_heads(canonical.num_heads[i], canonical.alpha[i], canonical.window_size[i]) == lofi_heads(
                some.num_heads[i], some.alpha[i], some.window_size[i]
            )


@given(archs(), st.integers(1, 9), st.floats(0, 1), st.integers(1, 9))
def test_a_stage_without_attention_ignores_heads_alpha_and_window(some, heads, alpha, window):
    def with_first(values, value):
        return (value, *values[1:])

    fields = {**some.to_dict(), "attention": with_first(some.attention, "none")}
    other = {
        **fields,
        "num_heads": with_first(some.num_heads, heads),
        "alpha": with_first(some.alpha, alpha),
        "window_size": with_first(some.window_size, window),
    }
    assert ArchConfig(**fields).key() == ArchConfig(**other).key()


def test_a_window_of_one_ignores_alpha():
    keys = {arch(window_size=(2, 2, 2, 1), alpha=(0.9, 0.9, 0.9, alpha)).key() for alpha in (0.0, 0.3, 0.9, 1.0)}
    assert len(keys) == 1


@pytest.mark.parametrize("heads", [1, 3, 6, 12])
def test_alphas_fold_to_one_network_per_head_split(heads):
    alphas = [i / 100 for i in range(101)]
    keys = {arch(num_heads=(3, 6, heads, 24), alpha=(0.9, 0.9, alpha, 0.9)).key() for alpha in alphas}
    assert len(keys) == heads + 1


def test_every_alpha_below_one_head_is_the_network_without_lofi():
    assert arch(alpha=(0, 0, 0.0, 0.9)).canonical().alpha[2] == 0.0
    assert arch(alpha=(0, 0, 0.0, 0.9)).key() == arch(alpha=(0, 0, 0.08, 0.9)).key()
    assert arch(alpha=(0, 0, 0.0, 0.9)).key() != arch(alpha=(0, 0, 0.084, 0.9)).key()
    assert arch(alpha=(0, 0, 1.0, 0.9)).canonical().alpha[2] == 1.0


def test_mlp_ratios_fold_to_one_network_per_hidden_width():
    assert arch(mlp_ratios=(4, 4, 4, 4)).key() == arch(mlp_ratios=(4.02, 4, 4, 4)).key()
    assert arch(mlp_ratios=(4, 4, 4, 4)).key() != arch(mlp_ratios=(4.05, 4, 4, 4)).key()


@pytest.mark.parametrize("knob", ["embed_dims", "depths", "num_heads", "alpha", "window_size", "mlp_ratios"])
def test_every_used_knob_changes_the_key(knob):
    other = {
        "embed_dims": (24, 48, 96, 216),
        "depths": (1, 1, 3, 1),
        "num_heads": (3, 6, 8, 24),
        "alpha": (0.9, 0.9, 0.5, 0.9),
        "window_size": (2, 2, 4, 1),
        "mlp_ratios": (4, 4, 4, 3),
    }
    assert arch(**{knob: other[knob]}).key() != arch().key()


def test_attention_and_patch_size_change_the_key():
    keys = {arch().key(), arch(patch_size=2).key(), arch(attention=("none", "none", "none", "hilo")).key()}
    assert len(keys) == 3


def test_the_key_does_not_depend_on_the_number_format():
    plain = arch(mlp_ratios=(4.0,) * 4)
    lists = ArchConfig(
        embed_dims=[24.0, 48, 96, 192],
        depths=[1, 1, 2.0, 1],
        num_heads=[3, 6, 12, 24],
        mlp_ratios=[4, 4, 4, 4],
        patch_size=4.0,
    )
    assert lists == plain
    assert lists.key() == plain.key()
    assert hash(lists) == hash(plain)
    assert lists.to_dict() == plain.to_dict()
    assert isinstance(lists.patch_size, int)
    assert all(isinstance(ratio, float) for ratio in lists.mlp_ratios)


@given(archs())
def test_architectures_survive_json_and_yaml(some):
    assert ArchConfig.from_dict(json.loads(json.dumps(some.to_dict()))) == some
    assert ArchConfig.from_dict(yaml.safe_load(yaml.safe_dump(some.to_dict()))) == some


def test_a_key_is_twelve_hexadecimal_digits():
    assert len(arch().key()) == 12
    assert int(arch().key(), 16) >= 0


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"depths": (1, 1, 2)}, "depths must have 4 values, one per stage, but got 3: [1, 1, 2]"),
        ({"depths": 2}, "depths must be a list of 4 values, one per stage, but got 2"),
        ({"attention": "hilo"}, "attention must be a list of 4 values, one per stage, but got 'hilo'"),
        ({"depths": (1, 1, 2.5, 1)}, "stage 3: depths must be a whole number, but got 2.5"),
        ({"depths": (1, True, 2, 1)}, "stage 2: depths must be a whole number, but got True"),
        ({"alpha": (0.5, 0.5, "half", 0.5)}, "stage 3: alpha must be a number, but got 'half'"),
        ({"mlp_ratios": (4, None, 4, 4)}, "stage 2: mlp_ratios must be a number, but got None"),
        ({"attention": ("none", 0, "hilo", "hilo")}, "stage 2: attention must be a name, but got 0"),
        ({"patch_size": "4"}, "patch_size must be a whole number, but got '4'"),
        ({"patch_size": 0}, "patch_size must be at least 1, but got 0"),
        ({"embed_dims": (0, 48, 96, 192)}, "stage 1: embed_dims must be at least 1, but got 0"),
        ({"depths": (1, 0, 2, 1)}, "stage 2: depths must be at least 1, but got 0"),
        ({"num_heads": (-1, 6, 12, 24)}, "stage 1: num_heads must be at least 1, but got -1"),
        (
            {"attention": ("none", "none", "hylo", "hilo")},
            f"stage 3: attention must be one of {', '.join(ATTENTION_KINDS)}, but got 'hylo'",
        ),
        (
            {"num_heads": (3, 6, 7, 24)},
            "stage 3: num_heads must divide embed_dims (96), but got 7. Use one of 3, 4, 6, 8.",
        ),
        ({"alpha": (0.9, 0.9, 1.5, 0.9)}, "stage 3: alpha must be in [0, 1], but got 1.5"),
        ({"alpha": (0.9, 0.9, float("nan"), 0.9)}, "alpha must be"),
        ({"window_size": (2, 2, 0, 1)}, "stage 3: window_size must be at least 1, but got 0"),
        ({"mlp_ratios": (0.001, 4, 4, 4)}, "stage 1: mlp_ratios must give a hidden width of at least 1, but got 0.001"),
        ({"mlp_ratios": (-1, 4, 4, 4)}, "stage 1: mlp_ratios must give a hidden width of at least 1, but got -1.0"),
    ],
)
def test_an_invalid_value_is_named_with_its_stage(fields, fault):
    faults = faults_of(**fields)
    assert len(faults) == 1
    assert fault in faults[0]


def test_infinite_ratios_are_refused_as_a_fault():
    (fault,) = faults_of(mlp_ratios=(4, 4, 4, float("inf")))
    assert "stage 4: mlp_ratios" in fault


def test_the_message_for_invalid_heads_lists_the_nearest_divisors():
    (fault,) = faults_of(num_heads=(3, 6, 7, 24))
    options = [int(word) for word in fault.partition("Use one of ")[2].rstrip(".").split(", ")]
    assert len(options) == 4
    assert all(96 % option == 0 for option in options)
    assert {6, 8} <= set(options)


def test_heads_need_not_divide_the_width_where_there_is_no_attention():
    assert arch(num_heads=(7, 5, 12, 24)).num_heads[0] == 7


def test_all_invalid_values_are_reported_at_once():
    faults = faults_of(depths=(0, 1, 2, 1), alpha=(0.9, 2, 0.9, 0.9), num_heads=(3, 6, 7, 24), patch_size=0)
    assert len(faults) == 4


def test_from_dict_names_unknown_and_missing_fields():
    with pytest.raises(ArchError) as caught:
        ArchConfig.from_dict({"embed_dims": [1] * 4, "depth": [1] * 4})
    unknown, *missing = str(caught.value).split("\n")
    assert unknown.startswith("unknown field 'depth'; the fields are embed_dims, depths")
    assert missing == ["depths is missing", "num_heads is missing"]


def test_an_architecture_error_is_a_usage_error():
    assert issubclass(ArchError, UsageError)
    assert ArchError.exit_code == 2


def test_architectures_cannot_be_changed():
    with pytest.raises(AttributeError):
        arch().patch_size = 2  # type: ignore[misc]


def test_a_kind_of_attention_declares_the_knobs_that_it_uses():
    assert ATTENTION_KINDS["none"].uses == ()
    assert set(ATTENTION_KINDS["hilo"].uses) == {"num_heads", "alpha", "window_size"}
    by_heads = {name for name, kind in ATTENTION_KINDS.items() if kind.uses == ("num_heads",)}
    assert by_heads == {"msa", "pooled", "xca", "clustered"}
    with_window = {name for name, kind in ATTENTION_KINDS.items() if kind.uses == ("num_heads", "window_size")}
    assert with_window == {"sra", "window", "shifted", "hat", "carrier", "elfatt"}


@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_a_knob_changes_the_key_only_if_its_kind_uses_it(kind):
    base = arch(attention=("none", "none", kind, "hilo"))
    others = {"num_heads": (3, 6, 8, 24), "alpha": (0.9, 0.9, 0.5, 0.9), "window_size": (2, 2, 4, 1)}
    changed = {
        name for name, value in others.items() if arch(attention=base.attention, **{name: value}).key() != base.key()
    }
    assert changed == set(ATTENTION_KINDS[kind].uses)


def test_kinds_of_attention_are_different_networks():
    assert len({arch(attention=("none", "none", kind, "hilo")).key() for kind in ATTENTION_KINDS}) == len(
        ATTENTION_KINDS
    )


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        (PRESETS["litv2_small"], "p4 96-192-384-768 x 2-2-6-2, mlp 4 [3: 10/12 lofi, s=2; 4: 24 heads]"),
        (
            build_arch(alpha=(0, 0, 0.0, 1.0), window_size=(1, 1, 4, 2)),
            "p2 16-32-64-128 x 1-1-1-1, mlp 4 [3: 0/4 lofi, s=4; 4: 8/8 lofi, s=2]",
        ),
        (build_arch(attention=("none",) * 4, mlp_ratios=(2,) * 4), "p2 16-32-64-128 x 1-1-1-1, mlp 2"),
        (build_arch(attention=("none",) * 4, mlp_ratios=(2, 4, 2.5, 2)), "p2 16-32-64-128 x 1-1-1-1, mlp 2-4-2.5-2"),
    ],
    ids=["small", "all-or-none-lofi", "no-attention", "ratios-per-stage"],
)
def test_an_architecture_is_described_in_one_line(arch, text):
    assert describe_arch(arch) == text
