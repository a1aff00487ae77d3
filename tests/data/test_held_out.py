"""The split into training and held-out images: a rule of the images alone that keeps copies on one side."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hilo_nas.data import CachedData, prepare_data
from hilo_nas.data.cache import load_arrays
from hilo_nas.data.copies import find_overlap, find_scarce, join_groups, number_images, spans_of
from hilo_nas.data.held_out import split_held_out
from hilo_nas.data.prepared_images import find_places
from hilo_nas.errors import DataError
from hilo_nas.events import Notice
from hilo_nas.measurement import ProxyPlan


def digests_of(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**63, (count, 2), dtype=np.uint64)


def fold(split: tuple[np.ndarray, np.ndarray]) -> str:
    return hashlib.sha256(np.concatenate(split).astype("<i8").tobytes()).hexdigest()[:16]


@pytest.fixture
def copied(images):
    """Adds copies of an image to a folder: the name of the file is what it holds."""

    def run(folder: Path, source: str, *targets: str) -> Path:
        for target in targets:
            (folder / target).parent.mkdir(exist_ok=True)
            (folder / target).write_bytes((folder / source).read_bytes())
        return folder

    return run


def test_sets_without_copies_are_split_as_ever(digits16: CachedData):
    """Golden values of version 0.1.0."""
    _, _, labels, digests = load_arrays(Path(digits16.path))
    assert digits16.content_hash == "ec5dc2a5a48a2304db48d977ddd2831f8bb1b4ed07f99f9430ceb91143d04786"
    assert fold(split_held_out(labels, digests, 0.2)) == "4422b8b76650bc8a"
    rng = np.random.default_rng(7)
    labels, digests = rng.integers(0, 13, 5000), rng.integers(0, 2**63, (5000, 2), dtype=np.uint64)
    assert fold(split_held_out(labels, digests, 0.08)) == "a0a454ec20b82ea6"


@settings(max_examples=200, deadline=None)
@given(
    placed=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), min_size=4, max_size=80),
    fraction=st.floats(0.02, 0.98),
    seed=st.integers(0, 1000),
)
def test_copies_are_on_one_side_under_whichever_labels_and_every_class_on_both(placed, fraction, seed):
    labels = np.unique([label for label, _ in placed], return_inverse=True)[1]
    kinds = np.array([kind for _, kind in placed])
    digests = digests_of(seed, 21)[kinds]
    names = [str(label) for label in range(4)]
    try:
        training, held_out = split_held_out(labels, digests, fraction, class_names=names)
    except DataError:
        # A class of one image has no split; one may be blocked by images that other classes share.
        assert find_scarce(labels, digests) or spans_of(labels, digests)
        return
    assert sorted([*training, *held_out]) == list(range(len(labels)))
    assert not {*kinds[training]} & {*kinds[held_out]}
    assert set(labels[training]) == set(labels[held_out]) == set(labels)
    order = np.random.default_rng(seed).permutation(len(labels))
    again = split_held_out(labels[order], digests[order], fraction, class_names=names)
    assert sorted(kinds[order][again[1]]) == sorted(kinds[held_out])


def test_a_share_that_would_end_between_copies_ends_at_the_nearest_other_image():
    digests = np.zeros((10, 2), dtype=np.uint64)
    digests[:, 0] = [0, 1, 2, 2, 2, 5, 6, 7, 8, 9]
    held_out = split_held_out(np.zeros(10, dtype=int), digests, 0.4)[1]
    assert digests[held_out, 0].tolist() == [0, 1, 2, 2, 2]
    held_out = split_held_out(np.zeros(10, dtype=int), digests, 0.3)[1]
    assert digests[held_out, 0].tolist() == [0, 1]


def test_groups_that_share_an_image_are_joined_and_others_stay():
    digests = digests_of(1, 6)
    groups = np.array([3, 3, 7, 7, -1, -2])
    assert join_groups(groups, digests) is groups
    digests[4] = digests[0]
    joined = join_groups(groups, digests)
    assert joined[0] == joined[1] == joined[4]
    assert len({*joined.tolist()}) == 3


def test_copies_share_a_number():
    digests = digests_of(2, 4)[[2, 0, 2, 1]]
    numbers = number_images(digests)
    assert numbers[0] == numbers[2]
    assert len({*numbers.tolist()}) == 3


def test_images_of_two_sets_are_compared_with_their_classes():
    digests = digests_of(3, 5)
    found = find_overlap(np.array([0, 1, 0]), digests[:3], np.array([0, 0, 1, 1]), digests[[0, 1, 3, 4]])
    assert (found.same_class.tolist(), found.other_class.tolist()) == ([0], [1])


# From files to trainings.


def test_classes_without_two_distinct_images_are_named_all_at_once(prepare, images, copied):
    folder = images.folder("pets", {"cats": 3, "dogs": 1, "owls": 1, "emus": 3})
    copied(folder, "owls/0.png", *(f"owls/{i}.png" for i in range(1, 20)))
    with pytest.raises(DataError, match=r"'dogs' \(1 image\), 'owls' \(20 copies of 1 image\).*data\.skip_broken=true"):
        prepare(folder)


def test_skip_broken_trains_without_them_and_says_so(prepare, images, copied, events):
    folder = images.folder("pets", {"cats": 3, "dogs": 1, "emus": 5})
    data = prepare(folder, skip_broken=True)
    assert (data.class_names, data.n_images, data.reading) == (("cats", "emus"), 8, {"skip_broken": True})
    assert any(isinstance(event, Notice) and "leaves out classes" in event.text for event in events)
    places = find_places(data, ProxyPlan, None)
    used = np.concatenate((places.training, places.scored))
    assert np.bincount(places.labels[used]).tolist() == [3, 5]
    assert (places.labels == -1).sum() == 1
    alone = prepare(images.folder("fewer", {"cats": 3, "emus": 5}), skip_broken=True)
    assert data.content_hash != alone.content_hash


def test_skip_broken_needs_two_classes_that_are_left(prepare, images):
    with pytest.raises(DataError, match=r"without 'dogs' \(1 image\) fewer than two classes"):
        prepare(images.folder("pets", {"cats": 3, "dogs": 1}), skip_broken=True)


def test_the_datas_hash_tells_of_the_rule_for_copies_only_where_it_changes_the_split(prepare, images, copied):
    """Of ten images two are held out; the hash names the rule where these two and a third were copies."""
    seen = set()
    for seed in range(8):
        folder = images.folder(f"pets{seed}", {"cats": 8, "dogs": 10}, seed=seed)
        data = prepare(copied(folder, "cats/0.png", "cats/8.png", "cats/9.png"))
        _, _, labels, digests = load_arrays(Path(data.path))
        cats = np.flatnonzero(labels == 0)
        lowest = digests[cats[np.lexsort((digests[cats, 1], digests[cats, 0]))]]
        is_cut = (lowest[1] == lowest[2]).all()
        assert (data.content_hash != entry_hash(data)) == is_cut
        seen.add(bool(is_cut))
    assert seen == {False, True}


def entry_hash(data: CachedData) -> str:
    return load_arrays(Path(data.path))[0].content_hash


def test_the_share_of_the_largest_class_among_scored_images_is_reported(prepare, images):
    folder = images.folder("pets", {"cats": 10, "dogs": 40})
    data = prepare(folder)
    assert (data.n_scored, data.chance, data.val_name) == (10, 0.8, None)
    data = prepare(folder, val_data=images.folder("more", {"cats": 3, "dogs": 1}, seed=1))
    assert (data.n_scored, data.chance, data.val_name) == (4, 0.75, "more")


def test_groups_of_a_copy_are_held_out_together(images, copied):
    folder = images.folder("pets", {"cats": 12, "dogs": 12})
    copied(folder, "cats/0.png", "cats/5.png")
    copied(folder, "dogs/1.png", "dogs/7.png")
    data = prepare_data(str(folder), 8, group_by=r"/(\d+)", emit=lambda event: None)
    places = find_places(data, ProxyPlan, r"/(\d+)")
    numbers = number_images(places.digests)
    assert not {*numbers[places.training]} & {*numbers[places.scored]}
