"""Images of one object on one side of the split."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hilo_nas.data import prepare_data
from hilo_nas.data.cache import load_arrays, load_members
from hilo_nas.data.groups import group_images, hash_groups
from hilo_nas.data.held_out import split_held_out
from hilo_nas.errors import DataError, UsageError
from hilo_nas.events import Notice
from hilo_nas.measurement import ProxyPlan
from hilo_nas.proxy.batches import ImageSet

PATIENT = r"(p\d+)_"
CPU = torch.device("cpu")


def plan(**fields):
    return ProxyPlan(**{"img_size": 8, "batch_size": 4, "images": 8, **fields})


def digests_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, (count, 2), dtype=np.uint64)


def split(labels, groups, fraction, digests=None):
    labels, groups = np.array(labels), np.array(groups)
    digests = digests_of(0, len(labels)) if digests is None else digests
    names = [f"class {label}" for label in range(int(labels.max()) + 1)]
    return split_held_out(labels, digests, fraction, groups=groups, class_names=names)


# Definition of groups.


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"p\d+", "aab cc."),  # the whole match
        (r"(p\d+)_\d", "aab cc."),
        (r"^([^/]+)/(p\d+)", "aaabb."),  # the first of two captures
        (r"(?:p)(\d)", "aab cc."),
        (r"x(p\d+)?", "......"),
        (r"(p1)?_", "aa...."),  # where the capture took no part, the image is alone
    ],
)
def test_a_group_is_the_first_capture_or_else_the_whole_match(pattern, expected):
    members = ["cats/p1_1.png", "cats/p1_2.png", "cats/p2_1.png", "dogs/p3_1.png", "dogs/p3_2.png", "dogs/1_q.png"]
    expected = expected.replace(" ", "")
    groups, alone = group_images(members, pattern)
    assert alone == expected.count(".")
    for i in range(6):
        for j in range(i):
            together = expected[i] == expected[j] != "."
            assert (groups[i] == groups[j]) == together, (i, j)


def test_a_groups_hash_is_of_who_is_together_alone():
    digests = digests_of(1, 6)
    groups = np.array([3, 3, 7, 7, -1, -2])
    order = np.array([4, 2, 0, 5, 3, 1])
    first = hash_groups(digests, groups)
    assert first == hash_groups(digests[order], groups[order]) == hash_groups(digests, np.array([9, 9, 0, 0, 5, 4]))
    assert first != hash_groups(digests, np.array([3, 3, 7, 7, 1, 1]))
    assert first != hash_groups(digests, np.array([3, 7, 3, 7, -1, -2]))


# The split.


@st.composite
def grouped_classes(draw):
    """Classes of two groups or more; no group spans classes."""
    sizes = draw(st.lists(st.lists(st.integers(1, 9), min_size=2, max_size=12), min_size=1, max_size=4))
    labels = [label for label, groups in enumerate(sizes) for size in groups for _ in range(size)]
    groups = np.repeat(np.arange(sum(map(len, sizes))), [size for groups in sizes for size in groups])
    return sizes, np.array(labels), groups


@settings(max_examples=200, deadline=None)
@given(grouped=grouped_classes(), fraction=st.floats(0.02, 0.5), seed=st.integers(0, 1000))
def test_whole_groups_are_held_out_and_each_class_is_as_near_to_its_share_as_they_allow(grouped, fraction, seed):
    sizes, labels, groups = grouped
    rng = np.random.default_rng(seed)
    digests = digests_of(seed, len(labels))
    training, held_out = split(labels, groups, fraction, digests)
    assert sorted([*training, *held_out]) == list(range(len(labels)))
    assert not set(groups[training]) & set(groups[held_out])
    for label, of_class in enumerate(sizes):
        held, wanted = int((labels[held_out] == label).sum()), sum(of_class) * fraction
        assert 1 <= held < sum(of_class)
        forced = min(of_class) > 2 * wanted
        assert abs(held - wanted) <= (min(of_class) - wanted if forced else max(of_class) / 2) + 1e-9
    order = rng.permutation(len(labels))
    renamed = rng.permutation(len(labels))[groups]
    again = split(labels[order], renamed[order], fraction, digests[order])
    for places, places_again in zip((training, held_out), again, strict=True):
        assert (digests[places] == digests[order][places_again]).all()


@settings(max_examples=200, deadline=None)
@given(
    placed=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=8, max_size=60),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 1000),
)
def test_a_group_that_spans_classes_stays_on_one_side_too(placed, fraction, seed):
    labels = np.unique([label for label, _ in placed], return_inverse=True)[1]
    groups = np.array([group for _, group in placed])
    try:
        training, held_out = split(labels, groups, fraction, digests_of(seed, len(labels)))
    except DataError:
        return  # it is the harder question whether there is a split at all; what is given must be one
    assert sorted([*training, *held_out]) == list(range(len(labels)))
    assert not set(groups[training]) & set(groups[held_out])
    assert set(labels[training]) == set(labels[held_out]) == set(labels)


def test_groups_of_one_image_each_are_split_as_images_are():
    labels = np.repeat([0, 1], [10, 25])
    digests = digests_of(3, 35)
    alone = split_held_out(labels, digests, 0.2)
    for places, expected in zip(split(labels, np.arange(35), 0.2, digests), alone, strict=True):
        assert places.tolist() == expected.tolist()


def test_the_group_with_the_lowest_digest_is_held_out_first():
    labels, groups = [0] * 10 + [1] * 10, np.repeat(np.arange(10), 2)
    digests = np.column_stack((np.arange(20, dtype=np.uint64)[::-1] // 2 * 7 % 20, np.zeros(20, dtype=np.uint64)))
    held_out = split(labels, groups, 0.2, digests)[1]
    lowest = {
        min(range(5), key=lambda g: digests[groups == g].tolist()),
        min(range(5, 10), key=lambda g: digests[groups == g].tolist()),
    }
    assert set(groups[held_out]) == lowest


def test_copies_of_one_image_in_two_groups_are_distinguished_by_the_rest_of_the_groups():
    """A black frame lies in every volume: it may neither decide by its place nor join the volumes."""
    digests = digests_of(5, 12)
    digests[[0, 3, 6, 9]] = 0
    labels, groups = np.array([0] * 6 + [1] * 6), np.repeat(np.arange(4), 3)
    held = {tuple(sorted(digests[split(labels, groups, 0.5, digests)[1]][:, 0].tolist()))}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(12)
        places = split(labels[order], groups[order], 0.5, digests[order])[1]
        held.add(tuple(sorted(digests[order][places][:, 0].tolist())))
    assert len(held) == 1


def test_the_class_with_the_fewest_groups_comes_first():
    """Class 0 is in groups 0 and 1 alone, which classes 1 and 2 must not use up for their own shares' sake."""
    labels = np.array([0, 1, 1, 1, 1, 0, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2])
    groups = np.array([0] * 5 + [1] * 5 + [2] * 3 + [3] * 3)
    for seed in range(20):
        training, held_out = split(labels, groups, 0.4, digests_of(seed, 16))
        assert set(labels[training]) == set(labels[held_out]) == {0, 1, 2}


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        ([0, 0, 0, 1, 1], [0, 0, 0, 1, 2], r"the 3 of 'class 0' .* data\.group_by"),
        ([0, 0, 1, 1, 1], [0, 1, 0, 1, 1], None),
        (
            [0, 1, 0, 2, 1, 2],
            [0, 0, 1, 1, 2, 2],
            r"the 2 of 'class \d' are in 2 groups",
        ),
    ],
)
def test_a_class_that_whole_groups_cannot_split_is_named_with_the_way_out(labels, groups, message):
    if message is None:
        assert len(split(labels, groups, 0.2)[1]) in (2, 3)
    else:
        with pytest.raises(DataError, match=message + r".*data\.val_source"):
            split(labels, groups, 0.2)


