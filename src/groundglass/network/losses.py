"""The paper's losses: Dice, Tversky and focal Tversky, on logits.

Zhou, Canu and Ruan (2020), eqs. 8-11. The deep supervision of the network needs no loss of its own: its maps are
added up before the sigmoid (Fig. 2). The paper does not say over what an index is taken; here over all pixels of a
batch, so that a slice without lesion is neither 0/0 nor a loss of 1 for one wrong pixel.

A target below 0 means "not stated": its pixel is left out of every sum of that class, and of that class alone. A target
between 0 and 1, of a training that is taught by others, is learnt as it is by the cross-entropy alone: the least of a
Tversky loss lies at 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
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


def whole_batch(sums: Tensor) -> Tensor:
    """The sums of a batch that lies in one process: themselves."""
    return sums


def tversky_index(
    probability: Tensor,
    target: Tensor,
    fn_weight: float,
    fp_weight: float,
    smooth: float = 1.0,
    sum_over: Callable[[Tensor], Tensor] = whole_batch,
) -> Tensor:
    """Eq. 10, per class: TP / (TP + alpha FN + beta FP), with `smooth` pixels added above and below.

    Args:
        probability: (N, C, H, W) in [0, 1].
        target: (N, C, H, W) in [0, 1]; below 0: left out.
        fn_weight: alpha.
        fp_weight: beta.
        smooth: Pixels; makes an empty batch without a false alarm count as 1.
        sum_over: Adds up the sums of a batch that is shared among processes.

    Returns:
        (C,) indices in (0, 1]; 1 for a class of which nothing is stated.
    """
    pixels = (0, 2, 3)
    probability, target = probability * (target >= 0), target.clamp(min=0)
    sums = (
        (probability * target).sum(pixels),
        ((1 - probability) * target).sum(pixels),
        (probability * (1 - target)).sum(pixels),
    )
    true_positive, false_negative, false_positive = sum_over(torch.stack(sums))
    denominator = true_positive + fn_weight * false_negative + fp_weight * false_positive
    index: Tensor = (true_positive + smooth) / (denominator + smooth)
    return index


def segmentation_loss(
    logits: Tensor, target: Tensor, config: LossConfig, sum_over: Callable[[Tensor], Tensor] = whole_batch
) -> Tensor:
    """Eq. 11: the sum over classes of (1 - TI)^(1/gamma), in float32 whatever the logits' precision.

    The classes are the network's maps: lesion first, then those of `classes`, each an index of its own over its own
    pixels. The paper's lesion against background is the sum's one term; a class that a batch does not hold, or of which
    it states nothing, adds next to nothing unless it is called where it is not. The cross-entropy is the mean over the
    stated pixels of all classes.

    Args:
        logits: (N, C, H, W).
        target: (N, C, H, W) in [0, 1]; below 0: left out.
        config: Weights and exponent.
        sum_over: Adds up the sums of a batch that is shared among processes, and passes gradients through; each
            process then gets the loss of the whole batch.

    Returns:
        A scalar, 0 for a perfect prediction of 0 and 1.

    Raises:
        ValueError: There is not one target map for each map of logits.
    """
    if logits.shape != target.shape:
        raise ValueError(f"the network gives maps of {tuple(logits.shape)}, the targets are {tuple(target.shape)}")
    logits, target = logits.float(), target.float()
    index = tversky_index(
        torch.sigmoid(logits), target, config.fn_weight, config.fp_weight, smooth=1.0, sum_over=sum_over
    )
    # The slope of x^(1/gamma) is infinite at 0: a perfect batch must not give a NaN gradient.
    loss = (1 - index).clamp(min=1e-7).pow(1 / config.gamma).sum()
    if config.cross_entropy:
        loss = loss + config.cross_entropy * _cross_entropy(logits, target, sum_over)
    return loss


def _cross_entropy(logits: Tensor, target: Tensor, sum_over: Callable[[Tensor], Tensor]) -> Tensor:
    """Mean binary cross-entropy of the stated pixels."""
    stated = target >= 0
    entropy = functional.binary_cross_entropy_with_logits(logits, target.clamp(min=0), reduction="none")
    total, count = sum_over(torch.stack(((entropy * stated).sum(), stated.sum().float())))
    mean: Tensor = total / count.clamp(min=1)
    return mean
