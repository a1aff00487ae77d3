"""LITv2, a vision transformer without attention in its early stages and with HiLo attention in its late stages.

Paper: "Fast Vision Transformers with HiLo Attention" (arXiv 2205.13213).
Behaviour: matches github ziplab/LITv2 (Apache-2.0). Feature maps match the dense-prediction backbone, which accepts any
image size; the head matches the classifier. The model interface follows timm's `swin_transformer.py` (1.0.31).
Differences: Each stage has its own width, attention and MLP ratio. Tokens are merged at the start of a stage, so that
stage outputs can serve as features. Dropout (`drop_rate`) applies only before the classifier.

Shape suffixes: B batch, C channels, H W feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.classifier import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from hilo_nas.arch.config import N_STAGES, PRESETS, ArchConfig
from hilo_nas.errors import UsageError
from hilo_nas.models.blocks import NORM_EPS, PatchEmbed, Stage, StagedNetwork, jit_ignore
from hilo_nas.models.weights import checkpoint_filter_fn

__all__ = ["LITv2", "build_model", "checkpoint_filter_fn"]

_FORM_VERSION = "litv2/2"
"""Version of this implementation. Increase it with every change that can affect speed."""


class LITv2(StagedNetwork):
    """LITv2 with any architecture, for images of any size that is at least the network's stride.

    Args:
        in_chans: Channels of the image.
        num_classes: Number of classes; 0 for no classifier.
        global_pool: timm pool type before the classifier; "" for no pooling.
        drop_rate: Dropout rate before the classifier.
        drop_path_rate: Stochastic depth rate of the last block. The rate rises linearly from 0 over all blocks.
        img_size: Side of the images, or height and width. Only checked against the stride, because the network accepts
            any size. Exists because timm passes it to networks with a fixed size.
        **fields: Fields of `hilo_nas.arch.config.ArchConfig`, as tuples or lists.

    Raises:
        ArchError: A field is invalid. The message lists all invalid fields.
        UsageError: `img_size` is smaller than the stride.
    """

    def __init__(
        self,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        img_size: int | Sequence[int] | None = None,
        **fields: Any,
    ) -> None:
        super().__init__()
        self.arch = arch = ArchConfig.from_dict(fields)
        _check_img_size(img_size, arch)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.global_pool = global_pool
        self.output_fmt = "NCHW"
        self.num_features = arch.embed_dims[-1]
        self.choices: tuple[str, ...] = ()
        """Optimizations that `prepare_for_inference` applied, such as "batchnorms=folded"; empty before that."""
        self.feature_info = [
            {"num_chs": arch.embed_dims[i], "reduction": arch.patch_size * 2**i, "module": f"layers.{i}"}
            for i in range(N_STAGES)
        ]
        self.patch_embed: nn.Module = PatchEmbed(arch.patch_size, in_chans, arch.embed_dims[0], arch.stride)
        n_blocks = sum(arch.depths)
        rates = iter([drop_path_rate * block / (n_blocks - 1) for block in range(n_blocks)])
        self.layers = nn.Sequential(*(Stage(arch, i, list(islice(rates, arch.depths[i]))) for i in range(N_STAGES)))
        self.norm: nn.Module = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()
        self.apply(_init_linear)

    @property
    def form(self) -> str:
        """Name and version of the implementation. Measurements of different forms are not comparable."""
        return " ".join((_FORM_VERSION, *(self.choices or ("merging=gather",))))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Returns logits, shape (B, num_classes), for images of any size that is at least the stride.

        Raises:
            UsageError: The image is smaller than the stride.
        """
        return self.forward_head(self.forward_features(x_BCHW))

    def forward_features(self, x_BCHW: Tensor) -> Tensor:
        """Returns the normalised feature map of the last stage, shape (B, num_features, H, W)."""
        return self._normed(self.layers(self.patch_embed(x_BCHW)))

    def forward_head(self, x_BCHW: Tensor, pre_logits: bool = False) -> Tensor:
        """Returns logits, or the pooled features if `pre_logits`."""
        y: Tensor = self.head(x_BCHW, pre_logits=pre_logits)
        return y

    def forward_intermediates(
        self,
        x_BCHW: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Returns the last computed feature map, and a list of the feature maps of the selected stages.

        Args:
            x_BCHW: Images.
            indices: Indices of the stages, from 0. An integer n selects the last n stages; None selects all.
            norm: True to apply the final norm to the features of the last stage. It does not fit other stages.
            stop_early: True to stop after the last selected stage.
            output_fmt: Must be "NCHW".
            intermediates_only: True to return only the list.

        Raises:
            UsageError: `output_fmt` is not "NCHW", or the image is smaller than the stride.
        """
        if output_fmt != "NCHW":
            raise UsageError(f"output_fmt must be 'NCHW', but got {output_fmt!r}")
        take_indices, max_index = feature_take_indices(len(self.layers), indices)
        stages = self.layers[: max_index + 1] if stop_early else self.layers
        last = len(self.layers) - 1
        intermediates = []
        x_BCHW = self.patch_embed(x_BCHW)
        for i, stage in enumerate(stages):
            x_BCHW = stage(x_BCHW)
            if i in take_indices:
                intermediates.append(self._normed(x_BCHW) if norm and i == last else x_BCHW)
        if intermediates_only:
            return intermediates
        return self._normed(x_BCHW) if len(stages) > last else x_BCHW, intermediates

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes all stages after the last selected one; returns the indices of the selected stages."""
        take_indices, max_index = feature_take_indices(len(self.layers), indices)
        is_cut = max_index < len(self.layers) - 1
        if prune_norm or is_cut:
            self.norm = nn.Identity()
        if is_cut:
            self.layers = self.layers[: max_index + 1]
            self.num_features = self.head.in_features = self.arch.embed_dims[max_index]
        if prune_head or is_cut:
            self.reset_classifier(0, "")
        return list(take_indices)

    @jit_ignore
    def get_classifier(self) -> nn.Module:
        """Returns the linear layer of the classifier."""
        classifier: nn.Module = self.head.fc
        return classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the classifier. 0 classes remove it; `global_pool=None` keeps the pooling."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = global_pool
        self.head.reset(num_classes, pool_type=global_pool)
        self.head_hidden_size = self.num_features * self.head.global_pool.feat_mult()

    def _normed(self, x_BCHW: Tensor) -> Tensor:
        y_BHWC: Tensor = self.norm(x_BCHW.permute(0, 2, 3, 1))
        return y_BHWC.permute(0, 3, 1, 2)


def _check_img_size(img_size: int | Sequence[int] | None, arch: ArchConfig) -> None:
    sides = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size or ())
    if img_size is not None and (len(sides) != 2 or min(sides) < arch.stride):
        raise UsageError(
            f"img_size must be one side or a height and a width of at least {arch.stride} pixels with "
            f"patch_size {arch.patch_size}, but got {img_size!r}. Use larger images or a smaller patch_size."
        )


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def build_model(arch: ArchConfig, num_classes: int = 1000, in_chans: int = 3, drop_path_rate: float = 0.0) -> LITv2:
    """Returns the network of an architecture with random initial weights."""
    return LITv2(**arch.to_dict(), num_classes=num_classes, in_chans=in_chans, drop_path_rate=drop_path_rate)


