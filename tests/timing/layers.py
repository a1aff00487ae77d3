"""Layers to be timed in tests, as small as can be; each does one thing that a network may do to those who time it.

They take a map (B, H, W, C) to a map. A subject is `{"layer": "timing.layers:Mixer", "arguments": {"dim": 8}}`.
"""

import os
import time
from pathlib import Path

from torch import nn


class Mixer(nn.Module):
    """As small as a layer can be."""

    def __init__(self, dim):
        super().__init__()
        self.mix = nn.Linear(dim, dim)

    def forward(self, x):
        return self.mix(x).relu()


class Exploding(Mixer):
    """Needs more memory than there is."""

    def forward(self, x):
        raise MemoryError


class Sleeping(Mixer):
    """Takes about as long every time, whoever else wants the cores."""

    def forward(self, x):
        time.sleep(0.004)
        return super().forward(x)


class Stamped(Sleeping):
    """Writes down who ran it and when, on the clock that all processes share."""

    def __init__(self, dim, log, run):
        super().__init__(dim)
        self.log, self.run = Path(log), run

    def forward(self, x):
        began = time.monotonic()
        y = super().forward(x)
        with self.log.open("a") as log:
            log.write(f"{self.run} {os.getpid()} {began} {time.monotonic()}\n")
        return y


class Spare(Mixer):
    """Has a part that is never used."""

    def __init__(self, dim):
        super().__init__(dim)
        self.spare = nn.Linear(dim, dim)


class Forked(Mixer):
    """Looks at its data, so that nothing can trace it."""

    def forward(self, x):
        return self.mix(x) if x.sum() > 0 else self.mix(-x)


class Lying(Mixer):
    """Its re-parameterised form is another network."""

    def __init__(self, dim, off=0.1):
        super().__init__(dim)
        self.mix = _Lie(dim, off)


class _Lie(nn.Linear):
    def __init__(self, dim, off):
        super().__init__(dim, dim)
        self.off = off

    def fuse(self):
        told = nn.Linear(*self.weight.shape)
        told.load_state_dict({name: value + self.off for name, value in self.state_dict().items()})
        return told
