import json

import pytest
from builders import build_arch, build_record, demo_records, write_study

from hilo_nas.cli.app import main
from hilo_nas.errors import UsageError
from hilo_nas.report.study_comparison import compare_studies


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def write_pair(home):
    """Two studies of five networks. On the second device, the network of trial 1 is slow."""
    values = [0.50, 0.60, 0.55, 0.70, 0.40]
    first = [build_record(i, 1000.0 - 100 * i, value) for i, value in enumerate(values)]
    speeds = [1000.0, 300.0, 800.0, 700.0, 600.0]
    second = [build_record(9 - i, speeds[i], value, arch=build_arch(i)) for i, value in enumerate(values)]
    return write_study(home, "gpu", first), write_study(home, "cpu", second)


def test_trials_are_compared_with_the_first(home, capsys):
    write_study(home, "demo", demo_records())
    assert main(["compare", "demo:2", "demo:3", "demo:4"]) == 0
    text = capsys.readouterr().out
    assert "1.8x" in text
    assert "-5.0 ± " in text
    assert "compared with trial 2" in text


def test_two_studies_tell_who_changes_rank_and_what_it_costs(home):
    found = compare_studies(*write_pair(home))
    assert found.networks == 5
    assert found.speed_tau == pytest.approx(0.4)  # three of ten pairs are in the other order
    (change, *_) = found.changes
    assert (change.numbers, change.ranks, change.images_per_s) == ((1, 8), (2, 5), (900.0, 300.0))
    assert found.front == (9, 7, 6)
    assert found.chosen == (9, 8, 6)  # by the speeds of the first study, trial 8 is fast and trial 7 is beaten
    assert 0 < found.hypervolume_loss < 1
    assert (found.value_loss, found.images_per_s) == (pytest.approx(0.05), 800.0)  # trial 9 instead of trial 7
    assert found.speed_ratio == (pytest.approx(1 / 3), pytest.approx(1.0))


def test_the_comparison_of_studies_is_printed(home, capsys):
    write_pair(home)
    assert main(["compare", "gpu", "cpu"]) == 0
    text = capsys.readouterr().out
    for part in (
        "5 networks are complete in both",
        "trials 9, 8, 6 of cpu",
        "2 -> 5",
        "The front in cpu: trials 9, 7, 6",
    ):
        assert part in text
    assert main(["compare", "gpu", "cpu", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["networks"] == 5


def test_studies_without_common_networks_are_refused(home):
    first = write_study(home, "a", [build_record(i) for i in range(4)])
    second = write_study(home, "b", [build_record(i, arch=build_arch(i + 8)) for i in range(4)])
    with pytest.raises(UsageError, match="share 0"):
        compare_studies(first, second)


@pytest.mark.parametrize(
    "words",
    [
        ["demo"],
        ["demo:1", "demo"],
        ["demo:1", "other:2"],
        ["demo", "demo", "demo"],
        ["demo:0", "demo:5"],
        ["demo:0", "demo:77"],
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(home, words, capsys):
    write_study(home, "demo", demo_records())
    assert main(["compare", *words]) == 2
    assert capsys.readouterr().err.startswith("error: ")
