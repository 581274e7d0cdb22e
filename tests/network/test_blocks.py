import numpy as np
import pytest
import torch
from torch import nn

from groundglass.network.blocks import Attention, ChannelGate, Conv, InstanceNorm, ResDil, SpatialGate


def receptive_field(block: nn.Module, size: int = 31) -> tuple[int, int]:
    """Measure, by gradient, the rows and columns of the input that the centre of the output depends on.

    Normalisation depends on the whole map, so it is removed: only the convolutions are measured.
    """
    for module in block.modules():
        for name, child in module.named_children():
            if isinstance(child, InstanceNorm):
                setattr(module, name, nn.Identity())
    for parameter in block.parameters():
        nn.init.constant_(parameter, 0.1)
    x = torch.ones(1, 2, size, size, requires_grad=True)
    block(x)[0, 0, size // 2, size // 2].backward()
    assert x.grad is not None
    depends = x.grad[0].abs().sum(0) > 0
    rows, columns = torch.nonzero(depends.any(1)).flatten(), torch.nonzero(depends.any(0)).flatten()
    return int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


@pytest.mark.parametrize(
    ("dilated", "with_convolution", "expected"),
    [(True, True, 15), (False, True, 7), (True, False, 13), (False, False, 5)],
)
def test_the_receptive_field_is_that_of_the_paper(dilated: bool, with_convolution: bool, expected: int) -> None:
    block = ResDil(2, dilated)
    whole = nn.Sequential(Conv(2, 2), block) if with_convolution else block
    assert receptive_field(whole) == (expected, expected)


def test_a_residual_block_adds_its_input() -> None:
    block = ResDil(4)
    for parameter in block.body.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 4, 9, 9)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (2, 3, 1, 5), (2, 3, 8, 8)])
def test_instance_norm_equals_its_definition_also_for_one_pixel(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
    assert torch.allclose(InstanceNorm(3)(x), (x - mean) / (variance + 1e-5).sqrt(), atol=1e-4)


def sigmoid(z: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-z)))


def numpy_channel_gate(x: np.ndarray, gate: ChannelGate) -> np.ndarray:
    """Compute eqs. 4-5."""
    w2, b2 = (p.detach().numpy().reshape(p.shape[0], -1) for p in gate.squeeze.parameters())
    w1, b1 = (p.detach().numpy().reshape(p.shape[0], -1) for p in gate.excite.parameters())
    out = np.empty_like(x)
    for n, z in enumerate(x):
        average = z.mean((1, 2))[:, None]
        weight = sigmoid(w1 @ np.maximum(w2 @ average + b2, 0) + b1)
        out[n] = z * weight[:, :, None]
    return out


def numpy_spatial_gate(x: np.ndarray, gate: SpatialGate) -> np.ndarray:
    """Compute eq. 6."""
    w, b = (p.detach().numpy().ravel() for p in gate.squeeze.parameters())
    return np.asarray(x * sigmoid(np.tensordot(x, w, (1, 0)) + b)[:, None])


def test_attention_equals_the_papers_equations() -> None:
    torch.manual_seed(0)
    attention = Attention(6)
    x = torch.randn(3, 6, 5, 7)
    expected = numpy_channel_gate(x.numpy(), attention.channel) + numpy_spatial_gate(x.numpy(), attention.spatial)
    assert np.abs(attention(x).detach().numpy() - expected).max() < 1e-6


def test_the_channel_gate_reduces_to_half_the_channels() -> None:
    gate = ChannelGate(8)
    assert gate.squeeze.weight.shape == (4, 8, 1, 1)
    assert gate.excite.weight.shape == (8, 4, 1, 1)
