import webbrowser

import pytest
from builders import demo_records, write_study

import hilo_nas
from hilo_nas.cli.app import main
from hilo_nas.errors import UsageError


@pytest.fixture
def studies(tmp_path, monkeypatch):
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    monkeypatch.chdir(tmp_path)
    for name in ("my-gpu", "my-cpu"):
        write_study(tmp_path / "studies", name, demo_records())
    return tmp_path


def test_a_report_is_named_after_its_studies(studies, capsys):
    assert main(["report", "my-gpu"]) == 0
    assert capsys.readouterr().out == "wrote my-gpu-report.html\n"
    assert main(["report", "my-gpu", "my-cpu"]) == 0
    assert (studies / "my-gpu-my-cpu-report.html").stat().st_size > 1e6


def test_plots_go_to_a_folder(studies, capsys):
    assert main(["report", "my-gpu", "-o", "r.html", "--png", "pictures"]) == 0
    assert "wrote pictures/front.png" in capsys.readouterr().out
    assert (studies / "pictures" / "front.png").read_bytes().startswith(b"\x89PNG")


def test_a_report_opens_in_a_browser_on_request(studies, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert main(["report", "my-gpu", "--open"]) == 0
    assert opened == [(studies / "my-gpu-report.html").as_uri()]


def test_an_unknown_study_is_named(studies, capsys):
    assert main(["report", "my-gpuu"]) == 2
    assert "my-gpu" in capsys.readouterr().err


def test_a_file_that_is_no_report_stays(studies, capsys):
    (studies / "notes.html").write_text("notes")
    assert main(["report", "my-gpu", "-o", "notes.html"]) == 2
    assert "--force" in capsys.readouterr().err
    assert (studies / "notes.html").read_text() == "notes"


def test_a_folder_that_cannot_be_written_is_an_error(studies, capsys):
    assert main(["report", "my-gpu", "-o", "missing/folder/r.html"]) == 1
    assert "missing/folder" in capsys.readouterr().err


def test_python_writes_the_same_report(studies):
    written = hilo_nas.write_report(["my-gpu", hilo_nas.load_study("my-cpu")], "both.html")
    assert [str(path) for path in written] == ["both.html"]
    assert hilo_nas.write_report("my-gpu", "one.html")


def test_a_study_draws_its_plots(studies):
    study = hilo_nas.load_study("my-gpu")
    assert len(study.plot_front().data) > 2
    assert len(study.plot_hypervolume(hilo_nas.load_study("my-cpu")).data) == 2
    assert study.plot_timeline().data
    with pytest.raises(UsageError, match="at least 10"):
        study.plot_importances()
    with pytest.raises(UsageError, match="no scored network"):
        study.plot_parallel()  # the records of this study have no parameters
