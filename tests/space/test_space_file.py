"""Search spaces as YAML files: every fault at once, with its line and the way out."""

import re
from pathlib import Path

import pytest

from hilo_nas.arch.attentions import ATTENTION_KINDS
from hilo_nas.arch.config import PRESETS
from hilo_nas.errors import FileFaultsError, NotFoundError
from hilo_nas.space import SearchSpace, find_space, list_shipped, load_space
from hilo_nas.space.space_file import build_space

KINDS = ", ".join(ATTENTION_KINDS)
GOOD = """\
description: small
patch_size: [2]
embed_dims: [8, 16]
depths: [[1, 2], [1], [1, 2], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
alpha: [0.5]
window_size: [1, 2]
mlp_ratios: [2]
"""


def load(tmp_path: Path, text: str) -> SearchSpace:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return load_space(str(path))


def faults_of(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(FileFaultsError) as caught:
        load(tmp_path, text)
    count = len(caught.value.faults)
    head = f"{tmp_path / 'mine.yaml'}: {'1 fault' if count == 1 else f'{count} faults'}"
    assert str(caught.value) == "\n".join([head, *(f"  {fault}" for fault in caught.value.faults)])
    assert caught.value.exit_code == 2
    return list(caught.value.faults)


def replaced(line: str, *, by: str) -> str:
    """The good file with the line of one knob replaced."""
    name = line.partition(":")[0]
    lines = [by if entry.startswith(f"{name}:") else entry for entry in GOOD.splitlines()]
    assert lines != GOOD.splitlines()
    return "\n".join(entry for entry in lines if entry) + "\n"


def test_a_good_file_is_a_space(tmp_path):
    space = load(tmp_path, GOOD)
    assert (space.name, space.description) == ("mine", "small")
    assert space.dimensions == {"embed_dims": 2, "depths_1": 2, "depths_3": 2, "window_size": 2}
    assert (space.limits, space.anchors, space.defaults) == ({}, (), {})


@pytest.mark.parametrize(
    ("by", "fault"),
    [
        ("depths: []", "line 4: depths has no values: a knob needs at least one"),
        ("depths: [[1], [], [1], [1]]", "line 4: depths of stage 2 has no values: a knob needs at least one"),
        ("depths: 2", "line 4: depths must be a list of values to choose from, but got 2. Write [2]."),
        ("depths:", "line 4: depths must be a list of values to choose from, but got None"),
        (
            "depths: [[1], [1], [1]]",
            "line 4: depths must be one list of values for all stages, or 4 lists, one per stage, but got 3 entries of "
            "which 3 are lists",
        ),
        ("depths: [[1], 1, [1], [1]]", "but got 4 entries of which 3 are lists"),
        ("depths: [0, 1]", "line 4: depths must be a whole number of at least 1, but got 0"),
        (
            "depths: [[1], [1.5], [1], [1]]",
            "line 4: depths of stage 2 must be a whole number of at least 1, but got 1.5",
        ),
        ("depths: [.inf]", "line 4: depths must be a whole number of at least 1, but got inf"),
        ("depths: [.nan]", "line 4: depths must be a whole number of at least 1, but got nan"),
        ("depths: [two]", "line 4: depths must be a number, but got 'two'"),
        ("depths: [true]", "line 4: depths must be a number, but got True"),
        ("depths: [1, 2, 1]", "line 4: depths contains 1 twice."),
        (
            "depths: [2, 2, 6, 2]",
            "line 4: depths contains 2 twice. For one value per stage write [[2], [2], [6], [2]].",
        ),
        ("window_size: [0, 2]", "line 8: window_size must be a whole number of at least 1, but got 0"),
        ("window_size: [-1]", "line 8: window_size must be a whole number of at least 1, but got -1"),
        ("alpha: [0.5, 1.5]", "line 7: alpha must be in [0, 1], but got 1.5"),
        ("alpha: [[0.5], [0.5], [-0.1], [0.5]]", "line 7: alpha of stage 3 must be in [0, 1], but got -0.1"),
        ("alpha: [.nan]", "line 7: alpha must be in [0, 1], but got nan"),
        ("mlp_ratios: [0]", "line 9: mlp_ratios must be in (0, 64], but got 0"),
        ("mlp_ratios: [.inf]", "line 9: mlp_ratios must be in (0, 64], but got inf"),
        (
            "mlp_ratios: [0.1, 2]",
            "line 9: stage 1: mlp_ratios must give a hidden width of at least 1, but 0.1 of 8 gives none. "
            "Use at least 0.125.",
        ),
        ("mlp_ratios: [[2], [2], [0.01], [2]]", "line 9: stage 3: mlp_ratios must give a hidden width of at least 1"),
        pytest.param(
            f"depths: [{10**400}]", "line 4: depths must be at most 1000, but got 1000", id="depths beyond floats"
        ),
        pytest.param(
            f"mlp_ratios: [{10**400}]", "line 9: mlp_ratios must be in (0, 64], but got 1000", id="ratio beyond floats"
        ),
        ("depths: &x [*x]", "is not YAML: an alias must not be inside the value that it repeats"),
        ("depths: &x [*x, *x, *x, *x]", "is not YAML: an alias must not be inside the value that it repeats"),
        ("embed_dims: [8, 0]", "line 3: embed_dims must be a whole number of at least 1, but got 0"),
        ("head_dim: [7]", "line 5: stage 3: head_dim must divide every width, but 7 does not divide 32"),
        ("attention: [hylo]", f"line 6: attention must be one of {KINDS}, but got 'hylo'"),
        (
            "attention: [[none], [none], [3], [hilo]]",
            f"line 6: attention of stage 3 must be one of {KINDS}, but got 3",
        ),
        (
            "patch_size: [[1], [1], [2], [2]]",
            "line 2: patch_size applies to the whole network: give one list of values, not one per stage",
        ),
        ("description: [a]", "line 1: description must be text, but got ['a']"),
    ],
)
def test_a_knob_that_cannot_be_is_named_with_its_line(tmp_path, by, fault):
    assert fault in "\n".join(faults_of(tmp_path, replaced(by, by=by)))


def test_heads_that_do_not_divide_a_width_are_named_for_every_stage_with_attention(tmp_path):
    text = replaced("head_dim: x", by="num_heads: [[1], [1], [3, 4], [5]]")
    assert faults_of(tmp_path, text) == [
        "line 5: stage 3: num_heads must divide every width, but 3 does not divide 32",
        "line 5: stage 3: num_heads must divide every width, but 3 does not divide 64",
        "line 5: stage 4: num_heads must divide every width, but 5 does not divide 64",
        "line 5: stage 4: num_heads must divide every width, but 5 does not divide 128",
    ]


def test_heads_need_not_divide_where_there_can_be_no_attention(tmp_path):
    space = load(tmp_path, replaced("head_dim: x", by="head_dim: [[3], [5], [8], [8]]"))
    arch = space.decode(dict.fromkeys(space.dimensions, 0))
    assert arch.attention[:2] == ("none", "none")
    assert arch.canonical().num_heads[:2] == (1, 1)


@pytest.mark.parametrize("name", ["embed_dims", "depths", "attention", "window_size"])
def test_a_knob_that_is_missing_is_named(tmp_path, name):
    assert any(fault.startswith(f"{name} is missing: ") for fault in faults_of(tmp_path, replaced(name, by="")))


@pytest.mark.parametrize("name", ["alpha", "mlp_ratios", "patch_size"])
def test_a_knob_that_has_a_default_may_be_left_out(tmp_path, name):
    space = load(tmp_path, replaced(name, by=""))
    value = {"alpha": 0.9, "mlp_ratios": 4.0, "patch_size": 4}[name]
    assert next(knob.choices for knob in space.knobs if knob.name == name) == (value,)


def test_exactly_one_rule_for_heads_must_be_given(tmp_path):
    both = GOOD + "num_heads: [1]\n"
    assert faults_of(tmp_path, both) == ["line 10: exactly one of head_dim and num_heads must be given, but both are"]
    neither = faults_of(tmp_path, replaced("head_dim", by=""))
    assert neither == ["exactly one of head_dim and num_heads must be given, but neither is"]


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ("depth: [1]", "line 10: unknown entry 'depth'. Did you mean depths?"),
        ("embed_dim: [1]", "line 10: unknown entry 'embed_dim'. Did you mean embed_dims?"),
        ("limit: {}", "line 10: unknown entry 'limit'. Did you mean limits?"),
        ("zzz: 1", "line 10: unknown entry 'zzz'. Known entries: patch_size, embed_dims"),
        ("7: 1", "line 10: unknown entry 7."),
        ("limits: {params: 3}", "line 10: unknown limit 'params'. Known limits: params_m, gmacs, images_per_s"),
        ("limits: {params_m: 0}", "line 10: limit params_m must be a number above 0, but got 0"),
        ("limits: {params_m: -1}", "line 10: limit params_m must be a number above 0, but got -1"),
        ("limits: {params_m: .inf}", "line 10: limit params_m must be a number above 0, but got inf"),
        ("limits: {params_m: .nan}", "line 10: limit params_m must be a number above 0, but got nan"),
        ("limits: {params_m: much}", "line 10: limit params_m must be a number above 0, but got 'much'"),
        ("limits: {params_m: true}", "line 10: limit params_m must be a number above 0, but got True"),
        ("limits: [3]", "line 10: limits must be a mapping, but got [3]"),
        ("defaults: {size: 3}", "line 10: unknown default 'size'. Known defaults: img_size, batch_size"),
        ("defaults: {trials: 0}", "line 10: default trials must be a whole number of at least 1, but got 0"),
        ("defaults: {trials: 1.5}", "line 10: default trials must be a whole number of at least 1, but got 1.5"),
        ("defaults: 3", "line 10: defaults must be a mapping, but got 3"),
        ("anchors: [litv2_small]", "line 10: anchors must be a mapping, but got ['litv2_small']"),
        ("anchors: {a: 3}", "line 10: anchor a must be an architecture or the name of one of litv2_small"),
        ("anchors: {a: litv2_tiny}", "line 10: anchor a: preset must be one of litv2_small, litv2_medium, litv2_base"),
        (
            "anchors: {a: litv2_small}",
            "line 10: anchor a: the space does not contain this network: patch_size has [2], but",
        ),
        ("anchors: {a: {depths: [1, 1, 1, 1], num_heads: [1, 1, 1, 1]}}", "line 10: anchor a: embed_dims is missing"),
        ("anchors: {a: {preset: litv2_small, depth: 3}}", "line 10: anchor a: unknown field 'depth'"),
        ("anchors: {a: {preset: litv2_small, num_heads: [3, 6, 7, 24]}}", "anchor a: stage 3: num_heads must divide"),
        (
            "anchors: {a: {preset: [x]}}",
            "line 10: anchor a: preset must be one of litv2_small, litv2_medium, litv2_base",
        ),
        ("anchors: {a: {preset: {}}}", "line 10: anchor a: preset must be one of litv2_small"),
        (
            "anchors: {a: &x {preset: litv2_small, b: *x}}",
            "is not YAML: an alias must not be inside the value that it repeats",
        ),
        (
            "anchors: {a: {preset: litv2_small, depths: &x [*x, 1, 1, 1]}}",
            "is not YAML: an alias must not be inside the value that it repeats",
        ),
        ("a: &x [*x]", "is not YAML: an alias must not be inside the value that it repeats"),
        ("limits: &x {params_m: *x}", "is not YAML: an alias must not be inside the value that it repeats"),
        pytest.param(
            f"limits: {{gmacs: {10**400}}}",
            "line 10: limit gmacs must be a number above 0, but got 1000",
            id="limit beyond floats",
        ),
        ("~: 1", "unknown entry None."),
        ("2001-02-03: 1", "unknown entry datetime.date(2001, 2, 3)."),
        ("true: 1", "unknown entry True."),
        ("twice: 1", "line 10: unknown entry 'twice'."),
        ("limits: {7: 3}", "line 10: unknown limit 7."),
        ("limits: {~: 3}", "line 10: unknown limit None."),
        ("limits: {twice: 3}", "line 10: unknown limit 'twice'."),
        ("defaults: {1.5: 3}", "line 10: unknown default 1.5."),
        ("anchors: {7: 3}", "line 10: anchor 7 must be an architecture"),
        ("anchors: {a: {preset: litv2_small, 7: 3}}", "line 10: anchor a: unknown field 7"),
        ("depths: [1]", "line 10: depths is given twice. Keep one."),
    ],
)
def test_an_entry_that_cannot_be_is_named_with_its_line(tmp_path, entry, fault):
    (found,) = faults_of(tmp_path, GOOD + entry + "\n")
    assert fault in found