def _cfg() -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": (7, 7),
        "min_input_size": (3, 32, 32),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "classifier": "head.fc",
        "paper_ids": "arXiv:2205.13213",
    }


default_cfgs = generate_default_cfgs({name: _cfg() for name in ("litv2", *PRESETS)})


def _create(variant: str, pretrained: bool, kwargs: dict[str, Any]) -> nn.Module:
    model: nn.Module = build_model_with_cfg(
        LITv2,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True, "out_indices": tuple(range(N_STAGES))},
        **kwargs,
    )
    return model


@register_model
def litv2(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Returns a LITv2 with any architecture. Pass the fields of `ArchConfig` as keyword arguments (`model_kwargs`)."""
    return _create("litv2", pretrained, kwargs)


@register_model
def litv2_small(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Returns LITv2-S of the paper."""
    return _create("litv2_small", pretrained, PRESETS["litv2_small"].to_dict() | kwargs)


@register_model
def litv2_medium(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Returns LITv2-M of the paper."""
    return _create("litv2_medium", pretrained, PRESETS["litv2_medium"].to_dict() | kwargs)


@register_model
def litv2_base(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """Returns LITv2-B of the paper."""
    return _create("litv2_base", pretrained, PRESETS["litv2_base"].to_dict() | kwargs)
