"""Scores that need no learning are warned of, on whichever images and by whichever metric they are taken."""

import pytest
from builders import build_data, build_manifest, build_plan, build_record

from hilo_nas.searching.halving.chance_scores import warn_of_guessing


def warning(top1, *, metric="top1", **fields):
    manifest = build_manifest(data=build_data(**fields), plan=build_plan(metric=metric))
    found = warn_of_guessing(manifest, build_record(3, 1000.0, top1))
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("top1", "metric", "chance", "is_warned"),
    [
        (0.8, "top1", 0.8, True),
        (0.2, "top1", 0.8, True),  # another class than the largest is always guessed
        (0.81, "top1", 0.8, False),
        (0.1, "top1", None, True),  # a study of an earlier version: ten classes, evenly
        (0.11, "top1", None, False),
        (0.1, "balanced", 0.8, True),
        (0.2, "balanced", 0.8, False),
    ],
)
def test_a_score_of_always_guessing_one_class_is_warned_of(top1, metric, chance, is_warned):
    assert (warning(top1, metric=metric, chance=chance) is not None) == is_warned


def test_the_warning_names_the_trial_and_both_figures():
    text = warning(0.8, chance=0.8)
    assert text.startswith("trial 3 (")
    assert "scored 80.0 %" in text
    assert "always guessing the largest class gives 80.0 %" in text


def test_a_trial_without_a_score_is_not_warned_of():
    assert warn_of_guessing(build_manifest(), build_record(3, 10.0, None, state="infeasible")) is None
