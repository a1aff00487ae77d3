"""Attention of clusters of queries: tokens that ask alike get one answer.

Paper: "Fast Transformers with Clustered Attention" (arXiv 2007.04825), section 3.2: queries are hashed by the signs of
random projections, hashes are grouped by K-means in Hamming space, and the mean query of each group attends to all
keys; its members share the result. The improved variant (section 3.3, exact scores for the keys with most weight) is
left out.
Own changes: signs are +1 and -1, so that Hamming distances are products and the whole clustering runs batched on any
device; the first centres are the hashes of tokens at even distances; the projections go through the origin and are
drawn once, with the weights.

Shape suffixes: B batch, H W map, N tokens, C channels, A heads, D head dimension, K clusters, R bits of a hash.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hilo_nas.arch.attentions import HASH_BITS, LLOYD_ITERATIONS, N_CLUSTERS
from hilo_nas.models.attentions.heads import HeadedLayer, join_heads, split_heads

__all__ = ["ClusteredAttention"]


class ClusteredAttention(HeadedLayer):
    """Clustered attention: every token of a cluster gets what the cluster's mean query attends to.

    Gradients flow through the means; which token belongs to which cluster is a choice without a gradient. Hashes have
    64 bits and K-means runs for 10 rounds, whatever the map. The random projections are a buffer that is saved with
    the weights, for the result depends on them.

    Args:
        dim: Channels of the map.
        num_heads: Attention heads; must divide `dim`. Each clusters its own queries.
        qkv_bias: Whether the query, key and value projections have biases; the output projection always does.
        n_clusters: Clusters of a head; a map with fewer tokens has one for each token.

    Raises:
        ArchError: `num_heads` does not divide `dim`.
    """

    planes: Tensor
    """Normals of the hashing planes, shape (R, D)."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True, *, n_clusters: int = N_CLUSTERS) -> None:
        super().__init__(dim, num_heads, n_clusters=n_clusters)
        self.n_clusters = n_clusters
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.register_buffer("planes", torch.randn(HASH_BITS, self.head_dim))

    def forward(self, x_BHWC: Tensor) -> Tensor:
        """Returns the attended map, shape (B, H, W, C) as given."""
        q_BAND, k_BAND, v_BAND = split_heads(self.qkv(x_BHWC.flatten(1, 2)), 3, self.num_heads)
        cluster_BAN = self._cluster(q_BAND)
        member_BANK = _members(cluster_BAN, min(self.n_clusters, q_BAND.shape[2]), q_BAND.dtype)
        share_BANK = member_BANK / member_BANK.sum(2, keepdim=True).clamp(min=1)
        centre_BAKD = share_BANK.to(q_BAND.dtype).transpose(2, 3) @ q_BAND
        y_BAKD = F.scaled_dot_product_attention(centre_BAKD, k_BAND, v_BAND)
        y_BAND = y_BAKD.gather(2, cluster_BAN[..., None].expand(-1, -1, -1, self.head_dim))
        y_BHWC: Tensor = self.proj(join_heads(y_BAND)).reshape(x_BHWC.shape)
        return y_BHWC

    @torch.no_grad()
    def _cluster(self, q_BAND: Tensor) -> Tensor:
        """Returns the cluster of each query, shape (B, A, N)."""
        N = q_BAND.shape[2]
        K = min(self.n_clusters, N)
        bits_BANR = _signs(q_BAND @ self.planes.T.to(q_BAND.dtype))
        first_K = torch.arange(K, device=q_BAND.device) * N // K
        centre_BAKR = bits_BANR[:, :, first_K]
        cluster_BAN = _nearest(bits_BANR, centre_BAKR)
        for _ in range(LLOYD_ITERATIONS - 1):
            votes_BAKR = _members(cluster_BAN, K, bits_BANR.dtype).transpose(2, 3) @ bits_BANR
            # A centre takes the bits of its cluster's majority; where votes are even, or there are none, it keeps its.
            centre_BAKR = torch.where(votes_BAKR == 0, centre_BAKR, _signs(votes_BAKR))
            cluster_BAN = _nearest(bits_BANR, centre_BAKR)
        return cluster_BAN


def _nearest(bits_BANR: Tensor, centre_BAKR: Tensor) -> Tensor:
    """Returns the centre with most bits in common, of several the first."""
    return (
        (bits_BANR @ centre_BAKR.transpose(2, 3)).max(-1).indices
    )  # seen twice as fast as argmax on a CPU, torch 2.15


def _signs(x: Tensor) -> Tensor:
    """Returns +1 and -1 with the signs of the numbers."""
    return x.new_ones(()).copysign(x)


def _members(cluster_BAN: Tensor, n_clusters: int, dtype: torch.dtype) -> Tensor:
    """Returns 1 where a token belongs to a cluster and 0 elsewhere, shape (B, A, N, K)."""
    member_BANK = torch.zeros(*cluster_BAN.shape, n_clusters, dtype=dtype, device=cluster_BAN.device)
    return member_BANK.scatter_(-1, cluster_BAN[..., None], 1)
