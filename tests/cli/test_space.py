"""`hilo-nas space init`: a custom space file."""

import pytest

from hilo_nas.cli import main
from hilo_nas.space import load_space


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_shipped_space_is_copied_to_a_file(capsys):
    assert main(["space", "init", "mine.yaml", "--from", "litv2_tabular"]) == 0
    assert "hilo-nas space check mine.yaml" in capsys.readouterr().out
    assert load_space("mine.yaml").knobs == load_space("litv2_tabular").knobs
    assert main(["space", "check", "mine.yaml"]) == 0


def test_a_file_is_never_replaced(home, capsys):
    (home / "mine.yaml").write_text("mine")
    assert main(["space", "init", "mine.yaml"]) == 2
    assert "mine.yaml exists already" in capsys.readouterr().err
    assert (home / "mine.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [(["x.yaml", "--from", "litv2_cifarr"], 2, "litv2_cifar"), (["missing/x.yaml"], 1, "cannot write missing/x.yaml")],
)
def test_a_space_that_cannot_be_written_says_why(words, code, part, capsys):
    assert main(["space", "init", *words]) == code
    assert part in capsys.readouterr().err
