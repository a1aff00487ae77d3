"""The deployment scripts of the guide, each in a process of its own, with files that were exported for it."""

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

from hilo_nas.export import EXPORTERS, ExportOptions, export, load_source
from hilo_nas.models import build_model, fill_zero_weights

GUIDE = (Path(__file__).parents[2] / "docs/exporting.md").read_text(encoding="utf-8")
SCRIPTS = dict(re.findall(r"```python\n# deploy_(\w+)\.py[^\n]*\n(.*?)```", GUIDE, re.DOTALL))
FORMATS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("openvino", "openvino"), "torch": ("torch-package", "torch")}
SIDE = 32


def test_there_is_a_script_per_format():
    assert SCRIPTS.keys() == FORMATS.keys()
    assert all(len(script.splitlines()) <= 18 for script in SCRIPTS.values())


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "onnx" else []) for name in FORMATS]
)
def test_a_script_names_the_class_that_torch_names(name, tmp_path):
    format, library = FORMATS[name]
    pytest.importorskip(library)
    torch.manual_seed(3)
    model = build_model(TINY, num_classes=10).eval()
    fill_zero_weights(model)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "arch.yaml").write_text(yaml.safe_dump(TINY.to_dict()))
    source = load_source(tmp_path / "arch.yaml", num_classes=10, img_size=SIDE, weights=tmp_path / "weights.pt")
    export(EXPORTERS[format], source, tmp_path / "deploy", ExportOptions())
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.jpg", format="PNG")  # without loss
    read = source.preprocessing
    normal = (torch.from_numpy(pixels) / 255 - torch.tensor(read.mean)) / torch.tensor(read.std)
    with torch.inference_mode():
        expected = int(model(normal.permute(2, 0, 1)[None]).argmax())
    done = subprocess.run(
        [sys.executable, "-c", SCRIPTS[name]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.returncode) == (str(expected), 0), done.stderr
