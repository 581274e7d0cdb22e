from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from groundglass.network.unet import LesionUNet, NetworkConfig

SMALL = NetworkConfig(widths=(8, 10, 12, 14, 16))
SWITCHES = [
    replace(SMALL, attention=attention, residual_dilated=dilated, deep_supervision=deep, classes=classes)
    for attention, dilated, deep, classes in product((True, False), (True, False), (True, False), (1, 2))
]


def count(config: NetworkConfig) -> int:
    """Count the parameters by hand: 3 x 3 convolutions without bias, norms, gates and segmentation with bias."""
    w = config.widths

    def convolution(a: int, b: int) -> int:
        return 9 * a * b + 2 * b

    def level(c: int) -> int:
        gates = (c * (c // 2) + c // 2) + (c // 2 * c + c) + (c + 1)
        return 2 * convolution(c, c) + (gates if config.attention else 0)

    encoder = sum(convolution(a, b) + level(b) for a, b in pairwise((1, *w)))
    decoder = sum(convolution(below, c) + convolution(2 * c, c) + level(c) for c, below in pairwise(w))
    supervised = w[:-1][: 3 if config.deep_supervision else 1]
    return encoder + decoder + sum((c + 1) * config.classes for c in supervised)


@pytest.mark.parametrize("config", SWITCHES)
def test_the_number_of_parameters_equals_a_count_by_hand(config: NetworkConfig) -> None:
    assert sum(p.numel() for p in LesionUNet(config).parameters()) == count(config)


def test_the_default_network_has_13_million_parameters() -> None:
    assert sum(p.numel() for p in LesionUNet().parameters()) == count(NetworkConfig()) == 13_002_412
    baseline = NetworkConfig(attention=False)
    assert sum(p.numel() for p in LesionUNet(baseline).parameters()) == count(baseline) == 12_562_499


@pytest.mark.parametrize("config", SWITCHES)
def test_a_gradient_reaches_every_parameter(config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = LesionUNet(config)
    out = network(torch.rand(2, 1, 40, 48))
    assert out.shape == (2, config.classes, 40, 48)
    (out * torch.randn_like(out)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_any_size_is_accepted(height: int, width: int) -> None:
    with torch.inference_mode():
        out = LesionUNet(SMALL)(torch.rand(1, 1, height, width))
    assert out.shape == (1, 1, height, width)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("size", [(226, 295), (242, 358)])
def test_odd_sizes_give_a_map_of_the_same_size(size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert LesionUNet(SMALL)(torch.rand(1, 1, *size)).shape == (1, 1, *size)


def test_a_slice_does_not_depend_on_the_rest_of_the_batch() -> None:
    network = LesionUNet(SMALL).eval()
    batch = torch.rand(3, 1, 33, 47)
    with torch.inference_mode():
        single = torch.cat([network(one[None]) for one in batch])
        assert torch.allclose(network(batch), single, atol=1e-3)
        assert torch.allclose(network.train()(batch), single, atol=1e-3)  # there are no running statistics


def test_the_output_is_the_sum_of_the_supervised_levels() -> None:
    torch.manual_seed(0)
    network = LesionUNet(SMALL).eval()
    maps: list[torch.Tensor] = []
    for segment in network.segment:
        segment.register_forward_hook(lambda module, args, out: maps.append(out))
    with torch.inference_mode():
        out = network(torch.rand(1, 1, 48, 64))
    assert [tuple(m.shape[2:]) for m in maps] == [(12, 16), (24, 32), (48, 64)]
    total = maps[0]
    for finer in maps[1:]:
        total = finer + functional.interpolate(total, size=finer.shape[2:], mode="bilinear")
    assert torch.allclose(out, total, atol=1e-6)


def test_bfloat16_is_close_to_float32() -> None:
    torch.manual_seed(0)
    network = LesionUNet(SMALL)
    x = torch.rand(2, 1, 64, 64)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        approximate = network(x)
    approximate.float().pow(2).mean().backward()
    assert (torch.sigmoid(exact) - torch.sigmoid(approximate.float())).abs().mean() < 0.02
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_network_of_one_level_is_refused() -> None:
    with pytest.raises(ValueError, match="two levels or more"):
        NetworkConfig(widths=(8,))
