"""The boxes of the paper's figures, one class each.

Zhou, Canu and Ruan (2020), arXiv 2004.06673, Figs. 1-4. All feature maps are (N, C, H, W).
"""

import torch
from torch import Tensor, nn

SLOPE = 0.01  # of the leaky ReLU: the paper names no activation; Isensee et al. (2017), whom it follows, use this one


class InstanceNorm(nn.InstanceNorm2d):
    """Instance normalisation that also takes a 1x1 map (the deepest level of a slice of 16 pixels or less)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape, each map with mean 0 and variance 1, then scaled and shifted."""
        return torch.instance_norm(x, self.weight, self.bias, None, None, True, 0.0, self.eps, False)


class Conv(nn.Sequential):
    """3x3 convolution, instance normalisation, leaky ReLU. Stride 2 takes the place of pooling."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False),
            InstanceNorm(channels_out),
            nn.LeakyReLU(SLOPE, inplace=True),
        )


class ResDil(nn.Module):
    """`res_dil` (Fig. 3): a residual block of two 3x3 convolutions with dilation 2 and 4.

        x ── conv d=2 ── norm ── act ── conv d=4 ── norm ── (+) ── act ──>
        └─────────────────────────────────────────────────────┘

    It sees 13x13 pixels, and 15x15 with the level's own convolution in front (eqs. 1-3); with `dilated=False` both
    dilations are 1: the plain residual block of the paper's baseline, 5x5 and 7x7.
    """

    def __init__(self, channels: int, dilated: bool = True) -> None:
        super().__init__()
        first, second = (2, 4) if dilated else (1, 1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=first, dilation=first, bias=False),
            InstanceNorm(channels),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Conv2d(channels, channels, 3, padding=second, dilation=second, bias=False),
            InstanceNorm(channels),
        )
        self.activation = nn.LeakyReLU(SLOPE, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        out: Tensor = self.activation(self.body(x) + x)
        return out


class ChannelGate(nn.Module):
    """Which features matter (eqs. 4-5): global average, C -> C/2 -> C, sigmoid, times the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 2, 1)
        self.excite = nn.Conv2d(channels // 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        weight = self.excite(torch.relu(self.squeeze(x.mean((2, 3), keepdim=True))))  # (N, C, 1, 1)
        return x * torch.sigmoid(weight)


class SpatialGate(nn.Module):
    """Which places matter (eq. 6): 1x1 convolution to one map, sigmoid, times the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        return x * torch.sigmoid(self.squeeze(x))


class Attention(nn.Module):
    """Spatial and channel attention (Fig. 4, eq. 7): the two gated features are added.

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
