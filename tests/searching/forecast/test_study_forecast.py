"""Posteriors of a study: shrunk values, predicted networks, and the expected gain of further trainings."""

import dataclasses
import itertools
import json
import math
import shutil

import pytest
from builders import build_manifest, build_record, fresh, write_study
from fakes import RESOURCES, FakeMachine, speed, top1

from hilo_nas.cli import main
from hilo_nas.errors import UsageError
from hilo_nas.searching import SearchConfig, run_search
from hilo_nas.searching.forecast.study_forecast import forecast_study
from hilo_nas.searching.loop import SearchLoop
from hilo_nas.space.space_file import build_space
from hilo_nas.study.front import Front
from hilo_nas.study.posteriors import Posteriors, load_posteriors
from hilo_nas.study.stored_study import open_study

SPACE = build_space(
    "plain",
    {
        "patch_size": [2],
        "embed_dims": [8, 16, 24],
        "depths": [[1, 2], [1], [1, 2, 3], [1]],
        "head_dim": [8],
        "attention": [["none"], ["none"], ["hilo"], ["hilo"]],
        "alpha": [0.5],
        "window_size": [[1], [1], [2], [1]],
        "mlp_ratios": [2, 3],
    },
)
"""36 networks."""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A search of 12 networks in a space of 36."""
    folder = write_study(
        tmp_path_factory.mktemp("studies"),
        manifest=build_manifest("demo", space=SPACE, trials=12, sampler="hilo", reduction_factor=None),
    )
    SearchLoop(folder, folder.manifest, FakeMachine(), RESOURCES, lambda event: None).run()
    return fresh(folder)


@pytest.fixture
def found(study):
    return forecast_study(study.records, study.manifest)


@pytest.fixture
def copy(study, tmp_path, monkeypatch):
    """A copy of the study that may be changed."""
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    shutil.copytree(study.path, tmp_path / "demo")
    return open_study("demo")


def test_every_trained_network_has_a_posterior_and_no_other_one(study, found):
    assert set(found.believed) == {record.key for record in study.records if record.state == "complete"}
    assert all(own.standard_error > 0 for own in found.believed.values())


def test_a_lucky_score_moves_towards_the_expectation_of_the_model(study):
    lucky = next(record for record in study.records if record.state == "complete")
    score = dataclasses.replace(lucky.scores[0], value=lucky.scores[0].value + 0.2)
    records = [dataclasses.replace(record, scores=(score,)) if record is lucky else record for record in study.records]
    changed = forecast_study(records, study.manifest)
    assert changed.believed[lucky.key].value < score.value - 0.02


def test_predicted_networks_are_new_and_none_dominates_another(study, found):
    assert found.predicted
    tried = {record.key for record in study.records if record.state != "timed"}
    assert tried.isdisjoint(own.key for own in found.predicted)
    for slower, faster in itertools.pairwise(reversed(found.predicted)):
        assert slower.images_per_s < faster.images_per_s
        assert slower.value > faster.value
    for own in found.predicted:
        assert SPACE.decode(own.params).key() == own.key
        assert own.images_per_s_low <= own.images_per_s <= own.images_per_s_high
        assert own.value_low < own.value < own.value_high


def test_most_intervals_of_predicted_networks_hold_their_true_speeds_and_values(found):
    archs = [SPACE.decode(own.params) for own in found.predicted]
    held = [
        own.images_per_s_low <= speed(arch) <= own.images_per_s_high
        for own, arch in zip(found.predicted, archs, strict=True)
    ]
    assert sum(held) >= 0.7 * len(held)
    held = [own.value_low <= top1(arch) <= own.value_high for own, arch in zip(found.predicted, archs, strict=True)]
    assert sum(held) >= 0.7 * len(held)


def test_gains_grow_with_the_number_of_trainings(found):
    gains = [own.hypervolume_gain for own in found.outlook]
    assert gains == sorted(gains)
    assert [own.networks for own in found.outlook] == sorted(own.networks for own in found.outlook)


def test_equal_records_have_equal_posteriors(study, found):
    again = forecast_study(list(study.records), study.manifest)
    assert dataclasses.replace(again, written_at="") == dataclasses.replace(found, written_at="")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_networks_have_no_posteriors(study, count):
    records = [record for record in study.records if record.state == "complete"][:count]
    assert forecast_study(records, study.manifest) is None


def test_a_space_whose_networks_are_all_trained_has_no_predictions(study):
    small = build_space("small", {**SPACE.to_dict(), "embed_dims": [8], "mlp_ratios": [2]})
    records = [
        build_record(i, 1000.0 + i, 0.5 + i / 100, arch=arch)
        for i, arch in enumerate({a.key(): a for a in map(small.decode, settings(small))}.values())
    ]
    found = forecast_study(records, dataclasses.replace(study.manifest, space=small))
    assert (found.predicted, found.outlook) == ((), ())
    assert len(found.believed) == len(records)


def settings(space):
    ranges = [range(n) for n in space.dimensions.values()]
    return [dict(zip(space.dimensions, values, strict=True)) for values in itertools.product(*ranges)]


# Stored posteriors.


def test_posteriors_are_read_as_they_were_written(found, tmp_path):
    found.write(tmp_path / "posteriors.json")
    assert load_posteriors(tmp_path / "posteriors.json") == found


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 1}', "null", "[" * 100_000])
def test_a_damaged_file_counts_as_none(tmp_path, text):
    path = tmp_path / "posteriors.json"
    path.write_text(text)
    assert load_posteriors(path) is None
    assert load_posteriors(tmp_path / "missing.json") is None


def change_a_score(study):
    record = study.front().members[0]
    study.write(dataclasses.replace(record, scores=(dataclasses.replace(record.scores[0], value=0.4),)))


def test_a_front_uses_stored_posteriors_until_the_records_change(copy, found):
    without = copy.front().probabilities()
    copy.write_posteriors(found)
    assert copy.front().believed == found.believed
    assert copy.front().probabilities() == Front.from_records(copy.records, believed=found.believed).probabilities()
    assert fresh(copy).front().probabilities() == copy.front().probabilities()
    assert copy.front().probabilities() != without
    change_a_score(copy)
    assert copy.posteriors is None
    assert copy.front().believed == {}
    assert fresh(copy).posteriors is None


def test_members_of_a_front_are_those_of_the_measured_values(copy, found):
    before = [member.number for member in copy.front().members]
    copy.write_posteriors(found)
    assert [member.number for member in copy.front().members] == before


def test_posteriors_of_another_version_are_old(study, found):
    assert found.is_current(study.records, study.manifest)
    assert not dataclasses.replace(found, version=found.version + 1).is_current(study.records, study.manifest)


def test_a_search_stores_its_posteriors(tmp_path, machine, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    request = SearchConfig.of(study="new", space="litv2_digits", rungs=1, until_trials=6, remeasure=False)
    study, _ = run_search(request, lambda event: None)
    assert isinstance(fresh(study).posteriors, Posteriors)


# The command line.


def run(capsys, *arguments):
    assert main([*arguments]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_predictions_are_computed_where_none_are_stored(copy, capsys):
    text = run(capsys, "front", "demo", "--predicted")
    assert "that no trained network is expected to beat" in text
    assert "more networks: hypervolume +" in text
    assert "hilo-nas search --study demo --trials" in text
    assert not copy.posteriors_path.exists()


def test_predicted_networks_may_have_a_minimum_speed(copy, found, capsys):
    middle = sorted(own.images_per_s for own in found.predicted)[len(found.predicted) // 2]
    arguments = ("front", "demo", "--predicted", "--format", "json")
    content = json.loads(run(capsys, *arguments, "--min-images-per-s", str(middle)))
    assert 0 < len(content["predicted"]) < len(found.predicted)
    assert all(own["images_per_s"] >= middle for own in content["predicted"])
    assert len(json.loads(run(capsys, *arguments))["predicted"]) == len(found.predicted)


@pytest.mark.parametrize("arguments", [["--predicted", "--format", "csv"], ["--predicted"]])
def test_options_that_do_not_fit_are_refused(copy, capsys, arguments):
    study = ["demo"] * (arguments != ["--predicted"])
    assert main(["front", *study, *arguments]) == 2
    assert "--predicted" in capsys.readouterr().err


def test_predictions_are_shown_even_if_no_trained_network_meets_the_limit(copy, capsys):
    shown = run(capsys, "front", "demo", "--predicted", "--min-images-per-s", "1e8")
    assert "no trial of study demo meets images_per_s >= 1e+08" in shown
    assert "0 predicted networks of at least" in shown


def test_old_posteriors_are_reported_and_the_outlook_is_shown(copy, found, capsys):
    copy.write_posteriors(found)
    assert "outlook: " in run(capsys, "status", "demo")
    assert "A score counts with the scores of similar networks" in run(capsys, "front", "demo")
    change_a_score(copy)
    assert "outlook: " not in run(capsys, "status", "demo")
    assert "the stored posteriors are older than the records" in run(capsys, "front", "demo")


# The end of a search.


def search_until(study, min_gain, path):
    folder = write_study(path, manifest=dataclasses.replace(study.manifest, trials=30))
    loop = SearchLoop(folder, folder.manifest, FakeMachine(), RESOURCES, lambda event: None)
    return loop.run(min_gain=min_gain)


def test_a_search_ends_when_further_networks_are_expected_to_gain_little(study, tmp_path):
    finished = search_until(study, 0.5, tmp_path)
    assert finished.stopped_by == "gain"
    assert finished.measured < 30


def test_a_search_continues_while_networks_are_expected_to_gain_more(study, tmp_path):
    assert search_until(study, 1e-9, tmp_path).stopped_by == "total"


@pytest.mark.parametrize("gain", [0.0, -1.0, math.inf, math.nan])
def test_a_minimum_gain_is_a_number_above_zero(gain):
    with pytest.raises(UsageError, match=r"search\.min_gain must be a number above 0"):
        SearchConfig.of(min_gain=gain)


def test_a_search_with_no_gain_yet_does_not_end_for_want_of_it(study, tmp_path):
    class Poor(FakeMachine):
        def value_of(self, subject, seed, until):
            return 0.05 if len(self.scored) <= 8 else super().value_of(subject, seed, until)

    folder = write_study(tmp_path, manifest=dataclasses.replace(study.manifest, trials=12))
    loop = SearchLoop(folder, folder.manifest, Poor(), RESOURCES, lambda event: None)
    assert loop.run(min_gain=1e-6).stopped_by == "total"


def test_predictions_of_networks_outside_the_space_count_as_none(copy, found):
    other = dataclasses.replace(found.predicted[0], params={"x": 1})
    copy.write_posteriors(dataclasses.replace(found, predicted=(other, *found.predicted[1:])))
    assert fresh(copy).posteriors is None
