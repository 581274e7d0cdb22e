"""Building blocks of the network, one class for each box in the paper's figures.

Zhou, Canu and Ruan (2020), arXiv 2004.06673, Figs. 1-4. All feature maps have the shape (N, C, H, W).
"""

import torch
from torch import Tensor, nn

NEGATIVE_SLOPE = 0.01  # leaky ReLU as in Isensee et al. (2017), on whom the paper builds; the paper names no activation


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation that accepts 1 x 1 maps, the deepest level of a slice of 16 pixels or fewer."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), each map scaled to mean 0 and variance 1, then by its weight and bias."""
        # nn.InstanceNorm2d raises an error for a single pixel; torch.instance_norm does not.
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


class Conv(nn.Sequential):
    """3 x 3 convolution, instance normalisation, leaky ReLU; stride 2 takes the place of pooling."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            InstanceNorm(channels_out),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
        )


class ResDil(nn.Module):
    """`res_dil` (Fig. 3): a residual block of two 3 x 3 convolutions with dilation 2 and 4.

        x ── conv d=2 ── norm ── act ── conv d=4 ── norm ── (+) ── act ──>
        └─────────────────────────────────────────────────────┘

    Its receptive field is 13 x 13 pixels, and 15 x 15 together with the convolution before it (eqs. 1-3). With
    `dilated=False` both dilations are 1, as in the paper's baseline: 5 x 5 and 7 x 7 pixels.
    """

    def __init__(self, channels: int, dilated: bool = True) -> None:
        super().__init__()
        first, second = (2, 4) if dilated else (1, 1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=first, dilation=first, bias=False),
            InstanceNorm(channels),
            nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=second, dilation=second, bias=False),
            InstanceNorm(channels),
        )
        self.activation = nn.LeakyReLU(NEGATIVE_SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        out: Tensor = self.activation(self.body(x) + x)
        return out


class ChannelGate(nn.Module):
    """Channel attention (eqs. 4-5): weights each feature map by squeeze and excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 2, 1)
        self.excite = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        pooled = x.mean((2, 3), keepdim=True)  # (N, C, 1, 1), eq. 4
        weight = self.excite(torch.relu(self.squeeze(pooled)))  # -> (N, C/2, 1, 1) -> (N, C, 1, 1)
        return x * torch.sigmoid(weight)  # eq. 5


class SpatialGate(nn.Module):
    """Spatial attention (eq. 6): weights each pixel, all feature maps alike."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        weight = self.squeeze(x)  # (N, 1, H, W)
        return x * torch.sigmoid(weight)


class Attention(nn.Module):
    """Spatial and channel attention (Fig. 4, eq. 7): the sum of the two gated features.

    x ─┬─ channel gate ─┐
       └─ spatial gate ─┴─ (+) ──>
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel = ChannelGate(channels)
        self.spatial = SpatialGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        out: Tensor = self.channel(x) + self.spatial(x)
        return out
