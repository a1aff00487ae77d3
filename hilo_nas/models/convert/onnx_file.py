"""ONNX files for deployment, with a dynamic batch size and data for a check on the target machine.

A dynamic batch axis is slightly slower than a fixed one: for a small LITv2 at 64 px, 1 to 4 % with one image and 1 to
5 % with eight. These are medians of interleaved calls with onnxruntime 1.32 on one thread of a busy AMD EPYC; other
versions can differ. Height and width are fixed, because the sampling positions of token merging depend on them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.models.convert.capture import capture, copy_of, to_onnx
from hilo_nas.models.convert.checked import allowed_share, expected_output, output_share
from hilo_nas.models.convert.libraries import import_library, refusals
from hilo_nas.study.records import write_atomically

__all__ = ["verify_onnx", "write_onnx"]

_CHECK = "hilo_nas.check"
"""Metadata key of the data for `verify_onnx`."""
_SEED = 0


def write_onnx(model: nn.Module, path: Path, *, shape: tuple[int, int, int], metadata: Mapping[str, str]) -> bool:
    """Writes a network to one ONNX file in float32, after a comparison of ONNX Runtime with torch on random images.

    The input is named `image`, the output `output`. The metadata contains the outputs of torch for `verify_onnx`.

    Args:
        model: Network to export; not changed.
        path: File to write, in an existing folder.
        shape: Shape of an image, (C, H, W).
        metadata: Additional metadata for the file.

    Returns:
        True if the file accepts any batch size; False if it accepts only one image.

    Raises:
        UsageError: The libraries of the exporter are not installed.
        ConversionError: The network cannot be converted, or the outputs differ from torch.
        StorageError: The file cannot be written.
    """
    images = _draw_images(shape)
    example = torch.from_numpy(images)
    expected = expected_output(model, example)
    try:
        program, is_dynamic = capture(copy_of(model), example, dynamic_batch=True), True
    except ConversionError:  # torch can capture some operators only for a fixed batch size
        program, is_dynamic = capture(copy_of(model), example[:1]), False
    proto = to_onnx(program).model_proto
    check = {
        "seed": _SEED,
        "shape": list(shape),
        "is_dynamic": is_dynamic,
        "output": expected.tolist(),
        "allowed_share": allowed_share(model, example, expected),
    }
    import_library("onnx", "writing ONNX").helper.set_model_props(proto, {**metadata, _CHECK: json.dumps(check)})
    with refusals("a network must fit into one ONNX file", "Use torch itself as the runtime."):
        content: bytes = proto.SerializeToString()
    _verify(content, "the network")
    write_atomically(path, content)
    return is_dynamic


def verify_onnx(path: Path) -> str:
    """Checks that ONNX Runtime on this machine gives the outputs of torch that `write_onnx` stored in the file.

    Returns:
        Message with the largest difference.

    Raises:
        UsageError: ONNX Runtime is not installed, or the file is not from `write_onnx`.
        ConversionError: The outputs differ.
    """
    if not path.is_file():
        raise UsageError(f"an ONNX file must exist, but there is no file {path}")
    return _verify(path, str(path))


def _verify(source: bytes | Path, name: str) -> str:
    runtime = import_library("onnxruntime", "checking an ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so do not log them too
    with refusals(f"onnxruntime must be able to run {name}", "Export it again."):
        content = source if isinstance(source, bytes) else str(source)
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map.get(_CHECK)
    if found is None:
        raise UsageError(f"{name} must be a file that `hilo-nas export` wrote, but it has no metadata {_CHECK}")
    check: dict[str, Any] = json.loads(found)
    images = _draw_images(tuple(check["shape"]))
    expected = torch.tensor(check["output"])
    # Also test a batch size above that of the capture, to check that the batch axis is dynamic.
    batches = ([0], [0, 1], [1, 0, 1]) if check["is_dynamic"] else ([0], [1])
    worst = 0.0
    for batch in batches:
        with refusals(f"onnxruntime must be able to run {name}", "Export it again."):
            output = torch.from_numpy(session.run(None, {"image": images[batch]})[0])
        share = output_share(output, expected[batch])
        if not share <= check["allowed_share"]:  # this form rejects NaN
            raise ConversionError(
                f"the outputs of {name} must differ from torch by at most {check['allowed_share']:.2g} of the largest "
                f"output, but differ by {share:.2g} for {len(batch)} images in onnxruntime {runtime.__version__}. Use "
                "another version of onnxruntime, or torch itself."
            )
        worst = max(worst, share)
    return (
        f"verified: onnxruntime {runtime.__version__} differs from torch by at most {worst:.1e} of the largest output, "
        f"for batches of {' and '.join(str(len(batch)) for batch in batches)}"
    )


def _draw_images(shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns the two images of the check.

    Uses the legacy random generator, because it gives the same values in every version of NumPy.
    """
    return np.random.RandomState(_SEED).standard_normal((2, *shape)).astype(np.float32)