def test_an_anchor_outside_the_space_must_be_declared(tmp_path):
    (fault,) = faults_of(tmp_path, GOOD + "anchors: {a: litv2_small}\n")
    assert fault.endswith("Add the values, or mark it with `outside: true`.")
    space = load(tmp_path, GOOD + "anchors: {a: {preset: litv2_small, outside: true}}\n")
    assert space.anchors[0].outside
    assert space.anchors[0].arch == PRESETS["litv2_small"]


def test_a_preset_may_be_changed_in_an_anchor(tmp_path):
    space = load(tmp_path, GOOD + "anchors: {a: {preset: litv2_small, patch_size: 2, outside: true}}\n")
    assert space.anchors[0].arch.patch_size == 2
    assert space.anchors[0].arch.depths == PRESETS["litv2_small"].depths


def test_all_faults_are_told_at_once_in_the_order_of_their_lines(tmp_path):
    text = """\
patch_size: [0]
embed_dim: [8]
depths:
  - [1]
  - []
  - [2, 2]
  - [1.5]
head_dim: [8]
num_heads: [2]
attention: [[none], [linformer], [hilo], [hilo]]
alpha: [0.5, 2]
alpha: [0.5]
window_size: [0]
mlp_ratios: 4
limits:
  params: 3
  gmacs: -1
defaults:
  trials: none
anchors:
  small: litv2_tiny
  other:
    embed_dims: [8, 16, 32, 64]
    depths: [1, 1, 1, 0]
    num_heads: [1, 1, 3, 1]
"""
    faults = faults_of(tmp_path, text)
    expected = [
        (None, "embed_dims is missing"),
        (1, "patch_size must be a whole number of at least 1, but got 0"),
        (2, "unknown entry 'embed_dim'. Did you mean embed_dims?"),
        (5, "depths of stage 2 has no values"),
        (6, "depths of stage 3 contains 2 twice"),
        (7, "depths of stage 4 must be a whole number of at least 1, but got 1.5"),
        (9, "exactly one of head_dim and num_heads must be given, but both are"),
        (10, f"attention of stage 2 must be one of {KINDS}, but got 'linformer'"),
        (12, "alpha is given twice"),
        (13, "window_size must be a whole number of at least 1, but got 0"),
        (14, "mlp_ratios must be a list of values to choose from, but got 4. Write [4]."),
        (16, "unknown limit 'params'"),
        (17, "limit gmacs must be a number above 0, but got -1"),
        (19, "default trials must be a whole number of at least 1, but got 'none'"),
        (21, "anchor small: preset must be one of"),
        (22, "anchor other: stage 3: num_heads must divide embed_dims (32), but got 3. Use one of 1, 2, 4, 8."),
        (22, "anchor other: stage 4: depths must be at least 1, but got 0"),
    ]
    found = []
    for fault in faults:
        at = re.match(r"line (\d+): ", fault)
        found.append((int(at[1]) if at else None, fault[at.end() if at else 0 :]))
    assert [line for line, _ in found] == [line for line, _ in expected]
    for (_, text), (_, start) in zip(found, expected, strict=True):
        assert text.startswith(start)


