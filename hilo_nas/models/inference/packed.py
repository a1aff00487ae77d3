"""The base of all parts of an inference form: weights that are derived from a training form and change only with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, SupportsIndex

import torch
from torch import nn

from hilo_nas.errors import InferenceFormError

__all__ = ["PackedModule", "is_traced", "refuse_graph"]


class PackedModule(nn.Module):
    """A part whose weights are packed for one device and one dtype.

    Converting or copying a part alone raises an error before anything changes; `PreparedLITv2` does both as a whole.
    """

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> NoReturn:
        raise self._refusal("moved or converted")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise self._refusal("copied or pickled")

    def _refusal(self, done: str) -> InferenceFormError:
        return InferenceFormError(
            f"a part of a prepared network ({type(self).__name__}) cannot be {done} alone. Use the whole network, or "
            "its training form, network.training_form()."
        )


def is_traced() -> bool:
    """Returns whether `torch.jit.trace`, or an exporter built on it, records what runs."""
    return bool(torch._C._get_tracing_state())


@torch.compiler.disable  # type: ignore[untyped-decorator]
def refuse_graph(what: str) -> NoReturn:
    """Raises an InferenceFormError for code that captures a graph.

    torch's compiler leaves a disabled function to Python, so that the error reaches the caller.

    Args:
        what: What captures the network.
    """
    raise InferenceFormError(
        f"{what} cannot capture a network prepared for inference. Use its training form, network.training_form(), or "
        "for torch.compile prepare_for_inference(..., for_compile=True)."
    )
