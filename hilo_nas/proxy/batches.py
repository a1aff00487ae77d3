"""Training batches made on the device: the images are moved once, cropped, mirrored and normalised there.

Shape suffixes: B batch, N images of the set, S side of an image, C channels, P pixels, K chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hilo_nas.data.cache import load_arrays
from hilo_nas.data.held_out import number_labels, share_of, split_set
from hilo_nas.data.prepared_images import CachedData
from hilo_nas.measurement import ProxyPlan

__all__ = ["Augmenter", "ImageSet", "Sampler", "Split", "image_statistics", "open_split"]

ON_DEVICE_MIB = 2048
"""Sets up to this size are moved to the device whole; of larger ones each batch is."""


class ImageSet:
    """The decoded images of one set of the cache.

    Args:
        path: The set's folder.
        device: Where batches are wanted.
        class_names: The classes in the order of the network's outputs; labels are places in it, -1 for other classes.
        max_mib: Size up to which all images are moved there at once.

    Raises:
        StorageError: The set is gone or damaged.
    """

    def __init__(
        self, path: Path, device: torch.device, class_names: Sequence[str], max_mib: float = ON_DEVICE_MIB
    ) -> None:
        self.path, self.class_names = path, class_names
        entry, images, labels, self.digests = load_arrays(path)
        self.labels = number_labels(labels, entry.class_names, class_names)
        self.device = device
        self._images_NSSC = torch.from_numpy(images)
        self._labels_N = torch.from_numpy(self.labels)
        if images.nbytes <= max_mib * 2**20:
            self._images_NSSC = self._images_NSSC.to(device)
            self._labels_N = self._labels_N.to(device)

    def split(self, fraction: float, group_by: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the places of training and held-out images; see `split_held_out`.

        Args:
            fraction: Share of each class to hold out, in (0, 1).
            group_by: `ProxyPlan.group_by`.

        Raises:
            DataError: A class cannot have whole groups on both sides.
        """
        return split_set(
            self.path, self.labels, self.digests, fraction, group_by=group_by, class_names=self.class_names
        )

    def take(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images (B, S, S, C; uint8) and labels (B; int64) on the device, for places (B; int64) on the CPU."""
        places = _moved(places, self._images_NSSC.device)
        return self._fetched(self._images_NSSC[places]), self._fetched(self._labels_N[places])

    def _fetched(self, batch: Tensor) -> Tensor:
        if self.device.type == "cuda" and batch.device.type == "cpu":
            batch = batch.pin_memory()
        return _moved(batch, self.device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor on the device; the CPU goes on meanwhile, where that is CUDA.

    On mps a copy under way may read what was freed (github pytorch/pytorch issue 189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


class Split(NamedTuple):
    """The images of a proxy, opened, and which of them may be learned from."""

    images: ImageSet
    places: np.ndarray
    """Training images, (N; int64)."""
    val_images: ImageSet
    """The same set where images are held out of it."""
    val_places: np.ndarray
    """Held-out images, (N; int64)."""


def open_split(data: CachedData, plan: ProxyPlan, device: torch.device) -> Split:
    """Opens prepared images; without validation images of their own, the plan says how many are held out.

    Raises:
        StorageError: The image cache is gone or damaged.
    """
    images = ImageSet(Path(data.path), device, data.class_names)
    if data.val_path is None:
        places, val_places = images.split(share_of(plan, data.n_images), plan.group_by)
        return Split(images, places, images, val_places)
    val_images = ImageSet(Path(data.val_path), device, data.class_names)
    return Split(images, np.flatnonzero(images.labels >= 0), val_images, np.flatnonzero(val_images.labels >= 0))


def image_statistics(
    images: ImageSet, places: np.ndarray, at_most: int = 4096, at_once: int = 256
) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of each channel, (C; float32), in units of 0 to 1, on the device.

    Args:
        images: The set.
        places: The images that count, (N); an even choice of them is looked at.
        at_most: How many to look at.
        at_once: How many of these are on the device as floats at one time.
    """
    chosen = torch.from_numpy(places[:: -(-len(places) // at_most)])
    # Each chunk is summed up on the device in float32; the chunks are joined in double precision on the CPU, for some
    # devices have none.
    counts, means, variances = [], [], []
    for chunk in torch.split(chosen, at_once):
        pixels_PC = images.take(chunk)[0].flatten(0, 2) / 255
        variance_C, mean_C = torch.var_mean(pixels_PC, dim=0, correction=0)
        counts.append(len(pixels_PC))
        means.append(mean_C.cpu().double())
        variances.append(variance_C.cpu().double())
    count_K1 = torch.tensor(counts, dtype=torch.float64)[:, None]
    mean_KC, variance_KC = torch.stack(means), torch.stack(variances)
    mean_C = (count_K1 * mean_KC).sum(0) / count_K1.sum()
    squares_C = (count_K1 * (variance_KC + (mean_KC - mean_C) ** 2)).sum(0)
    # A channel without any contrast is left at zero instead of being divided by it.
    std_C = (squares_C / (count_K1.sum() - 1)).sqrt().clamp(min=1e-3)
    return mean_C.float().to(images.device), std_C.float().to(images.device)


class Sampler:
    """Draws places without end: every image once, in a new order, before any comes again.

    Args:
        places: The images to draw from, (N; int64).
        generator: Draws the orders, on the CPU, so that all devices see the same.
    """

    def __init__(self, places: np.ndarray, generator: torch.Generator) -> None:
        self._places_N = torch.from_numpy(places)
        self._generator = generator
        self.left = self._places_N[:0]
        """The rest of the order under way, (N; int64)."""

    def draw(self, count: int) -> Tensor:
        """Returns the next `count` places; they may reach over the end of an epoch."""
        while len(self.left) < count:
            order_N = torch.randperm(len(self._places_N), generator=self._generator)
            self.left = torch.cat([self.left, self._places_N[order_N]])
        drawn, self.left = self.left[:count], self.left[count:]
        return drawn


class Augmenter:
    """Turns stored images into the network's input.

    Args:
        mean_C: Mean of each channel, in units of 0 to 1.
        std_C: Standard deviation of each channel.
        hflip: Whether training images are mirrored with probability one half.
        generator: Draws shifts and mirrorings, on the CPU.
    """

    def __init__(self, mean_C: Tensor, std_C: Tensor, hflip: bool, generator: torch.Generator) -> None:
        self._mean_C11 = mean_C[:, None, None] * 255
        self._std_C11 = std_C[:, None, None] * 255
        self._hflip = hflip
        self._generator = generator

    def train(self, images_BSSC: Tensor) -> Tensor:
        """Returns shifted and mirrored input, (B, C, S, S; float32).

        The shift is at most an eighth of the side along each axis (a random crop of the padded image); the image's
        edge is repeated where nothing lies. One gather does it all, without a loop over images.
        """
        B, S, device = len(images_BSSC), images_BSSC.shape[1], images_BSSC.device
        pad = S // 8
        shift_2B1 = torch.randint(-pad, pad + 1, (2, B, 1), generator=self._generator)
        side_S = torch.arange(S)
        rows_BS, columns_BS = (side_S + shift_2B1).clamp(0, S - 1)
        if self._hflip:
            mirrored_B1 = torch.rand((B, 1), generator=self._generator) < 0.5
            columns_BS = torch.where(mirrored_B1, columns_BS.flip(1), columns_BS)
        rows_BS, columns_BS = _moved(rows_BS, device), _moved(columns_BS, device)
        each_B = torch.arange(B, device=device)
        return self.plain(images_BSSC[each_B[:, None, None], rows_BS[:, :, None], columns_BS[:, None, :]])

    def plain(self, images_BSSC: Tensor) -> Tensor:
        """Returns the input as it is scored, (B, C, S, S; float32)."""
        x_BCSS = images_BSSC.permute(0, 3, 1, 2).float()
        return x_BCSS.sub_(self._mean_C11).div_(self._std_C11)
