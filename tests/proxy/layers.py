"""Networks that a proxy scores by name, as a worker builds them."""

from __future__ import annotations

import math
import weakref
from typing import ClassVar

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """A linear classifier in double precision that runs out of memory beyond a number of images; scored, of another."""

    built: ClassVar[list[weakref.ref[Linear]]] = []
    """References to all networks that were built."""

    def __init__(
        self,
        limit: int = 10**9,
        message: str = "CUDA out of memory. Tried to allocate 2 GiB",
        limit_in_scoring: int | None = None,
        weight: float | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(3 * 16 * 16, 10, dtype=torch.float64)
        if weight is not None:
            nn.init.constant_(self.fc.weight, weight)
        self.limit, self.message = limit, message
        self.limit_in_scoring = limit if limit_in_scoring is None else limit_in_scoring
        self.seen_in_training: list[int] = []
        self.built.append(weakref.ref(self))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > (self.limit if self.training else self.limit_in_scoring):
            raise RuntimeError(self.message)
        if self.training:
            self.seen_in_training.append(len(x))
        return self.fc(x.double().flatten(1))


class Cramped(nn.Module):
    """A network that runs out of memory beyond a number of images; a test changes it as a larger card would."""

    limit: ClassVar[float] = math.inf

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.limit:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.fc(x.flatten(1))
