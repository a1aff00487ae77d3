"""Parts of a network, each on a fixed input of its own."""

import torch

from hilo_nas.arch.config import PRESETS
from hilo_nas.arch.cost import PARTS
from hilo_nas.measurement import Condition
from hilo_nas.models import build_model, randomize_constant_weights
from hilo_nas.models.network_parts import build_part
from hilo_nas.timing.prepared_network import prepare


@torch.no_grad()
def test_parts_put_together_are_the_network():
    """Each part runs on a fixed input. On the outputs of the previous part, the parts give the network's output."""
    arch = PRESETS["litv2_small"]
    images = torch.randn(1, 3, 64, 64)
    torch.manual_seed(1)
    network = build_model(arch, num_classes=10).eval()
    randomize_constant_weights(network)
    common = {"arch": arch.to_dict(), "batch_size": 1, "img_size": 64, "device": "cpu", "precision": "fp32"}
    y = images
    for part in PARTS:
        torch.manual_seed(1)
        module = build_part(part=part, num_classes=10, in_chans=3, **common)
        assert module.x.shape == y.shape
        module.x = y
        y = module(None)
    expected = network(images)
    assert (y - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_parts_are_timed_in_the_layout_that_the_network_has_them_in():
    subject = {
        "function": "hilo_nas.models.network_parts:build_part",
        "arguments": {
            "part": "stage 2",
            "arch": PRESETS["litv2_small"].to_dict(),
            "batch_size": 2,
            "img_size": 32,
            "device": "cpu",
            "precision": "fp32",
        },
    }
    with torch.inference_mode():
        found = prepare(subject, Condition(batch_size=2, img_size=32), num_classes=10)
        assert found.call().is_contiguous(memory_format=torch.channels_last)
    assert "batchnorms=folded" in found.form.split()
    module = build_part(num_classes=10, in_chans=3, **subject["arguments"])
    moved = module.to(memory_format=torch.contiguous_format)
    assert moved.x.is_contiguous(memory_format=torch.channels_last)
    offsets = moved.part.downsample.conv_offset.weight
    assert offsets.is_contiguous(memory_format=torch.channels_last)
