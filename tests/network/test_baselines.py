import pytest
import torch

from groundglass.network.baselines import BaselineConfig, build_network
from groundglass.network.unet import LesionUNet, NetworkConfig


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("architecture", ["DynUNet", "AttentionUnet", "BasicUNet"])
def test_a_baseline_has_a_map_for_each_class_and_a_finite_gradient(architecture: str, classes: int) -> None:
    torch.manual_seed(0)
    network = build_network(BaselineConfig(architecture, (4, 6, 8, 8, 8), classes))  # type: ignore[arg-type]
    out = network(torch.rand(2, 1, 32, 48))
    assert out.shape == (2, classes, 32, 48)
    (out * torch.randn_like(out)).sum().backward()
    assert all(weight.grad is not None and torch.isfinite(weight.grad).all() for weight in network.parameters())


def test_the_papers_network_is_built_from_its_switches() -> None:
    network = build_network(NetworkConfig(widths=(4, 8), attention=False))
    assert isinstance(network, LesionUNet)
    assert not network.config.attention


def test_basic_unet_needs_five_levels() -> None:
    with pytest.raises(ValueError, match="five levels"):
        BaselineConfig("BasicUNet", (4, 8))
