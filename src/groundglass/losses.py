"""The paper's losses: Dice, Tversky and focal Tversky, on logits.

Zhou, Canu and Ruan (2020), eqs. 8-11. The deep supervision of the network needs no loss of its own: its maps are
added up before the sigmoid (Fig. 2). The paper does not say over what an index is taken; here over all pixels of a
batch, so that a slice without lesion is neither 0/0 nor a loss of 1 for one wrong pixel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class LossConfig:
    """Focal Tversky by default; `fn_weight = fp_weight = 0.5` with `gamma = 1` is the Dice loss of eqs. 8-9.

    Attributes:
        fn_weight: alpha of eq. 10, the weight of a missed lesion pixel.
        fp_weight: beta of eq. 10, the weight of a pixel wrongly called lesion.
        gamma: of eq. 11; the exponent is 1 / gamma. 1 is the plain Tversky loss.
        cross_entropy: Weight of a binary cross-entropy added to it; the paper has none.
    """

    fn_weight: float = 0.7
    fp_weight: float = 0.3
    gamma: float = 4 / 3
    cross_entropy: float = 0.0

    def __post_init__(self) -> None:
        if min(self.fn_weight, self.fp_weight, self.cross_entropy) < 0 or self.gamma <= 0:
            raise ValueError("the weights of a loss are not negative, and gamma is above 0")


def tversky_index(
    probability: Tensor, target: Tensor, fn_weight: float, fp_weight: float, smooth: float = 1.0
) -> Tensor:
    """Eq. 10, per class: TP / (TP + alpha FN + beta FP), with `smooth` pixels added above and below.

    Args:
        probability: (N, C, H, W) in [0, 1].
        target: (N, C, H, W), 0 or 1.
        fn_weight: alpha.
        fp_weight: beta.
        smooth: Pixels; makes an empty batch without a false alarm count as 1.

    Returns:
        (C,) indices in (0, 1].
    """
    pixels = (0, 2, 3)
    true_positive = (probability * target).sum(pixels)
    false_negative = ((1 - probability) * target).sum(pixels)
    false_positive = (probability * (1 - target)).sum(pixels)
    denominator = true_positive + fn_weight * false_negative + fp_weight * false_positive
    return (true_positive + smooth) / (denominator + smooth)


def segmentation_loss(logits: Tensor, target: Tensor, config: LossConfig) -> Tensor:
    """Eq. 11: the sum over classes of (1 - TI)^(1/gamma), in float32 whatever the logits' precision.

    Args:
        logits: (N, C, H, W).
        target: (N, C, H, W), 0 or 1.
        config: Weights and exponent.

    Returns:
        A scalar, 0 for a perfect prediction.
    """
    logits, target = logits.float(), target.float()
    index = tversky_index(torch.sigmoid(logits), target, config.fn_weight, config.fp_weight)
    # The slope of x^(1/gamma) is infinite at 0: a perfect batch must not give a NaN gradient.
    loss = (1 - index).clamp(min=1e-7).pow(1 / config.gamma).sum()
    if config.cross_entropy:
        loss = loss + config.cross_entropy * functional.binary_cross_entropy_with_logits(logits, target)
    return loss
