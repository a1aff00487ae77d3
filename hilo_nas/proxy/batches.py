"""Training batches, prepared on the device: images are copied there once, then cropped, flipped and normalized.

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
from hilo_nas.data.set_uses import SetUse
from hilo_nas.measurement import ProxyPlan

__all__ = ["Augmenter", "ImageSet", "Sampler", "Split", "image_statistics", "open_split"]

ON_DEVICE_MIB = 2048
"""Maximum size of an image set that is copied to the device as a whole. Larger sets are copied batch by batch."""


class ImageSet:
    """Decoded images of one image set in the cache.

    Args:
        path: Folder of the image set.
        device: Device of the batches.
        class_names: Classes in the order of the network's outputs. A label is an index into this list, or -1 for any
            other class.
        max_mib: Maximum size at which all images are copied to the device at once.

    Raises:
        StorageError: The image set is missing or damaged.
    """

    def __init__(
        self, path: Path, device: torch.device, class_names: Sequence[str], max_mib: float = ON_DEVICE_MIB
    ) -> None:
        self.path, self.class_names = path, class_names
        self._use = SetUse(path)  # as long as the images are mapped
        entry, images, labels, self.digests = load_arrays(path)
        self.labels = number_labels(labels, entry.class_names, class_names)
        self.device = device
        self._images_NSSC = torch.from_numpy(images)
        self._labels_N = torch.from_numpy(self.labels)
        if images.nbytes <= max_mib * 2**20:
            self._images_NSSC = self._images_NSSC.to(device)
            self._labels_N = self._labels_N.to(device)

    def split(self, fraction: float, group_by: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Returns the indices of training images and of held-out images, as `split_set` chooses them.

        Args:
            fraction: Share of each class to hold out, in (0, 1).
            group_by: Grouping of images, as in `ProxyPlan.group_by`. A group is never split.

        Raises:
            DataError: A class does not have enough groups for both parts.
        """
        return split_set(
            self.path, self.labels, self.digests, fraction, group_by=group_by, class_names=self.class_names
        )

    def take(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Returns images (B, S, S, C; uint8) and labels (B; int64) on the device.

        Args:
            places: Indices of the images, (B; int64), on the CPU.
        """
        places = _moved(places, self._images_NSSC.device)
        return self._fetched(self._images_NSSC[places]), self._fetched(self._labels_N[places])

    def _fetched(self, batch: Tensor) -> Tensor:
        if self.device.type == "cuda" and batch.device.type == "cpu":
            batch = batch.pin_memory()
        return _moved(batch, self.device)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Returns a tensor on the device. On CUDA, the copy is asynchronous.

    On mps, an asynchronous copy may read memory that was freed already (github pytorch/pytorch issue 189690).
    """
    return tensor.to(device, non_blocking=device.type == "cuda")


class Split(NamedTuple):
    """Training and held-out images of a proxy."""

    images: ImageSet
    """Image set of the training images."""
    places: np.ndarray
    """Indices of the training images, (N; int64)."""
    val_images: ImageSet
    """Image set of the held-out images. It is the same as `images` without separate validation images."""
    val_places: np.ndarray
    """Indices of the held-out images, (N; int64)."""


def open_split(data: CachedData, plan: ProxyPlan, device: torch.device) -> Split:
    """Returns the split of prepared images. Without separate validation images, the plan sets the share to hold out.

    Raises:
        StorageError: The image cache is missing or damaged.
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
    """Returns mean and standard deviation of each channel, (C; float32), on a scale of 0 to 1, on the device.

    Args:
        images: The image set.
        places: Indices of the images to use, (N). An evenly spaced subset of them is read.
        at_most: Maximum number of images to read.
        at_once: Number of images per chunk that is converted to float32 on the device.
    """
    chosen = torch.from_numpy(places[:: -(-len(places) // at_most)])
    # Each chunk is reduced on the device in float32. The chunks are combined in double precision on the CPU because
    # some devices do not support it.
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
    # The lower bound avoids a division by zero for a channel without contrast.
    std_C = (squares_C / (count_K1.sum() - 1)).sqrt().clamp(min=1e-3)
    return mean_C.float().to(images.device), std_C.float().to(images.device)


class Sampler:
    """Endless random sampler of indices. Each epoch contains every image once, in a new order.

    Args:
        places: Indices of the images, (N; int64).
        generator: Random generator on the CPU, so that all devices get the same order.
    """

    def __init__(self, places: np.ndarray, generator: torch.Generator) -> None:
        self._places_N = torch.from_numpy(places)
        self._generator = generator
        self.left = self._places_N[:0]
        """Remaining indices of the current epoch, (N; int64)."""

    def draw(self, count: int) -> Tensor:
        """Returns the next `count` indices, which may span two epochs."""
        while len(self.left) < count:
            order_N = torch.randperm(len(self._places_N), generator=self._generator)
            self.left = torch.cat([self.left, self._places_N[order_N]])
        drawn, self.left = self.left[:count], self.left[count:]
        return drawn


class Augmenter:
    """Conversion of stored images to network input, with augmentation for training.

    Args:
        mean_C: Mean of each channel, on a scale of 0 to 1.
        std_C: Standard deviation of each channel, on the same scale.
        hflip: True to flip training images horizontally with a probability of one half.
        generator: Random generator for shifts and flips, on the CPU.
    """

    def __init__(self, mean_C: Tensor, std_C: Tensor, hflip: bool, generator: torch.Generator) -> None:
        self._mean_C11 = mean_C[:, None, None] * 255
        self._std_C11 = std_C[:, None, None] * 255
        self._hflip = hflip
        self._generator = generator

    def train(self, images_BSSC: Tensor) -> Tensor:
        """Returns augmented input, (B, C, S, S; float32).

        Images are shifted by at most an eighth of the side along each axis, which equals a random crop of the padded
        image. The padding repeats the edge pixels. One gather handles all images, without a loop.
        """
        B, S, device = len(images_BSSC), images_BSSC.shape[1], images_BSSC.device
        pad = S // 8
        shift_2B1 = torch.randint(-pad, pad + 1, (2, B, 1), generator=self._generator)
        side_S = torch.arange(S)
        rows_BS, columns_BS = (side_S + shift_2B1).clamp(0, S - 1)
        if self._hflip:
            is_flipped_B1 = torch.rand((B, 1), generator=self._generator) < 0.5
            columns_BS = torch.where(is_flipped_B1, columns_BS.flip(1), columns_BS)
        rows_BS, columns_BS = _moved(rows_BS, device), _moved(columns_BS, device)
        each_B = torch.arange(B, device=device)
        return self.plain(images_BSSC[each_B[:, None, None], rows_BS[:, :, None], columns_BS[:, None, :]])

    def plain(self, images_BSSC: Tensor) -> Tensor:
        """Returns normalized input without augmentation, (B, C, S, S; float32)."""
        x_BCSS = images_BSSC.permute(0, 3, 1, 2).float()
        return x_BCSS.sub_(self._mean_C11).div_(self._std_C11)
