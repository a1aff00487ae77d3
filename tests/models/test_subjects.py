import torch
from builders import TINY
from timm.models.resnet import resnet18

from hilo_nas.models import build_subject, form_of, input_shape_of


def test_a_subject_may_be_whatever_a_function_builds():
    spec = {"function": "hilo_nas.models.litv2:litv2", "arguments": TINY.to_dict()}
    model = build_subject(spec, num_classes=4, in_chans=1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    assert input_shape_of(spec, 2, 32) == (2, 3, 32, 32)


def test_a_form_says_whose_code_runs():
    with torch.device("meta"):
        assert form_of(resnet18()).startswith("timm/")
        assert form_of(torch.nn.Linear(2, 2)) == "torch.nn.modules.linear.Linear eager"
        layer = {
            "layer": "hilo_nas.models.hilo:HiLo",
            "arguments": {"dim": 8, "num_heads": 2, "window_size": 2, "alpha": 0.5},
        }
        assert form_of(build_subject(layer, 10, 3)) == "layer/1 HiLo"
