"""Base class of the parts of a network prepared for inference, whose weights are derived from its training form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, SupportsIndex

import torch
from torch import nn

from hilo_nas.errors import InferenceFormError

__all__ = ["PackedModule", "is_traced", "refuse_graph"]


class PackedModule(nn.Module):
    """Base class of parts with weights that are packed for one device and one dtype.

    A part cannot be converted or copied separately: both raise an InferenceFormError and change nothing. Convert or
    copy the whole `PreparedLITv2` instead.
    """

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> NoReturn:
        raise self._refusal("moved or converted")

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise self._refusal("copied or pickled")

    def _refusal(self, done: str) -> InferenceFormError:
        return InferenceFormError(
            f"a part of a prepared network ({type(self).__name__}) cannot be {done} separately. Use the whole network "
            "or its training form, network.training_form()."
        )


def is_traced() -> bool:
    """Returns True while `torch.jit.trace`, or an exporter that uses it, records operations."""
    return bool(torch._C._get_tracing_state())


@torch.compiler.disable  # type: ignore[untyped-decorator]
def refuse_graph(what: str) -> NoReturn:
    """Raises an InferenceFormError for code that captures a graph.

    The compiler is disabled for this function, so that Python runs it and the error reaches the caller.

    Args:
        what: Name of the function that captures the network. Used in the message.
    """
    raise InferenceFormError(
        f"{what} cannot capture a network prepared for inference. Use its training form, network.training_form(). For "
        "torch.compile, use prepare_for_inference(..., for_compile=True)."
    )
