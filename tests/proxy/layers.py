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


class Outliers(nn.Module):
    """A network whose layer `fc1` has an input channel 1,000 times as large as the others; its weights undo that."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 8, 4, stride=4), nn.Linear(128, 32), nn.Linear(32, 10)
        self.register_buffer("scale", torch.tensor([1000.0] + [1.0] * 127))
        with torch.no_grad():
            self.fc1.weight /= self.scale
        self.fc1.requires_grad_(False)  # a step of its weights would be 1,000 times as large as well

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.conv(x).flatten(1) * self.scale).relu())


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
