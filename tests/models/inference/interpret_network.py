"""Runs a whole network on Triton's operators in its interpreter: `interpret_network.py`, exit code 0 if all is well."""

import torch
from torch import nn

from hilo_nas.arch.config import ArchConfig
from hilo_nas.models import build_model, prepare_for_inference, randomize_constant_weights
from hilo_nas.models.inference import network, triton_kernels
from hilo_nas.models.inference.cuda import TRITON, is_right

assert triton_kernels.is_available("cpu")
assert is_right(torch.device("cpu"), torch.float32)
assert is_right(torch.device("cpu"), torch.float16)
network.choose_operators = lambda device, precision, *, for_compile=False: TRITON
arch = ArchConfig(
    embed_dims=(8, 16, 24, 32),
    depths=(1, 1, 1, 1),
    num_heads=(1, 2, 4, 4),
    attention=("none", "hilo", "hilo", "hilo"),
    alpha=(0.5, 0.5, 0.5, 0.0),
    window_size=(1, 2, 9, 2),  # windows of 81 tokens are left to torch
    patch_size=2,
)
torch.manual_seed(0)
model = build_model(arch, num_classes=5).eval()
randomize_constant_weights(model)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.running_mean.normal_()
        module.running_var.uniform_(0.5, 2)
images = torch.randn(2, 3, 22, 16)
with torch.no_grad():
    expected = model(images)
    prepared = prepare_for_inference(model)
    assert "windows=triton/1" in prepared.form.split(), prepared.form
    for found, tolerance in (
        (prepared(images), 1e-4),
        (prepare_for_inference(model, precision="fp16")(images.half()), 1e-2),
        (torch.compile(prepared, fullgraph=True, backend="aot_eager")(images), 1e-4),
    ):
        difference = (found.float() - expected).abs().max() / expected.abs().max()
        assert difference <= tolerance, difference
