"""Check of a written file: two images and the outputs of torch, which are stored in the file's metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from hilo_nas.errors import ConversionError, UsageError
from hilo_nas.models.convert.capture import capture, copy_of
from hilo_nas.models.convert.checked import BOUNDS, allowed_share, expected_output, output_share
from hilo_nas.models.convert.libraries import refusals
from hilo_nas.models.convert.runtime_form import build_form

__all__ = ["CHECK", "FLOAT_LAYERS", "FileCheck", "WrittenFile", "capture_for_file"]

CHECK = "hilo_nas.check"
"""Key of the check in the metadata of a file."""
FLOAT_LAYERS = "hilo_nas.float_layers"
"""Key of the layers that stay in float in the metadata of a file in INT8, a list in JSON."""
_SEED = 0
_MARGIN, _MIN_SHARE = 3, 0.02
"""Tolerance of a quantized file on another machine: a multiple of its difference on this one, and its minimum.

Processors with and without VNNI round differently."""

Images = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """What a written file accepts and contains."""

    is_dynamic: bool
    """True if the file accepts any batch size, False if it accepts one image."""
    float_layers: tuple[str, ...] = ()
    """Layers that stay in float in a file in INT8."""
    hidden_layers: tuple[str, ...] = ()
    """Layers that should stay in float, but are quantized because the runtime changed their weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileCheck:
    """Data for a comparison of a file with torch on any machine.

    The images follow from a seed, so the file stores only the outputs.
    """

    shape: tuple[int, ...]
    """Shape of an image, (C, H, W)."""
    is_dynamic: bool
    """True if the file accepts any batch size, False if it accepts one image."""
    output: tuple[tuple[float, ...], ...]
    """Outputs of torch for the two images."""
    allowed_share: float
    """Tolerance, relative to the largest output."""
    seed: int = _SEED
    """Seed of the images."""

    @classmethod
    def from_text(cls, text: str | None, name: str) -> FileCheck:
        """Returns the check that a file contains.

        Args:
            text: Value of `CHECK` in the metadata; None if there is none.
            name: Name of the file in messages.

        Raises:
            UsageError: The file has no check.
        """
        if text is None:
            raise UsageError(
                f"{name} must be a file that `hilo-nas export` wrote, but it has no metadata {CHECK}. Export it again."
            )
        try:
            fields: dict[str, Any] = json.loads(text)
            fields["shape"] = tuple(fields["shape"])
            return cls(**{**fields, "output": tuple(map(tuple, fields["output"]))})
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f"the metadata {CHECK} of {name} must be those of this version of hilo-nas, but cannot be read. Export "
                "the file again."
            ) from error

    def to_text(self) -> str:
        """Returns the check as JSON text of the metadata of a file."""
        return json.dumps(dataclasses.asdict(self))

    def compare(self, run: Callable[[Images], Tensor], name: str, runtime: str) -> str:
        """Compares the outputs of a file with those of torch, for one image and, if possible, for two and three.

        Args:
            run: Returns the output for a batch, shape (B, C, H, W).
            name: Name of the file in messages.
            runtime: Name and version of the runtime.

        Returns:
            Sentence with the largest difference.

        Raises:
            ConversionError: The outputs differ, or the runtime cannot run the file.
        """
        share = self.read_share(run, name, runtime)
        return (
            f"verified: {runtime} differs from torch by at most {share:.1e} of the largest output, for batches of "
            + ("1, 2 and 3 images" if self.is_dynamic else "1 image")
        )

    def read_share(self, run: Callable[[Images], Tensor], name: str, runtime: str) -> float:
        """Returns the largest difference of a file's outputs from those of torch, relative to the largest output.

        See `compare` for the arguments and errors.
        """
        images, expected = draw_images(self.shape, self.seed), torch.tensor(self.output)
        # A batch size above that of the capture shows that the batch axis is dynamic.
        batches = ([0], [0, 1], [1, 0, 1]) if self.is_dynamic else ([0], [1])
        worst = 0.0
        for batch in batches:
            with refusals(f"{runtime} must be able to run {name}", "Export it again."):
                output = run(images[batch])
            if output.shape != expected[batch].shape:
                raise ConversionError(
                    f"the output of {name} must have the shape {tuple(expected[batch].shape)}, but got "
                    f"{tuple(output.shape)}. Export it again."
                )
            share = output_share(output, expected[batch])
            if not share <= self.allowed_share:  # this form rejects NaN
                raise ConversionError(
                    f"the outputs of {name} must differ from torch by at most {self.allowed_share:.2g} of the largest "
                    f"output, but differ by {share:.2g} for {len(batch)} images in {runtime}. Use another version of "
                    "it, or torch itself."
                )
            worst = max(worst, share)
        return worst

    def for_quantized(self, run: Callable[[Images], Tensor], name: str, runtime: str) -> FileCheck:
        """Returns the check of the quantized network, whose tolerance follows from its difference on this machine.

        The network in float must pass this check before. See `compare` for the arguments and errors.
        """
        anything = dataclasses.replace(self, allowed_share=BOUNDS["int8"][1])
        share = anything.read_share(run, name, runtime)
        return dataclasses.replace(self, allowed_share=max(_MARGIN * share, _MIN_SHARE))


def capture_for_file(
    model: nn.Module, shape: tuple[int, int, int], runtime: str | None = None, *, precision: str = "fp32"
) -> tuple[ExportedProgram, FileCheck]:
    """Returns the graph of a network, for any batch size if torch can capture that, and the check of its file.

    Args:
        model: Network to export; not changed.
        shape: Shape of an image, (C, H, W).
        runtime: Runtime whose form of a LITv2 is captured (`runtime_form`). None captures the training form.
        precision: fp32, or int8 for the form that is quantized. The graph and the check are in float32.

    Raises:
        UsageError: The version of torch is too old.
        ConversionError: torch cannot capture the network.
    """
    example = torch.from_numpy(draw_images(shape))
    expected = expected_output(model, example)
    form = copy_of(model) if runtime is None else build_form(copy_of(model), runtime, precision, dynamic_batch=True)
    try:
        program, is_dynamic = capture(form, example, dynamic_batch=True), True
    except ConversionError:  # torch can capture some operators only for a fixed batch size
        program, is_dynamic = capture(form, example[:1]), False
    check = FileCheck(
        shape=shape,
        is_dynamic=is_dynamic,
        output=tuple(map(tuple, expected.tolist())),
        allowed_share=allowed_share(model, example, expected),
    )
    return program, check


def draw_images(shape: tuple[int, ...], seed: int = _SEED) -> Images:
    """Returns the two images of the check.

    Uses the legacy random generator, because it gives the same values in every version of NumPy.
    """
    return np.random.RandomState(seed).standard_normal((2, *shape)).astype(np.float32)
