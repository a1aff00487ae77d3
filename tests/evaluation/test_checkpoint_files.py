"""Checkpoints on disk: what is removed for the budget, and what is never touched."""

import pytest

from hilo_nas.evaluation.checkpoint_files import CheckpointFiles

KEYS = [f"{i}23456789abc" for i in range(4)]


def write(kept, references):
    paths = [kept.path_of(reference) for reference in references]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(100))
    return paths


def test_checkpoints_beyond_the_disk_budget_go_the_first_ones_first(tmp_path):
    kept = CheckpointFiles(tmp_path / "checkpoints", budget_mib=2.5e-4)  # 262 bytes: two of them
    references = [f"{key}-{seed}" for key, seed in zip(KEYS, (0, 1, 0, 12), strict=True)]
    paths = write(kept, references)
    kept.discard(["ffffffffffff-0", *references])
    assert [path.is_file() for path in paths] == [False, False, True, True]


@pytest.mark.parametrize("budget_mib", [0, 1e-6])
def test_a_checkpoint_that_is_not_named_stays_however_small_the_budget(tmp_path, budget_mib):
    kept = CheckpointFiles(tmp_path, budget_mib=budget_mib)
    paths = write(kept, ["timm:vit/x-0", f"{KEYS[0]}-0"])
    kept.discard([f"{KEYS[0]}-0"])
    assert [path.is_file() for path in paths] == [True, False]


def test_only_files_of_the_checkpoints_own_form_are_removed(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    draft = folder / f".{KEYS[0]}-0.pt.abcd1234.tmp"
    foreign = [folder / name for name in ("resnet.pt", "run-3.pt", "notes.tmp", f"{KEYS[0]}-1.pt.bak")]
    for path in (draft, *foreign, tmp_path / "precious.pt"):
        path.write_bytes(bytes(100))
    link = folder / f"{KEYS[1]}-0.pt"
    link.symlink_to(tmp_path / "precious.pt")
    kept = CheckpointFiles(folder, budget_mib=0)
    (own,) = write(kept, [f"{KEYS[0]}-0"])
    kept.discard([f"{KEYS[0]}-0", f"{KEYS[1]}-0", "resnet", "run-3", "../precious"])
    assert not own.exists()
    assert not draft.exists()
    assert link.is_symlink()
    assert all(path.exists() for path in (*foreign, tmp_path / "precious.pt"))


def test_temporary_files_of_running_trainings_stay(tmp_path):
    kept = CheckpointFiles(tmp_path, budget_mib=0)
    kept.path_of(f"{KEYS[0]}-0")
    draft = tmp_path / f".{KEYS[0]}-0.pt.abcd1234.tmp"
    draft.write_bytes(b"")
    kept.path_of(f"{KEYS[1]}-0")
    assert draft.exists()


def test_a_checkpoints_folder_that_is_a_link_loses_nothing(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "checkpoints").symlink_to(elsewhere)
    kept = CheckpointFiles(tmp_path / "checkpoints", budget_mib=0)
    (path,) = write(kept, [f"{KEYS[0]}-0"])
    kept.discard([f"{KEYS[0]}-0"])
    assert path.is_file()
