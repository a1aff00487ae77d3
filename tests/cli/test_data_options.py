"""Images from a function, grouped: a real search through real workers, and going on with it."""

import pytest
import yaml

from hilo_nas.cli import main

SPACE = """
patch_size: [2]
embed_dims: [8]
depths: [[1], [1], [1], [1]]
head_dim: [8]
attention: [[none], [none], [hilo], [hilo]]
window_size: [[1], [1], [2], [1]]
defaults: {img_size: 16, batch_size: 2, proxy_img_size: 16, proxy_batch_size: 8, proxy_images: 16, trials: 1}
"""
FUNCTION = """
import numpy as np


def load():
    '''Blobs of two sizes from eight patients, five images of each.'''
    for patient in range(8):
        for i in range(5):
            image = np.zeros((20, 20), dtype=np.uint8)
            image[: 4 + 8 * (patient % 2), : 5 + i] = 100 + patient
            yield image, "large" if patient % 2 else "small", f"patient{patient}/{i}"
"""


@pytest.mark.slow
def test_a_search_trains_on_what_a_function_gives_and_holds_whole_groups_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HILO_NAS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("HILO_NAS_STUDIES_DIR", raising=False)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    (tmp_path / "scans.py").write_text(FUNCTION)
    unhurried = ("--set", "timing.remeasure=false")
    options = ("--data", "scans.py:load", "--set", r"data.group_by=patient(\d)", "--set", "timing.seconds=0.2")
    assert main(["search", "tiny.yaml", *options, *unhurried, "--study", "blobs", "--device", "cpu"]) == 0
    assert r"40 images in 8 groups by 'patient(\\d)'" in " ".join(capsys.readouterr().out.split())
    study = tmp_path / "studies" / "blobs"
    manifest = yaml.safe_load((study / "manifest.yaml").read_text())
    assert (manifest["data"]["name"], manifest["data"]["n_images"]) == ("scans.py:load", 40)
    assert len(manifest["data"]["source_hash"]) == 64
    assert manifest["plan"]["group_by"] == r"patient(\d)"
    assert str(tmp_path) not in (study / "manifest.yaml").read_text()
    assert yaml.safe_load((study / "local.yaml").read_text())["data"] == f"{tmp_path.resolve()}/scans.py:load"
    record = yaml.safe_load((study / "trials" / "0000.json").read_text())
    assert record["scores"][0]["n_val"] == 10  # one patient of four in each class

    (tmp_path / "scans.py").write_text("# a remark\n" + FUNCTION)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = ["search", "--study", str(study), "--until-trials", "1", *unhurried]
    assert main(again) == 2
    said = " ".join(capsys.readouterr().err.split())
    named = f"--data {tmp_path.resolve()}/scans.py:load"
    assert said.endswith(
        f"since you named it for study blobs, but was edited. To run the edited version, name it again: {named}"
    )
    assert main([*again, *named.split()]) == 0
    assert "scans.py:load was edited since this study was created" in " ".join(capsys.readouterr().out.split())
    assert main(again) == 0  # it is remembered
