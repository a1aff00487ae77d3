"""Real searches compared at equal time: what counts, from when, and how another study judges it."""

import dataclasses

import pytest
from builders import (
    build_condition,
    build_data,
    build_device,
    build_manifest,
    build_measurement,
    build_plan,
    build_record,
    build_score,
    write_study,
)

from benchmarks.searches import compare_searches, main
from hilo_nas.errors import UsageError


def network(number, images_per_s, value, minute, *, other=None, images_seen=3008, **fields):
    """A network that ended some minutes after its study began."""
    scores = (build_score(value, images_seen=images_seen),)
    if other is not None:
        scores += (build_score(other, seed=1),)
    return build_record(
        number, images_per_s, None, scores=scores, finished_at=f"2026-07-01T12:{minute:02d}:00+00:00", **fields
    )


@pytest.fixture
def studies(tmp_path):
    return tmp_path


def test_a_share_counts_what_was_trained_until_then(studies):
    slow = [network(0, 256.0, 0.6, 1), network(1, 1024.0, 0.4, 8)]
    early = [
        network(0, 256.0, 0.6, 1),
        network(1, 1024.0, 0.4, 2),
        network(2, 512.0, 0.5, 3, state="stopped", images_seen=500),
    ]
    first, second = (write_study(studies, name, found) for name, found in (("slow", slow), ("early", early)))
    found = compare_searches([first, second], [5.0])
    assert [own.shares[0] for own in found] == [0.0, pytest.approx(1.0)]  # the slowest network is the reference point
    assert [own.shares[-1] for own in found] == [pytest.approx(1.0)] * 2
    assert [(own.trained, own.stopped) for own in found] == [(2, 0), (2, 1)]
    assert found[0].median_ratio == pytest.approx(2.5)
    assert found[0].timing_minutes == pytest.approx(5 / 60)
    assert found[0].training_minutes == pytest.approx(15 / 60)


def test_a_judge_replaces_speeds_and_other_seeds_replace_scores(studies):
    lucky = [network(0, 256.0, 0.5, 1), network(1, 2048.0, 0.6, 1, other=0.3)]
    sound = [network(0, 256.0, 0.5, 1), network(2, 1024.0, 0.5, 1, other=0.5)]
    judged = [build_record(1, 512.0, None), build_record(2, 1024.0, None)]
    first, second, judge = (
        write_study(studies, name, found) for name, found in (("lucky", lucky), ("sound", sound), ("judge", judged))
    )
    found = compare_searches([first, second], [], judge)
    assert found[0].shares[-1] > found[1].shares[-1]
    assert found[0].judged == pytest.approx(0.25)
    assert found[1].judged == pytest.approx(1.0)
    assert [(own.unjudged, own.front) for own in found] == [(0, 1), (0, 1)]


def test_a_network_that_the_judge_lacks_is_counted(studies):
    found = compare_searches(
        [write_study(studies, "own", [network(0, 256.0, 0.5, 1), network(1, 512.0, 0.4, 1, other=0.4)])],
        [],
        write_study(studies, "judge", [build_record(1, 512.0, None)]),
    )
    assert (found[0].unjudged, found[0].front) == (1, 2)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("data", {"data": build_data(hash="another")}),
        ("device", {"device": build_device(model="Another CPU")}),
        ("condition", {"conditions": (build_condition(batch_size=2),)}),
        ("proxy", {"plan": build_plan(images=2000)}),
    ],
)
def test_searches_that_cannot_be_compared_are_refused(studies, what, change):
    networks = [network(0, 256.0, 0.5, 1), network(1, 512.0, 0.4, 1)]
    other = build_manifest("other", **change)
    pair = [write_study(studies, "own", networks), write_study(studies, "other", networks, other)]
    with pytest.raises(UsageError, match=f"same {what}, but other and own differ"):
        compare_searches(pair, [5.0])


def test_a_judge_of_another_condition_is_refused(studies):
    other = build_manifest("judge", conditions=(build_condition(batch_size=2),))
    own = write_study(studies, "own", [network(0, 256.0, 0.5, 1), network(1, 512.0, 0.4, 1)])
    with pytest.raises(UsageError, match="the judge must have the condition of the searches"):
        compare_searches([own], [], write_study(studies, "judge", (), other))


def test_one_network_spans_no_hypervolume(studies):
    with pytest.raises(UsageError, match="Give more searches"):
        compare_searches([write_study(studies, "own", [network(0, 256.0, 0.5, 1)])], [])


def test_copied_results_do_not_count(studies):
    timing = dataclasses.replace(build_measurement(4096.0), measured_at="2026-06-30T12:00:00+00:00")
    copied = network(2, None, 0.9, 0, measurements=(timing,))
    own = [network(0, 256.0, 0.5, 1), network(1, 512.0, 0.4, 1)]
    (found,) = compare_searches([write_study(studies, "own", [*own, copied])], [])
    assert found.trained == 2


def test_a_search_without_a_trained_network_is_refused(studies):
    with pytest.raises(UsageError, match="empty has none"):
        compare_searches([write_study(studies, "empty")], [5.0])


def test_the_command_prints_a_row_per_search(studies, capsys):
    path = write_study(studies, "own", [network(0, 256.0, 0.5, 1), network(1, 512.0, 0.4, 7)]).path
    assert main([str(path), "--minutes", "5"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "own" in line)
    assert row.split()[:4] == ["own", "gp", "0.000", "1.000"]
