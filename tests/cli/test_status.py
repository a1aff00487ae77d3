"""`hilo-nas status`: what a study has spent, and on what."""

import dataclasses
import json

import pytest
from builders import build_failed, build_record, build_score, demo_records, write_study

from hilo_nas.cli import main
from hilo_nas.study.transitions import interrupt

RUNG = build_score(0.3, images_seen=1024, seconds=2.5)
REASON = "others did better after 1,024 of 3,008 images"


@pytest.fixture
def status(tmp_path, capsys, monkeypatch):
    """Calls the command on a study of these records."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))

    def call(records, *arguments):
        write_study(tmp_path, "demo", records)
        assert main(["status", "demo", *arguments]) == 0
        return capsys.readouterr().out

    return call


def stopped(number, **fields):
    return build_record(number, state="stopped", reason=REASON, scores=(RUNG,), **fields)


def test_stopped_networks_are_counted_with_what_their_trainings_spared(status):
    text = status([build_record(0, scores=(RUNG, build_score(0.5))), stopped(1), stopped(2)])
    assert "demo: 3 of 12 networks measured, 1 on the front" in text
    assert "trials:   1 complete, 2 stopped" in text
    assert "trained:  5,056 images, 56% of the full trainings of these 3 networks\n" in text
    assert f"stopped: {REASON}: trial 1, 2" in text


def test_further_seeds_are_reported_separately_from_the_search(status):
    seeds = tuple(build_score(0.5, seed=seed) for seed in (0, 1, 2))
    records = [build_record(0, scores=(RUNG, *seeds)), stopped(1)]
    content = json.loads(status(records, "--format", "json"))
    assert content["images_trained"] == 3008 + 1024
    assert content["images_in_full"] == 2 * 3008
    assert content["images_of_further_seeds"] == 2 * 3008
    assert content["training_s"] == 2.5 + 3 * 7.5 + 2.5


def test_the_share_of_further_seeds_has_its_place_in_the_text(status):
    seeds = tuple(build_score(0.5, seed=seed) for seed in (0, 1))
    text = status([build_record(0, scores=seeds)])
    assert "trained:  3,008 images, 100% of the full trainings of this network; 3,008 more with further seeds" in text


def test_what_a_retry_of_an_earlier_version_took_over_was_paid_for_once(status):
    cut = interrupt(stopped(0))
    retry = build_record(1, arch=cut.subject.arch, scores=(RUNG, build_score(0.5)))
    content = json.loads(status([cut, retry], "--format", "json"))
    assert (content["images_trained"], content["images_in_full"]) == (3008, 3008)
    assert content["training_s"] == 2.5 + 7.5


def test_what_was_copied_and_not_tried_yet_was_not_paid_for_here(status):
    waiting = build_record(1, state="waiting", started_at=None, seconds=0.0)
    content = json.loads(status([build_record(0), waiting], "--format", "json"))
    assert (content["images_trained"], content["training_s"]) == (3008, 7.5)
    assert content["states"] == {"complete": 1, "waiting": 1}


def test_results_that_are_older_than_the_study_were_paid_for_elsewhere(status):
    record = build_record(0)
    old = tuple(dataclasses.replace(score, scored_at="2020-01-01T00:00:00+00:00") for score in record.scores)
    timed = tuple(dataclasses.replace(m, measured_at="2020-01-01T00:00:00+00:00") for m in record.measurements)
    content = json.loads(status([dataclasses.replace(record, scores=old, measurements=timed)], "--format", "json"))
    assert (content["training_s"], content["timing_s"]) == (0, 0)


def test_a_study_that_trained_nothing_says_nothing_of_it(status):
    assert "trained:" not in status([build_failed(0)])


def test_a_study_without_rungs_spent_all_of_its_images(status):
    assert "trained:  15,040 images, 100% of" in status(demo_records())


def test_contended_timings_are_named(status):
    busy = {"cores": 2, "others_cores": 1.0, "quietest": {"others_cores": 1.0}}
    loaded = build_record(1)
    loaded = dataclasses.replace(
        loaded, measurements=(dataclasses.replace(loaded.measurement, device_state=busy, verdict="steady"),)
    )
    text = status([build_record(0), loaded])
    assert "1 timing steady, 1 timing contended" in text
    assert "contended: trial 1\n" in text
