"""The paper's network: a U-Net with residual dilated blocks, attention and deep supervision.

Zhou, Canu and Ruan (2020), arXiv 2004.06673, Figs. 1 and 2. Read `blocks` first, then this file from top to bottom:

    slice ─ level 1 ──────────── skip ──────────── decoder 1 ─ segment ─(+)─> logits
              └ level 2 ──────── skip ──────── decoder 2 ─ segment ─(+)─┘ x2
                  └ level 3 ──── skip ──── decoder 3 ─ segment ──────┘ x2
                      └ level 4 ─ skip ─ decoder 4
                          └ level 5 ─────┘
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from groundglass.network.blocks import Attention, Conv, ResDil

SUPERVISED_LEVELS = 3  # finest decoder levels with a segmentation layer, after Isensee et al. (2017)


@dataclass(frozen=True)
class NetworkConfig:
    """Size of the network and the switches of the paper's ablation.

    Attributes:
        widths: Number of filters at each level, finest level first.
        classes: Number of output maps; 1 is lesion against background.
        slices: Number of input slices: 1 (2D), or 3 (2.5D: the slice between its neighbours).
        attention: Spatial and channel attention at every level of encoder and decoder.
        residual_dilated: Dilations 2 and 4 in the residual blocks; otherwise 1 and 1.
        deep_supervision: Sum the segmentation layers of the three finest decoder levels; otherwise use the finest.
    """

    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    classes: int = 1
    slices: int = 1
    attention: bool = True
    residual_dilated: bool = True
    deep_supervision: bool = True

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 2 or self.classes < 1:
            raise ValueError("a network has two levels or more, of two filters or more, and a class or more")


def _refine(channels: int, config: NetworkConfig) -> nn.Sequential:
    """The end of every level: `res_dil`, then attention."""
    block = nn.Sequential(ResDil(channels, config.residual_dilated))
    if config.attention:
        block.append(Attention(channels))
    return block


class Encoder(nn.Sequential):
    """One level down: convolution (stride 2 except at the first level), `res_dil`, attention."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, config: NetworkConfig) -> None:
        super().__init__(Conv(channels_in, channels_out, stride), *_refine(channels_out, config))


class Decoder(nn.Module):
    """One level up: upsample x2, reduce the features, concatenate the skip connection, `res_dil`, attention."""

    def __init__(self, channels_below: int, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.halve = Conv(channels_below, channels)
        self.join = Conv(2 * channels, channels)
        self.refine = _refine(channels, config)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, C_below, ~H/2, ~W/2) and the skip connection (N, C, H, W) -> (N, C, H, W)."""
        x = functional.interpolate(x, size=skip.shape[2:])  # (N, C_below, H, W)
        x = self.halve(x)  # (N, C, H, W)
        x = torch.cat((x, skip), dim=1)  # (N, 2C, H, W)
        out: Tensor = self.refine(self.join(x))  # (N, C, H, W)
        return out


class LesionUNet(nn.Module):
    """The whole network: CT slices in, one map of logits per class out."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        widths = config.widths
        self.encoders = nn.ModuleList(
            Encoder(channels_in, channels_out, stride=1 if level == 0 else 2, config=config)
            for level, (channels_in, channels_out) in enumerate(pairwise((config.slices, *widths)))
        )
        self.decoders = nn.ModuleList(Decoder(below, channels, config) for below, channels in pairwise(widths[::-1]))
        supervised = SUPERVISED_LEVELS if config.deep_supervision else 1
        self.segment = nn.ModuleList(
            nn.Conv2d(channels, config.classes, 1) for channels in widths[:-1][:supervised][::-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, slices, H, W) scaled to [0, 1], any H and W -> (N, classes, H, W) logits."""
        skips: list[Tensor] = []  # (N, C_1, H, W), (N, C_2, H/2, W/2), ...; odd sizes are rounded up
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
        features: list[Tensor] = []  # the decoders' outputs, coarsest first
        for decoder, skip in zip(self.decoders, skips[-2::-1], strict=True):
            x = decoder(x, skip)
            features.append(x)
        # Deep supervision (Fig. 2): the logits of each level, coarsest first, are upsampled and added to the next.
        logits: Tensor | None = None
        for segment, feature in zip(self.segment, features[-len(self.segment) :], strict=True):
            level_logits: Tensor = segment(feature)  # (N, classes, ~H/4, ~W/4), then ~H/2, then H
            if logits is not None:
                logits = functional.interpolate(logits, size=level_logits.shape[2:], mode="bilinear")
                level_logits = level_logits + logits
            logits = level_logits
        assert logits is not None
        return logits