def test_a_value_on_a_line_of_its_own_is_named_by_that_line(tmp_path):
    text = replaced("depths", by="depths:\n  - [1]\n  -\n    - 1\n    - 0\n  - [1]\n  - [1]")
    assert faults_of(tmp_path, text) == [
        "line 8: depths of stage 2 must be a whole number of at least 1, but got 0",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_an_empty_file_is_named(tmp_path, text):
    assert faults_of(tmp_path, text) == [
        "is empty, but a space needs embed_dims, depths, attention and other knobs. See `space show`"
    ]


@pytest.mark.parametrize(("text", "kind"), [("[1, 2]", "list"), ("hello", "str"), ("3", "int")])
def test_a_file_that_is_no_mapping_is_named(tmp_path, text, kind):
    assert faults_of(tmp_path, text) == [f"must be a mapping of knobs, but is a {kind}"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("depths: [1\nalpha: [0.5]\n", r"^line 2: is not YAML: "),
        ("a: b: c\n", r"^line 1: is not YAML: "),
        ("a: \x07\n", r"is not YAML: "),
        ("a: !!python/object:os.system {}\n", r"^line 1: is not YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", r"is not YAML: "),
        ("? [1, 2]\n: 3\n", r"is not YAML|unknown entry"),
        ("{[1]: 2}\n", r"is not YAML|unknown entry"),
        ("? {a: 1}\n: 3\n", r"is not YAML|unknown entry"),
    ],
)
def test_a_file_that_is_no_yaml_is_named(tmp_path, text, fault):
    assert re.search(fault, faults_of(tmp_path, text)[0])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param("[" * 5000 + "]" * 5000, "line 1: is not YAML: values must be nested at most 40 deep", id="deep"),
        ("a: 2001-02-30", "is not YAML: it has an invalid value: day is out of range for month"),
        ("a: !!int x", "is not YAML: it has an invalid value: invalid literal for int"),
        ("a: !!bool x", "is not YAML: it has an invalid value: 'x'"),
        ("a: !!timestamp x", "is not YAML: it has an invalid value: "),
        pytest.param("a: " + "1" * 5000, "line 1: is not YAML: a number must have at most 1000", id="long"),
    ],
)
def test_a_file_that_yaml_cannot_hold_is_named(tmp_path, text, fault):
    (found,) = faults_of(tmp_path, text)
    assert found.startswith(fault)


