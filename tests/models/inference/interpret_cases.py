"""Runs cases in Triton's interpreter, which can only be set for a whole process: `interpret_cases.py IN OUT`.

IN holds {name: (function, tensors, settings)}; OUT gets {name: {way: result}}.
"""

import sys

import torch

from hilo_nas.models.inference import triton_kernels
from hilo_nas.models.inference.kernels import deformable, depthwise

assert triton_kernels.is_available("cpu")
cases = torch.load(sys.argv[1])
results: dict[str, dict[str, torch.Tensor]] = {name: {} for name in cases}
for name, (function, tensors, settings) in cases.items():
    results[name]["small batch"] = result = getattr(triton_kernels, function)(*tensors, **settings)
    # Tiny cases are cut as small batches are: then once more as the largest are.
    if function == "deformable_columns":
        x, offset = tensors
        deformable.launch(x.contiguous(), offset, y := torch.empty_like(result), n_programs=0)
        results[name]["large batch"] = y
    elif function == "depthwise_gelu":
        depthwise.launch(*(t.contiguous() for t in tensors), y := torch.empty_like(result), n_programs=0)
        results[name]["large batch"] = y
for name in ("merging", "ffn", "attention"):
    function, tensors, settings = cases[name]
    compiled = torch.compile(getattr(triton_kernels, function), fullgraph=True, backend="aot_eager")
    results[name]["compiled"] = compiled(*tensors, **settings)
    operator = getattr(torch.ops.hilo_nas, function).default
    torch.library.opcheck(operator, tensors, settings, test_utils=("test_schema", "test_faketensor"))
torch.save(results, sys.argv[2])
