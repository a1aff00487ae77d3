"""An attention of another package: every token gets the mean of the map, projected for each head."""

from hilo_nas.arch.attentions import AttentionKind

TOY = AttentionKind(
    name="toy",
    layer="toy_attention:build_layer",
    uses=("num_heads",),
    params=lambda C, num_heads, **_: (C // num_heads + 1) * (C // num_heads) * num_heads,
    macs=lambda C, height, width, num_heads, **_: height * width * C * (C // num_heads),
)


def build_layer(dim, num_heads):
    import torch  # `hilo-nas space show` reads the declaration alone

    class ToyAttention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.proj = torch.nn.Conv2d(dim, dim, kernel_size=1, groups=num_heads)

        def forward(self, x_BHWC):
            y_BCHW = self.proj((x_BHWC + x_BHWC.mean((1, 2), keepdim=True)).permute(0, 3, 1, 2))
            return y_BCHW.permute(0, 2, 3, 1)

    return ToyAttention()
