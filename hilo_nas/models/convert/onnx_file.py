"""ONNX files for deployment: for any number of images, with what is needed to check them on the machine they run on.

A free batch axis cost little: compared with files for one batch, a small LITv2 at 64 px took 1 to 4 % longer for one
image and 1 to 5 % for eight (medians of interleaved calls, onnxruntime 1.32, one thread of a busy AMD EPYC); it may
change. Height and width are fixed, because the merging's sampling points are computed for them.
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
"""The metadata that `verify_onnx` reads."""
_SEED = 0


def write_onnx(model: nn.Module, path: Path, *, shape: tuple[int, int, int], metadata: Mapping[str, str]) -> bool:
    """Writes a network as one ONNX file in float32, after ONNX Runtime gave torch's outputs on random images.

    Its input is called `image`, its output `output`. Outputs of torch stand in the file's metadata, for `verify_onnx`.

    Args:
        model: The network; left as it is.
        path: The file; a folder must be there.
        shape: Shape of an image, (C, H, W).
        metadata: Further metadata of the file.

    Returns:
        Whether the file takes any number of images; else it takes one.

    Raises:
        UsageError: The exporter's libraries are not installed.
        ConversionError: The network cannot be converted, or ONNX Runtime gives other outputs.
        StorageError: The file cannot be written.
    """
    images = _draw_images(shape)
    example = torch.from_numpy(images)
    expected = expected_output(model, example)
    try:
        program, is_dynamic = capture(copy_of(model), example, dynamic_batch=True), True
    except ConversionError:  # an operator that torch captures for one batch only
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
    """Checks on this machine that ONNX Runtime gives the outputs which torch gave when a file was written.

    Returns:
        A sentence with the largest difference.

    Raises:
        UsageError: ONNX Runtime is not installed, or `write_onnx` did not write the file.
        ConversionError: The outputs differ.
    """
    if not path.is_file():
        raise UsageError(f"an ONNX file must exist, but {path} does not")
    return _verify(path, str(path))


def _verify(source: bytes | Path, name: str) -> str:
    runtime = import_library("onnxruntime", "checking an ONNX file")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what it reports it also raises
    with refusals(f"onnxruntime must be able to run {name}", "Export it again."):
        content = source if isinstance(source, bytes) else str(source)
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        found = session.get_modelmeta().custom_metadata_map.get(_CHECK)
    if found is None:
        raise UsageError(f"{name} must be written by `hilo-nas export` to be verified, but holds no {_CHECK}")
    check: dict[str, Any] = json.loads(found)
    images = _draw_images(tuple(check["shape"]))
    expected = torch.tensor(check["output"])
    # More than the images of the capture show that the batch is free indeed.
    batches = ([0], [0, 1], [1, 0, 1]) if check["is_dynamic"] else ([0], [1])
    worst = 0.0
    for batch in batches:
        with refusals(f"onnxruntime must be able to run {name}", "Export it again."):
            output = torch.from_numpy(session.run(None, {"image": images[batch]})[0])
        share = output_share(output, expected[batch])
        if not share <= check["allowed_share"]:  # so that NaN does not pass
            raise ConversionError(
                f"{name} must give torch's outputs to within {check['allowed_share']:.2g} of the largest in "
                f"onnxruntime {runtime.__version__}, but is off by {share:.2g} for {len(batch)} images. Use another "
                "version of onnxruntime, or torch itself."
            )
        worst = max(worst, share)
    return (
        f"verified: onnxruntime {runtime.__version__} gives torch's outputs to within {worst:.1e} of the largest, for "
        f"batches of {' and '.join(str(len(batch)) for batch in batches)}"
    )


def _draw_images(shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Returns the two images of the check; the legacy generator's stream is the same in every version of NumPy."""
    return np.random.RandomState(_SEED).standard_normal((2, *shape)).astype(np.float32)
