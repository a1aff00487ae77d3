"""The deployment scripts of the guide, each in a separate process, with files that were exported for it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from builders import TINY
from PIL import Image
from timm.data import create_transform

from hilo_nas.export import EXPORTERS, ExportOptions, export, load_source
from hilo_nas.models import build_model, randomize_constant_weights

GUIDE = (Path(__file__).parents[2] / "docs/exporting.md").read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r"```python\n# deploy_(\w+)\.py[^\n]*\n(.*?)```", GUIDE, re.DOTALL))
FORMATS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino", "openvino"), "torch": ("torch-package", "torch")}
SIDE, WIDTH, HEIGHT = 96, 300, 218
"""Pixels. The photo is not square, and both of its scaled sides leave whole margins."""


def test_there_is_a_script_per_format():
    assert SCRIPTS.keys() == FORMATS.keys()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "onnx" else []) for name in FORMATS]
)
def test_a_script_reads_a_photo_as_timm_does_and_gives_torchs_logits(name, tmp_path):
    format, library = FORMATS[name]
    pytest.importorskip(library)
    torch.manual_seed(3)
    model = build_model(TINY, num_classes=10).eval()
    randomize_constant_weights(model)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    source = load_source(tmp_path / "arch.yaml", num_classes=10, img_size=SIDE, weights=tmp_path / "weights.pt")
    export(EXPORTERS[format], source, tmp_path / "deploy", ExportOptions())
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([rows * 255 // HEIGHT, columns * 255 // WIDTH, (rows + columns) % 64 * 4], axis=-1)
    photo = Image.fromarray(pixels.astype(np.uint8))
    photo.save(tmp_path / "photo.jpg", format="PNG")  # without loss
    read = source.preprocessing
    as_timm = create_transform(
        (3, SIDE, SIDE), interpolation=read.interpolation, mean=read.mean, std=read.std, crop_pct=read.crop_pct
    )
    with torch.inference_mode():
        expected = model(as_timm(photo)[None])[0]
    detached = "logits.detach()" if name == "torch" else "logits"
    script = f"{SCRIPTS[name]}print(np.asarray({detached}).ravel().tolist())\n"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    best, logits = done.stdout.splitlines()
    assert int(best) == int(expected.argmax())
    assert json.loads(logits) == pytest.approx(expected.tolist(), abs=0.02 * float(expected.abs().max()))