def test_aliases_of_aliases_cost_no_time(tmp_path):
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    (fault,) = faults_of(tmp_path, GOOD + "\n".join(rows) + "\n")
    assert "a document must hold at most 50,000 values" in fault


@pytest.mark.parametrize("ratio", [0.2, 0.334, 0.5])
def test_a_ratio_that_leaves_a_hidden_channel_at_every_width_makes_networks(tmp_path, ratio):
    text = replaced("mlp_ratios", by=f"mlp_ratios: [{ratio}]").replace("[8, 16]", "[[5], [8], [8], [16]]")
    space = load(tmp_path, text)
    assert space.decode(dict.fromkeys(space.dimensions, 0)).mlp_ratios == (ratio,) * 4


def test_the_ratio_in_the_message_about_a_small_ratio_is_valid(tmp_path):
    for width in range(1, 60):
        rule = f"embed_dims: [[{width}], [8], [8], [8]]\nattention: [[none], [none], [hilo], [hilo]]\n"
        text = f"{rule}depths: [1]\nhead_dim: [8]\nwindow_size: [1]\nmlp_ratios: [[RATIO], [2], [2], [2]]\n"
        (fault,) = faults_of(tmp_path, text.replace("RATIO", "0.001"))
        ratio = fault.rpartition("Use at least ")[2].rstrip(".")
        space = load(tmp_path, text.replace("RATIO", ratio))
        assert int(width * space.decode({}).mlp_ratios[0]) == 1


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileFaultsError, match="cannot be read"):
        load_space(str(path))