# From the names to the trainings.


@pytest.fixture
def scans(images):
    """Six patients a class, four images each, and two images without a patient."""
    rng = np.random.default_rng(0)
    for kind in ("ill", "well"):
        (images.root / "scans" / kind).mkdir(parents=True)
        names = [f"p{patient}{kind[0]}_{i}" for patient in range(6) for i in range(4)]
        for name in [*names, "phantom"]:
            pixels = rng.integers(0, 256, (9, 9, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images.root / "scans" / kind / f"{name}.png")
    return images.root / "scans"


def prepare(source, events=None, **options):
    return prepare_data(str(source), 8, emit=(events if events is not None else []).append, **options)


def test_the_cache_keeps_the_images_names_in_order(scans):
    data = prepare(scans)
    _, _, labels, _ = load_arrays(Path(data.path))
    members = load_members(Path(data.path))
    assert [data.class_names[label] for label in labels] == [member.split("/")[0] for member in members]
    assert sorted(members) == sorted(str(path.relative_to(scans)) for path in scans.glob("*/*.png"))


def test_groups_are_counted_and_images_that_do_not_match_are_reported(scans):
    events = []
    prepare(scans, events, group_by=r"p\d[iw]")
    assert [event for event in events if isinstance(event, Notice)] == [
        Notice(text=r"50 images in 14 groups by 'p\\d[iw]'"),
        Notice(
            level="warning",
            text=r"2 of 50 images do not match data.group_by 'p\\d[iw]': each forms its own group",
        ),
    ]


def test_trainings_hold_whole_groups_out(scans):
    data = prepare(scans, group_by=r"(p\d)[iw]_")
    images = ImageSet(Path(data.path), CPU, data.class_names)
    members = load_members(Path(data.path))
    training, held_out = images.split(0.2, r"(p\d[iw])_")
    patients = [{members[place].split("/")[1].split("_")[0] for place in places} for places in (training, held_out)]
    assert not patients[0] & patients[1]
    assert 0.1 < len(held_out) / 50 < 0.3
    alone = images.split(0.2)
    assert {members[place].split("_")[0] for place in alone[0]} & {members[place].split("_")[0] for place in alone[1]}


def test_a_training_scores_on_the_groups_held_out(scans):
    from hilo_nas.proxy.train import Training

    for path in scans.glob("*/phantom.png"):
        path.unlink()
    data = prepare(scans, group_by=r"(p\d)[iw]_")
    scored = []
    for group_by in (None, r"(p\d)[iw]_"):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        training = Training(model, plan(group_by=group_by), data, seed=0, device=CPU, emit=lambda event: None)
        scored.append(len(training.evaluate().labels))
    assert scored == [10, 8]  # five of 24 images a class; one patient of four


def test_the_grouping_is_part_of_the_datas_hash_and_the_names_are_not(scans, images):
    plain = prepare(scans)
    grouped = prepare(scans, group_by=r"(p\d[iw])_")
    assert plain.content_hash != grouped.content_hash
    assert plain.path == grouped.path
    for path in list(scans.glob("*/p*.png")):
        path.rename(path.with_name("x" + path.name))  # other names, the same groups
    assert prepare(scans).content_hash == plain.content_hash
    assert prepare(scans, group_by=r"(p\d[iw])_").content_hash == grouped.content_hash
    path = next(scans.glob("*/xp0i_1.png"))
    path.rename(path.with_name("xp1i_9.png"))  # another patient's now
    assert prepare(scans).content_hash == plain.content_hash
    assert prepare(scans, group_by=r"(p\d[iw])_").content_hash != grouped.content_hash


def test_a_class_in_one_group_is_refused_when_the_images_are_prepared(scans):
    with pytest.raises(DataError, match=r"the 25 of 'ill' .*another data\.group_by"):
        prepare(scans, group_by=r"^\w+")


def test_groups_and_validation_images_exclude_each_other(scans):
    with pytest.raises(UsageError, match=r"data\.val_source"):
        prepare(scans, val_data=str(scans), group_by="p")


# The plan.


@pytest.mark.parametrize(
    ("pattern", "message"),
    [("(p", "position 0"), ("p[", "unterminated character set at position 1"), ("a{99999999999}", "too large")],
)
def test_a_plan_refuses_what_is_no_regular_expression_with_the_position(pattern, message):
    with pytest.raises(UsageError) as caught:
        plan(group_by=pattern)
    assert f"group_by must be a regular expression, but got {pattern!r}: " in str(caught.value)
    assert message in str(caught.value)


def test_groups_are_part_of_a_plans_hash_and_their_absence_is_not():
    fields = plan().to_dict()
    assert plan().hash("x") != plan(group_by="p").hash("x") != plan(group_by="q").hash("x")
    older = {name: value for name, value in fields.items() if name != "group_by"}
    assert ProxyPlan.from_dict(older) == plan()
    assert dataclasses.replace(plan(group_by="p"), group_by=None).hash("x") == plan().hash("x")
