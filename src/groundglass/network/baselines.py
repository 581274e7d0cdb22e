"""Networks of others, from MONAI, to be trained in the place of the paper's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from groundglass.network.unet import LesionUNet, NetworkConfig

Architecture = Literal["DynUNet", "AttentionUnet", "BasicUNet"]


@dataclass(frozen=True)
class BaselineConfig:
    """A peer.

    Attributes:
        architecture: `DynUNet` is nnU-Net's (Isensee et al. 2021) without its auxiliary losses; `AttentionUnet` that of
            Oktay et al. (2018); `BasicUNet` that of Falk et al. (2019), which has five levels, no more, no fewer.
        widths: Filters of each level, finest first.
        classes: Output maps.
        slices: Input maps.
    """

    architecture: Architecture
    widths: tuple[int, ...] = (32, 64, 128, 256, 512)
    classes: int = 1
    slices: int = 1

    def __post_init__(self) -> None:
        if self.architecture == "BasicUNet" and len(self.widths) != 5:
            raise ValueError(f"BasicUNet has five levels, network.widths names {len(self.widths)}")


def network_of(described: dict[str, Any]) -> NetworkConfig | BaselineConfig:
    """The network that a model's card describes, by `asdict`, which JSON has made lists of tuples in."""
    switches = described | {"widths": tuple(described["widths"])}
    return BaselineConfig(**switches) if "architecture" in switches else NetworkConfig(**switches)


def build_network(config: NetworkConfig | BaselineConfig) -> nn.Module:
    """A network with fresh weights: (N, slices, H, W) in [0, 1] -> (N, classes, H, W) logits.

    A peer takes heights and widths that are a multiple of 2^(levels - 1).
    """
    if isinstance(config, NetworkConfig):
        return LesionUNet(config)
    widths, classes, halvings = config.widths, config.classes, len(config.widths) - 1
    if config.architecture == "DynUNet":
        from monai.networks.nets.dynunet import DynUNet

        return DynUNet(
            spatial_dims=2,
            in_channels=config.slices,
            out_channels=classes,
            kernel_size=[3] * len(widths),
            strides=[1, *[2] * halvings],
            upsample_kernel_size=[2] * halvings,
            filters=list(widths),
            norm_name=("INSTANCE", {"affine": True}),
        )
    if config.architecture == "AttentionUnet":
        from monai.networks.nets.attentionunet import AttentionUnet

        return AttentionUnet(2, config.slices, classes, channels=widths, strides=[2] * halvings)
    from monai.networks.nets.basic_unet import BasicUNet

    return BasicUNet(2, in_channels=config.slices, out_channels=classes, features=(*widths, widths[0]))