def test_yaml_merges_are_no_faults(tmp_path):
    text = GOOD + "anchors:\n  a: &a {preset: litv2_small, outside: true}\n  b: {<<: *a, patch_size: 2}\n"
    assert [anchor.arch.patch_size for anchor in load(tmp_path, text).anchors] == [4, 2]


def test_an_unquoted_none_is_the_attention_none(tmp_path):
    space = load(tmp_path, replaced("attention", by="attention: [[null], [~], [hilo], [hilo]]"))
    assert [knob.choices for knob in space.knobs if knob.name == "attention"][:2] == [("none",), ("none",)]


def test_numbers_are_sorted_and_spelled_as_their_type(tmp_path):
    space = load(tmp_path, replaced("mlp_ratios", by="mlp_ratios: [4, 2.0, 3]").replace("[8, 16]", "[16.0, 8]"))
    choices = {knob.name: knob.choices for knob in space.knobs}
    assert choices["mlp_ratios"] == (2.0, 3.0, 4.0)
    assert choices["embed_dims"] == (8, 16)
    assert all(isinstance(width, int) for width in choices["embed_dims"])


def test_spaces_are_found_by_name_or_path(tmp_path):
    assert find_space("litv2_digits") == list_shipped()["litv2_digits"]
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    assert find_space(str(path)) == path
    assert set(list_shipped()) == {
        "litv2_cifar",
        "litv2_digits",
        "litv2_free",
        "litv2_imagenet",
        "litv2_kinds",
        "litv2_tabular",
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("litv2_digit", "no search space is called 'litv2_digit'. Did you mean litv2_digits"),
        ("zzz", "no search space is called 'zzz'. Shipped spaces: litv2_cifar, litv2_digits"),
        ("gone.yaml", "no search space file at gone.yaml. Shipped spaces: litv2_cifar"),
        ("some/where", "no search space file at some/where. Shipped spaces: "),
    ],
)
def test_a_space_that_is_not_there_is_answered_with_those_that_are(tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotFoundError) as caught:
        load_space(name)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


def test_a_name_longer_than_the_file_system_takes_is_answered_in_words():
    for name in ("x" * 5000, "x" * 5000 + ".yaml"):
        with pytest.raises(NotFoundError, match=r"x\.\.\.: File name too long\. Shipped spaces: litv2_cifar"):
            load_space(name)


def test_a_folder_is_no_space(tmp_path):
    with pytest.raises((NotFoundError, FileFaultsError)):
        load_space(str(tmp_path))


def test_content_without_a_file_is_named_by_the_space():
    with pytest.raises(FileFaultsError, match=r"^mine: \d faults"):
        build_space("mine", {"depths": []})
