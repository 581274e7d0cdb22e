"""The paper's losses on logits: Dice, Tversky and focal Tversky.

Zhou, Canu and Ruan (2020), eqs. 8-11. Deep supervision needs no loss of its own: the network adds its maps up before
the sigmoid (Fig. 2). The paper does not say which pixels one index is computed over. Here it is all pixels of a batch,
so that a slice without lesion gives neither 0/0 nor a loss of 1 for a single false positive pixel.

A target is 1 (the class), 0 (not the class) or negative (unlabelled: the pixel is ignored for that class only). Targets
between 0 and 1 are the soft targets of distillation. Only the cross-entropy learns them as they are, because a Tversky
loss has its minimum at a prediction of 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss: focal Tversky by default, Dice (eqs. 8-9) with both weights 0.5 and `gamma = 1`.

    Attributes:
        fn_weight: Weight of false negative pixels, alpha in eq. 10.
        fp_weight: Weight of false positive pixels, beta in eq. 10.
        gamma: Focal parameter of eq. 11, whose exponent is 1 / gamma; 1 gives the plain Tversky loss.
        cross_entropy: Weight of an additional binary cross-entropy; the paper has none.
    """

    fn_weight: float = 0.7
    fp_weight: float = 0.3
    gamma: float = 4 / 3
    cross_entropy: float = 0.0

    def __post_init__(self) -> None:
        if min(self.fn_weight, self.fp_weight, self.cross_entropy) < 0 or self.gamma <= 0:
            raise ValueError("the weights of a loss must not be negative, and gamma must be above 0")


def identity(sums: Tensor) -> Tensor:
    """Return the sums of a batch that lies in one process; the default for `all_reduce`."""
    return sums


def tversky_index(
    probability: Tensor,
    target: Tensor,
    fn_weight: float,
    fp_weight: float,
    smooth: float = 1.0,
    all_reduce: Callable[[Tensor], Tensor] = identity,
) -> Tensor:
    """Compute eq. 10 for each class: (TP + s) / (TP + alpha FN + beta FP + s), with `smooth` as s.

    Args:
        probability: (N, C, H, W) in [0, 1].
        target: (N, C, H, W) in [0, 1], or negative where a pixel is ignored.
        fn_weight: alpha.
        fp_weight: beta.
        smooth: Pixels added to numerator and denominator, so that an empty batch without false positives scores 1.
        all_reduce: Sums a tensor over the processes that share the batch.

    Returns:
        (C,) indices in (0, 1]; 1 for a class without labelled pixels.
    """
    over_batch = (0, 2, 3)
    probability, target = probability * (target >= 0), target.clamp(min=0)
    counts = torch.stack(  # (3, C)
        (
            (probability * target).sum(over_batch),
            ((1 - probability) * target).sum(over_batch),
            (probability * (1 - target)).sum(over_batch),
        )
    )
    true_positive, false_negative, false_positive = all_reduce(counts)  # (C,) each
    denominator = true_positive + fn_weight * false_negative + fp_weight * false_positive
    index: Tensor = (true_positive + smooth) / (denominator + smooth)
    return index


def segmentation_loss(
    logits: Tensor, target: Tensor, config: LossConfig, all_reduce: Callable[[Tensor], Tensor] = identity
) -> Tensor:
    """Compute eq. 11, the sum over classes of (1 - TI)^(1/gamma), in float32 whatever the precision of the logits.

    The classes are the network's output maps, lesion first; the paper has lesion alone. A class that is absent from the
    batch or unlabelled adds almost nothing, except for false positives. The cross-entropy is the mean over the labelled
    pixels of all classes.

    Args:
        logits: (N, C, H, W).
        target: (N, C, H, W) in [0, 1], or negative where a pixel is ignored.
        config: Weights and exponent.
        all_reduce: Sums a tensor over the processes that share the batch, and passes gradients through, so that each
            process gets the loss of the whole batch.

    Returns:
        A scalar; 0 for a perfect prediction of targets 0 and 1.

    Raises:
        ValueError: Logits and targets have different shapes.
    """
    if logits.shape != target.shape:
        raise ValueError(f"the network gives maps of {tuple(logits.shape)}, the targets are {tuple(target.shape)}")
    logits, target = logits.float(), target.float()
    index = tversky_index(
        torch.sigmoid(logits), target, config.fn_weight, config.fp_weight, smooth=1.0, all_reduce=all_reduce
    )  # (C,)
    # The slope of x^(1/gamma) is infinite at 0: clamp, so that a perfect batch has no NaN gradient.
    loss = (1 - index).clamp(min=1e-7).pow(1 / config.gamma).sum()
    if config.cross_entropy:
        loss = loss + config.cross_entropy * _cross_entropy(logits, target, all_reduce)
    return loss


def _cross_entropy(logits: Tensor, target: Tensor, all_reduce: Callable[[Tensor], Tensor]) -> Tensor:
    """Return the mean binary cross-entropy of the labelled pixels."""
    labelled = target >= 0
    entropy = functional.binary_cross_entropy_with_logits(logits, target.clamp(min=0), reduction="none")
    total, count = all_reduce(torch.stack(((entropy * labelled).sum(), labelled.sum().float())))
    mean: Tensor = total / count.clamp(min=1)
    return mean
