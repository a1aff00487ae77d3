"""Scores of a trained network on held-out images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.proxy.batches import ImageSet
from hilo_nas.proxy.micro_batches import MicroBatch

__all__ = ["HeldOutResult", "chance_of", "drop_error", "predict", "score_balanced", "score_likelihood", "score_top1"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOutResult:
    """Predictions of a network for the held-out images."""

    labels: np.ndarray
    """True classes, (N; int64)."""
    predictions: np.ndarray
    """Classes with the highest logit, (N; int64)."""
    losses: np.ndarray
    """Cross-entropies without label smoothing, (N; float64). They are not finite after a diverged training."""
    float_layers: tuple[str, ...] = ()
    """Layers that stayed in float in a network that was quantized to INT8."""

    @property
    def loss(self) -> float:
        """Mean cross-entropy."""
        return float(self.losses.mean())

    @property
    def loss_se(self) -> float:
        """Standard error of the loss, from the spread between images."""
        return float(self.losses.std()) / math.sqrt(len(self.losses))


def predict(
    model: nn.Module,
    infer: Callable[[Tensor], Tensor],
    images: ImageSet,
    places: np.ndarray,
    micro_batch: MicroBatch,
) -> HeldOutResult:
    """Returns the network's predictions in eval mode. The previous mode is restored.

    Args:
        model: The network.
        infer: Function that returns the network's logits for stored images.
        images: The image set.
        places: Indices of the images to score, (N; int64).
        micro_batch: Number of images per forward pass.
    """

    def infer_all(size: int) -> tuple[Tensor, Tensor, Tensor]:
        parts = []
        for chunk in torch.split(torch.from_numpy(places), size):
            stored, labels = images.take(chunk)
            logits = infer(stored).float()
            parts.append((labels, logits.argmax(1), F.cross_entropy(logits, labels, reduction="none")))
        labels, predictions, losses = (torch.cat(column) for column in zip(*parts, strict=True))
        return labels, predictions, losses

    mode = model.training
    model.eval()
    try:
        with torch.no_grad():
            labels, predictions, losses = micro_batch.run(infer_all, what="scoring", effect="The score is the same.")
    finally:
        model.train(mode)
    # Converted on the CPU because some devices do not support double precision.
    return HeldOutResult(
        labels=labels.cpu().numpy(),
        predictions=predictions.cpu().numpy(),
        losses=losses.cpu().double().numpy(),
    )


def chance_of(metric: str, labels: np.ndarray) -> float:
    """Returns the score of guessing on images with these labels, as stored in `ProxyScore.chance`.

    Args:
        metric: `top1`, `balanced` or `likelihood`.
        labels: True classes, (N; int64).
    """
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    if metric == "top1":
        return float(shares.max())
    return 1 / len(shares) if metric == "balanced" else float(np.exp((shares * np.log(shares)).sum()))


def score_top1(result: HeldOutResult) -> tuple[float, float]:
    """Returns the share of correctly classified images (top-1) and its binomial standard error."""
    share = float(np.mean(result.labels == result.predictions))
    return share, math.sqrt(share * (1 - share) / len(result.labels))


def score_balanced(result: HeldOutResult) -> tuple[float, float]:
    """Returns the mean recall over classes (balanced top-1) and its standard error.

    The error is from the binomial variance of each class. Classes without a held-out image are ignored.
    """
    counts = np.bincount(result.labels)
    hits = np.bincount(result.labels[result.labels == result.predictions], minlength=len(counts))
    present = counts > 0
    recalls = hits[present] / counts[present]
    variances = recalls * (1 - recalls) / counts[present]
    return float(recalls.mean()), math.sqrt(variances.sum()) / len(recalls)


def score_likelihood(result: HeldOutResult) -> tuple[float, float]:
    """Returns the geometric mean over images of the probability of the true class, and its standard error.

    The value is exp(-loss). Uniform guessing scores 1 / number of classes. The error is propagated from that of the
    loss to first order.
    """
    likelihood = math.exp(-result.loss)
    return likelihood, likelihood * result.loss_se


def drop_error(metric: str, before: HeldOutResult, after: HeldOutResult) -> float:
    """Returns the standard error of the difference of two values on the same images.

    Each image contributes its difference, so images with the same result in both do not add to the error.

    Args:
        metric: `top1`, `balanced` or `likelihood`.
        before: Result of a network.
        after: Result of the changed network.
    """
    differences = _contributions(metric, before) - _contributions(metric, after)
    return float(differences.std()) / math.sqrt(len(differences))


def _contributions(metric: str, result: HeldOutResult) -> np.ndarray:
    """Returns a number per image, (N; float64). The value of the metric is their mean, to first order."""
    found: np.ndarray
    if metric == "likelihood":
        found = -math.exp(-result.loss) * result.losses
        return found
    found = np.equal(result.labels, result.predictions).astype(float)
    if metric == "balanced":
        counts = np.bincount(result.labels)
        found = found * len(found) / (np.count_nonzero(counts) * counts[result.labels])
    return found
