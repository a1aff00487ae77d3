import pytest
import torch
from builders import TINY
from timm.models.resnet import resnet18

from hilo_nas.errors import UsageError
from hilo_nas.models import build_subject, form_of, img_size_of, input_shape_of
from hilo_nas.models.macs import count_subject
from hilo_nas.models.subjects import check_timm_names


def test_a_subject_can_be_the_result_of_a_function():
    spec = {"function": "hilo_nas.models.litv2:litv2", "arguments": TINY.to_dict()}
    model = build_subject(spec, num_classes=4, in_chans=1)
    assert model(torch.randn(2, 1, 32, 32)).shape == (2, 4)
    assert input_shape_of(spec, 2, 32) == (2, 3, 32, 32)


def test_a_form_names_the_implementation():
    with torch.device("meta"):
        assert form_of(resnet18()).startswith("timm/")
        assert form_of(torch.nn.Linear(2, 2)) == "torch.nn.modules.linear.Linear eager"
        layer = {
            "layer": "hilo_nas.models.hilo:HiLo",
            "arguments": {"dim": 8, "num_heads": 2, "window_size": 2, "alpha": 0.5},
        }
        assert form_of(build_subject(layer, 10, 3)) == "layer/1 HiLo"


def test_a_network_with_a_fixed_image_size_is_built_for_the_given_size():
    images = torch.zeros(2, 3, 32, 32)
    spec = {"timm": "deit_tiny_patch16_224"}
    with pytest.raises(AssertionError):
        build_subject(spec, 10, 3)(images)
    assert build_subject(spec, 10, 3, 32)(images).shape == (2, 10)
    assert build_subject({**spec, "arguments": {"img_size": 32}}, 10, 3, 64)(images).shape == (2, 10)
    assert build_subject("timm:test_resnet", 10, 3, 32)(images).shape == (2, 10)  # takes no such argument


def test_a_subject_may_have_its_own_image_size_for_timings_and_counts():
    subject = {"timm": "deit_tiny_patch16_224", "img_size": 32}
    assert [img_size_of(spec, 64) for spec in (subject, {"timm": "resnet18"}, "timm:resnet18")] == [32, 64, 64]
    assert count_subject(subject, 64, emit=print) == count_subject({"timm": "deit_tiny_patch16_224"}, 32, emit=print)
    assert build_subject(subject, 10, 3, 64)(torch.zeros(2, 3, 64, 64)).shape == (2, 10)  # of a training, for instance


def test_names_that_timm_does_not_know_are_reported_with_similar_names():
    check_timm_names(["resnet18", "resnet18.a1_in1k"])
    with pytest.raises(UsageError) as caught:
        check_timm_names(["resnet18", "convnext_tinny", "resnet5"])
    first, second = str(caught.value).split("\n")
    assert "has no model 'convnext_tinny'. Use convnext_tiny" in first
    assert "has no model 'resnet5'. Use resnet50" in second


def test_counts_of_a_timm_network_depend_on_its_classes_and_image_size():
    small, large = (count_subject({"timm": "test_vit"}, size, num_classes=10, emit=print) for size in (32, 64))
    assert small["macs"] < large["macs"]
    assert count_subject({"timm": "test_vit"}, 32, emit=print)["params"] > small["params"]
