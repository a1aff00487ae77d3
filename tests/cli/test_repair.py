"""`hilo-nas repair`: what is damaged is named and repaired, nothing is deleted, and what is whole stays as it is."""

import json
import os
import shutil

import pytest
from builders import build_arch, build_record, demo_records, fresh, write_study

from hilo_nas.cli import main
from hilo_nas.searching.opening.study_lock import locked


def digest(folder):
    """Contents of the files in a folder, without locks."""
    names = {path: str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for path, name in names.items() if path.name != ".lock"}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_STUDIES_DIR", str(tmp_path / "studies"))
    return tmp_path


@pytest.fixture
def study(home):
    return write_study(home / "studies", "demo", demo_records())


@pytest.fixture
def repair(capsys):
    """Repairs the study, and returns the exit code and what was printed, without the last line's folder."""

    def call(*options, code=0):
        capsys.readouterr()
        assert main(["repair", "demo", *options]) == code
        return capsys.readouterr().out

    return call


def originals(study):
    """Contents of the files that repairs have moved away, by path in the study."""
    found = {}
    for folder in sorted((study.path / "damaged").glob("*")):
        found |= {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return found


def test_a_whole_study_is_left_as_it_is(study, repair):
    before = digest(study.path)
    assert repair() == "demo: no file is damaged\n"
    assert digest(study.path) == before


@pytest.mark.parametrize("command", ["status", "front", "show", "export"])
def test_each_command_names_the_file_and_the_way_out(study, home, capsys, command):
    path = study.trials_path / "0002.json"
    path.write_text(path.read_text()[:100])
    arguments = {"show": ["demo:1"], "export": ["demo", "--knee", "-o", "out"]}.get(command, ["demo"])
    assert main([command, *arguments]) == 1
    said = capsys.readouterr().err
    assert "0002.json: it is not complete JSON" in said
    assert said.strip().endswith("Repair the study: hilo-nas repair demo")


@pytest.mark.parametrize("text", ["", "schema_version: 2\n", "\x00" * 50, "[", "schema_version: x\n"])
def test_a_damaged_manifest_is_restored_from_its_copy(study, repair, capsys, text):
    whole = study.manifest_path.read_bytes()
    study.manifest_path.write_text(text)
    assert main(["status", "demo"]) == 1
    assert "Repair the study: hilo-nas repair demo" in capsys.readouterr().err
    assert "restored from manifest.backup.yaml" in repair()
    assert study.manifest_path.read_bytes() == whole
    assert originals(study) == {"manifest.yaml": text.encode()}
    assert main(["front", "demo"]) == 0


def test_a_lost_manifest_is_restored_from_its_copy_and_the_study_is_listed_meanwhile(study, repair, capsys):
    whole = study.manifest_path.read_bytes()
    study.manifest_path.unlink()
    assert main(["status"]) == 0
    assert "demo cannot be read: " in (said := capsys.readouterr().out)
    assert "manifest.yaml is missing. Repair the study: hilo-nas repair demo" in said
    assert "manifest.yaml: it is missing\n  restored from" in repair()
    assert study.manifest_path.read_bytes() == whole


def test_a_lost_manifest_without_a_copy_is_not_made_up(study, repair):
    study.manifest_path.unlink()
    study.backup_path.unlink()
    before = digest(study.path)
    said = repair(code=1)
    assert (
        "manifest.yaml: it is missing; manifest.backup.yaml is missing\n  Restore it from a copy of the study" in said
    )
    assert "demo: 0 files repaired, 1 left as it is" in said
    assert digest(study.path) == before


def test_a_damaged_copy_is_written_again(study, repair):
    study.backup_path.write_text("torn")
    assert "written again from manifest.yaml" in repair()
    assert study.backup_path.read_bytes() == study.manifest_path.read_bytes()


def test_a_record_without_a_use_is_moved_away_and_the_others_stay(study, repair):
    before = digest(study.trials_path)
    (study.trials_path / "0002.json").write_text("")
    assert "trials/0002.json: it is not complete JSON" in (said := repair())
    assert "moved; the trial is lost" in said
    assert originals(study) == {"trials/0002.json": b""}
    del before["0002.json"]
    assert digest(study.trials_path) == before
    assert [record.number for record in fresh(study).records] == [0, 1, 3, 4, 5, 6]


def test_a_torn_record_keeps_its_timing_and_its_trial_is_due_again(study, repair):
    path = study.trials_path / "0002.json"
    text = path.read_text()
    path.write_text(text[: text.index('"scores": [') + 60])
    assert "1 timing and 0 scores kept" in (said := repair())
    assert "the next search runs the trial again" in said
    record = fresh(study).records[2]
    assert record.is_interrupted
    assert record.key == demo_records()[2].key
    assert len(record.measurements) == 1


def test_a_field_on_which_no_state_depends_costs_no_trial(study, repair):
    path = study.trials_path / "0002.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "seconds": -1}))
    assert "1 timing and 1 score kept, seconds lost\n" in repair()
    assert fresh(study).records[2].state == "complete"


def test_a_record_under_another_name_gets_its_own_again(study, repair):
    os.rename(study.trials_path / "0002.json", study.trials_path / "2.json")
    assert "now trials/0002.json" in repair()
    assert [record.number for record in fresh(study).records] == list(range(7))


def test_a_copy_of_a_record_is_moved_away(study, repair):
    shutil.copy(study.trials_path / "0002.json", study.trials_path / "0012.json")
    assert "0012.json: the file name must be the trial number, but the record says 2" in (said := repair())
    assert "another record has the same network" in said
    assert [record.number for record in fresh(study).records] == list(range(7))


def test_a_record_with_a_wrong_number_keeps_that_of_its_file(study, repair):
    path = study.trials_path / "0002.json"
    path.write_text(path.read_text().replace('"number": 2,', '"number": 3,'))
    repair()
    assert [record.key for record in fresh(study).records] == [record.key for record in demo_records()]


def test_two_networks_that_claim_one_number_are_both_kept(study, repair):
    record = build_record(2, 400.0, 0.4, arch=build_arch(20))
    fields = json.dumps(record.to_dict())
    (study.trials_path / "2 (copy).json").write_text(fields)
    assert "now trials/0007.json" in repair()
    assert fresh(study).records[7].key == record.key


def test_what_a_newer_version_wrote_is_not_damaged(study, repair):
    before = digest(study.trials_path)
    for number, change in ((1, {"schema_version": 99}), (2, {"colour": "red"})):
        path = study.trials_path / f"000{number}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    path = study.trials_path / "0003.json"
    fields = json.loads(path.read_text())
    fields["measurements"][0]["colour"] = "red"
    path.write_text(json.dumps(fields))
    changed = digest(study.trials_path)
    assert changed != before
    assert repair(code=1).count("\n  Upgrade hilo-nas.\n") == 3
    assert digest(study.trials_path) == changed


def test_a_record_with_an_attention_of_another_package_is_not_damaged(study, repair):
    path = study.trials_path / "0002.json"
    path.write_text(path.read_text().replace('"hilo"', '"theirs"', 1))
    before = digest(study.trials_path)
    assert "Install the package that defines the attention 'theirs'" in repair(code=1)
    assert digest(study.trials_path) == before


def test_derived_and_local_files_are_moved_away(study, repair):
    study.logs_path.mkdir()
    log = study.logs_path / "events.jsonl"
    files = {"posteriors.json": b"{", "stages.json": b"[]", "local.yaml": b"- x\n", ".0001.json.abcdefgh.tmp": b"{"}
    for name, content in files.items():
        (study.path / name).write_bytes(content)
    log.write_bytes(b'{"at": "now"}\n\x00\x00\x00{"at": "n\n{"at": "then"}\n')
    files["logs/events.jsonl"] = log.read_bytes()
    said = repair()
    assert "demo: 5 files repaired\nOriginals: " in said
    assert "logs/events.jsonl: 1 of 3 lines is damaged" in said
    assert originals(study) == files
    assert log.read_bytes() == b'{"at": "now"}\n{"at": "then"}\n'
    assert repair() == "demo: no file is damaged\n"


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(study, repair):
    (study.trials_path / "0002.json").write_text("{")
    before = digest(study.path)
    assert "demo: 1 file to repair\n" in repair("--dry-run")
    assert digest(study.path) == before


def test_a_running_search_is_not_disturbed(study, capsys):
    (study.trials_path / "0002.json").write_text("{")
    before = digest(study.path)
    with locked(study):
        assert main(["repair", "demo"]) == 1
    assert "study demo is locked, because another search is running in it" in capsys.readouterr().err
    assert digest(study.path) == before


def test_an_unknown_study_is_refused(home, capsys):
    assert main(["repair", "none"]) == 2
    assert "no study 'none'" in capsys.readouterr().err


LINKS = ["trials/0002.json", "manifest.yaml", "manifest.backup.yaml", "local.yaml", "posteriors.json", ".lock"]
LINKS += ["logs/events.jsonl", "logs", "checkpoints", "trials"]


@pytest.mark.parametrize("name", LINKS)
def test_no_link_is_followed(study, home, name, capsys):
    mine = home / "mine"
    (mine / "trials").mkdir(parents=True)
    (mine / "trials/.0001.json.abcdefgh.tmp").write_text("mine")
    (mine / "trials/0000.json").write_text("{")
    (mine / "file").write_text("{")
    path = study.path / name
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    is_folder = name in ("logs", "checkpoints", "trials")
    path.symlink_to(mine / "trials" if is_folder else mine / "file")
    before = digest(mine)
    is_kept = name in ("trials/0002.json", "manifest.yaml", "trials")
    assert main(["repair", "demo"]) == int(is_kept)
    assert "is a link" in capsys.readouterr().out
    assert digest(mine) == before
    assert path.is_symlink() == is_kept


@pytest.mark.parametrize("kind", ["link", "file"])
def test_the_folder_of_damaged_files_lies_in_the_study(study, home, kind, capsys):
    (home / "mine").mkdir()
    if kind == "link":
        (study.path / "damaged").symlink_to(home / "mine")
    else:
        (study.path / "damaged").write_text("")
    (study.trials_path / "0002.json").write_text("{")
    before = digest(study.path)
    assert main(["repair", "demo"]) == 1
    assert "damaged must be a folder" in capsys.readouterr().err
    assert not list((home / "mine").iterdir())
    assert digest(study.path) == before


def test_a_pipe_and_a_folder_in_the_place_of_records_hang_nobody(study, repair):
    for name, make in (("0002.json", os.mkfifo), ("0003.json", os.mkdir)):
        (study.trials_path / name).unlink()
        make(study.trials_path / name)
    assert repair().count("the trial is lost") == 2
    assert [record.number for record in fresh(study).records] == [0, 1, 4, 5, 6]
