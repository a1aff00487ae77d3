"""Initial weights that change nothing are replaced, so that a runtime leaves out no more than in a trained network."""

import pytest
import torch
from builders import TINY
from torch import nn

from hilo_nas.models import build_model, randomize_constant_weights
from hilo_nas.models.convert.capture import capture, copy_of, to_openvino
from hilo_nas.models.convert.quantization import quantize_openvino
from hilo_nas.models.convert.runtime_form import build_form


def test_zeros_and_ones_become_random_and_other_weights_stay():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 64, 1), nn.LayerNorm(64), nn.Linear(64, 64))
    nn.init.zeros_(model[0].weight)
    nn.init.zeros_(model[2].bias)
    scale = nn.Parameter(torch.full((64,), 1e-6))  # a layer scale
    ones = nn.Parameter(torch.ones(64, 1, 1))
    others = [torch.zeros((), dtype=torch.float16), torch.zeros(3, 0), torch.ones(3, dtype=torch.int64)]
    others = [nn.Parameter(other, requires_grad=False) for other in others]
    model.extend([nn.ParameterList([scale, ones, *others])])
    before = [parameter.clone() for parameter in (model[0].bias, model[2].weight, scale)]
    randomize_constant_weights(model)
    for old, parameter in zip(before, (model[0].bias, model[2].weight, scale), strict=True):
        assert torch.equal(old, parameter)
    assert others[0] != 0
    assert others[2].tolist() == [1, 1, 1]
    assert model[0].weight.std().item() == pytest.approx(3**-0.5, rel=0.3)
    for parameter, mean in ((model[1].weight, 1), (model[1].bias, 0), (model[2].bias, 0), (ones, 1)):
        assert parameter.mean().item() == pytest.approx(mean, abs=0.01)
        assert parameter.std().item() == pytest.approx(0.02, rel=0.3)


def randomize(model):
    """Changes all weights, as a training does."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)


def count_operators(model, precision):
    """Returns the number of operators that OpenVINO runs."""
    openvino, images = pytest.importorskip("openvino"), torch.randn(2, 3, 64, 64)
    network = to_openvino(capture(build_form(copy_of(model), "openvino", precision), images))
    network.reshape(list(images.shape))
    if precision == "int8":
        pytest.importorskip("nncf")
        network, _ = quantize_openvino(network, images, {}, corrects_bias=False)
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return len(compiled.get_runtime_model().get_ops())


@pytest.mark.parametrize("precision", ["fp32", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_runtime_computes_as_many_operators_as_for_a_trained_network(precision):
    counts = {}
    for name, change in (
        ("initial", lambda model: None),
        ("filled", randomize_constant_weights),
        ("trained", randomize),
    ):
        torch.manual_seed(0)
        model = build_model(TINY, num_classes=10).eval()
        change(model)
        counts[name] = count_operators(model, precision)
    assert counts["initial"] < counts["filled"] == counts["trained"]
