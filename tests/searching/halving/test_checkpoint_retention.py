"""Which checkpoints a study gives up first."""

from builders import build_record

from hilo_nas.searching.halving.checkpoint_retention import checkpoint_name, discardable_checkpoints


def test_the_worst_networks_lose_their_checkpoints_first_whatever_the_seed():
    records = [build_record(i, 1000.0 + i, 0.5 + 0.1 * i) for i in range(4)]  # each beats the one before
    expected = [checkpoint_name(record.key, seed) for record in records for seed in (0, 1)]
    assert list(discardable_checkpoints(list(reversed(records)), [0, 1])) == expected


def test_a_network_without_a_score_comes_before_all_others():
    records = [build_record(0), build_record(1, 900.0, None, state="failed")]
    assert list(discardable_checkpoints(records, [0])) == [
        checkpoint_name(record.key, 0) for record in reversed(records)
    ]


def test_a_checkpoint_that_is_needed_is_not_given_up():
    records = [build_record(i) for i in range(2)]
    needed = checkpoint_name(records[0].key, 0)
    assert list(discardable_checkpoints(records, [0], [needed])) == [checkpoint_name(records[1].key, 0)]


def test_a_network_that_was_tried_twice_is_named_once():
    first = build_record(0)
    assert len(list(discardable_checkpoints([first, build_record(1, arch=first.subject.arch)], [0]))) == 1
