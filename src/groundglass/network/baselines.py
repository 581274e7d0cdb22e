"""Baseline networks from MONAI that can be trained in place of the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from groundglass.network.unet import LesionUNet, NetworkConfig

Architecture = Literal["DynUNet", "AttentionUnet", "BasicUNet"]


@dataclass(frozen=True)
class BaselineConfig:
    """Architecture and size of a baseline network.

    Attributes:
        architecture: `DynUNet` is nnU-Net's network (Isensee et al. 2021) without its auxiliary losses, `AttentionUnet`
            that of Oktay et al. (2018), `BasicUNet` that of Falk et al. (2019), which always has five levels.
        widths: Number of filters at each level, finest level first.
        classes: Number of output maps.
        slices: Number of input slices.
    """

    architecture: Architecture
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    classes: int = 1
    slices: int = 1

    def __post_init__(self) -> None:
        if self.architecture == "BasicUNet" and len(self.widths) != 5:
            raise ValueError(f"BasicUNet has five levels, network.widths names {len(self.widths)}")


def parse_network_config(network: dict[str, Any]) -> NetworkConfig | BaselineConfig:
    """Return the network that a model card describes: `asdict` of its configuration, with lists for tuples."""
    fields = network | {"widths": tuple(network["widths"])}
    return BaselineConfig(**fields) if "architecture" in fields else NetworkConfig(**fields)


def build_network(config: NetworkConfig | BaselineConfig) -> nn.Module:
    """Build a network with random weights: (N, slices, H, W) in [0, 1] -> (N, classes, H, W) logits.

    For a baseline, H and W must be multiples of 2^(levels - 1).
    """
    if isinstance(config, NetworkConfig):
        return LesionUNet(config)
    widths, downsamplings = config.widths, len(config.widths) - 1
    if config.architecture == "DynUNet":
        from monai.networks.nets.dynunet import DynUNet

        return DynUNet(
            spatial_dims=2,
            in_channels=config.slices,
            out_channels=config.classes,
            kernel_size=[3] * len(widths),
            strides=[1, *[2] * downsamplings],
            upsample_kernel_size=[2] * downsamplings,
            filters=list(widths),
            norm_name=("INSTANCE", {"affine": True}),
        )
    if config.architecture == "AttentionUnet":
        from monai.networks.nets.attentionunet import AttentionUnet

        return AttentionUnet(2, config.slices, config.classes, channels=widths, strides=[2] * downsamplings)
    from monai.networks.nets.basic_unet import BasicUNet

    return BasicUNet(2, in_channels=config.slices, out_channels=config.classes, features=(*widths, widths[0]))
