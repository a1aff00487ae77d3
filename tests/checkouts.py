"""A checkout that stands in for the official code: the same modules, imports, constructor and names of weights.

What it computes is this package's own network, with the deformable convolution that it is handed.
"""

import textwrap

NETWORK = """
    from hilo_nas.arch.config import ArchConfig
    from hilo_nas.models import build_model, checkpoint_filter_fn, official_state_dict
    from mm_modules.DCN.modules.deform_conv2d import DeformConv2dPack
    from timm.models.layers import to_2tuple
    from torch import nn


    class LITv2(nn.Module):
        def __init__(self, *, img_size, patch_size, in_chans, num_classes, embed_dim, depths, num_heads, mlp_ratio,
                     drop_path_rate, has_msa, alpha, local_ws):
            super().__init__()
            assert drop_path_rate == 0
            self.img_size = to_2tuple(img_size)
            widths = [embed_dim * 2**i for i in range(4)]
            arch = ArchConfig(
                patch_size=patch_size, embed_dims=widths, depths=depths, num_heads=num_heads, alpha=[alpha] * 4,
                attention=["hilo" if has else "none" for has in has_msa], window_size=local_ws,
                mlp_ratios=[mlp_ratio] * 4,
            )
            self.network = build_model(arch, num_classes=num_classes, in_chans=in_chans)
            for stage, width in zip(self.network.layers[1:], widths):
                stage.downsample.dconv = DeformConv2dPack(width, width * 2, kernel_size=2, stride=2, padding=0)

        def state_dict(self, *args, **kwargs):
            return official_state_dict(self.network)

        def load_state_dict(self, weights):
            return self.network.load_state_dict(checkpoint_filter_fn(weights, self.network))

        def forward(self, x):
            assert x.shape[-2:] == self.img_size
            return self.network(x) OFF
"""


def write_checkout(folder, *, head="", off=""):
    """Writes a checkout whose network's file begins with `head`; `off` is added to its outputs."""
    models = folder / "classification" / "models"
    models.mkdir(parents=True)
    (models / "__init__.py").write_text("from .build import build\n")
    (models / "build.py").write_text("from .litv2 import LITv2\n\nbuild = LITv2\n")
    (models / "litv2.py").write_text(f"{head}\n{textwrap.dedent(NETWORK).replace(' OFF', off)}")
    return folder
