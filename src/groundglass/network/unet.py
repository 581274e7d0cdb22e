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
    """The switches of the paper's ablation.

    Attributes:
        widths: Filters of each level, finest first.
        classes: Output maps; 1 = lesion against background.
        slices: Input maps: the slice, or it between its neighbours.
        attention: Spatial and channel attention at every level, encoder and decoder.
        residual_dilated: Dilations 2 and 4 in the residual blocks; else 1 and 1.
        deep_supervision: Segmentation layers at the three finest decoder levels, added up; else at the finest only.
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
    """What ends every level: `res_dil`, then attention."""
    block = nn.Sequential(ResDil(channels, config.residual_dilated))
    if config.attention:
        block.append(Attention(channels))
    return block


class Encoder(nn.Sequential):
    """One level down: convolution (stride 2 but for the first level), `res_dil`, attention."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, config: NetworkConfig) -> None:
        super().__init__(Conv(channels_in, channels_out, stride), *_refine(channels_out, config))


class Decoder(nn.Module):
    """One level up: upsample x2, halve the features, join the skip, `res_dil`, attention."""

    def __init__(self, channels_below: int, channels: int, config: NetworkConfig) -> None:
        super().__init__()
        self.halve = Conv(channels_below, channels)
        self.join = Conv(2 * channels, channels)
        self.refine = _refine(channels, config)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, C below, about H/2, W/2) and the skip (N, C, H, W) -> (N, C, H, W)."""
        x = self.halve(functional.interpolate(x, size=skip.shape[2:]))
        out: Tensor = self.refine(self.join(torch.cat((x, skip), dim=1)))
        return out


class LesionUNet(nn.Module):
    """The network: CT slices in, one map of logits per class out."""

    def __init__(self, config: NetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        widths = config.widths
        self.encoders = nn.ModuleList(
            Encoder(channels_in, channels_out, stride=1 if level == 0 else 2, config=config)
            for level, (channels_in, channels_out) in enumerate(zip((config.slices, *widths), widths, strict=False))
        )
        self.decoders = nn.ModuleList(Decoder(below, channels, config) for below, channels in pairwise(widths[::-1]))
        supervised = SUPERVISED_LEVELS if config.deep_supervision else 1
        self.segment = nn.ModuleList(
            nn.Conv2d(channels, config.classes, 1) for channels in widths[:-1][:supervised][::-1]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, slices, H, W) scaled to [0, 1], any H and W -> (N, classes, H, W) logits."""
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
        features: list[Tensor] = []  # of the decoder, coarsest first
        for decoder, skip in zip(self.decoders, skips[-2::-1], strict=True):
            x = decoder(x, skip)
            features.append(x)
        logits: Tensor | None = None
        for segment, feature in zip(self.segment, features[-len(self.segment) :], strict=True):
            here: Tensor = segment(feature)
            if logits is not None:
                here = here + functional.interpolate(logits, size=here.shape[2:], mode="bilinear")
            logits = here
        assert logits is not None
        return logits
