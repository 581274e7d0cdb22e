import pytest
import torch
from monai.losses.tversky import TverskyLoss

from groundglass.network.losses import LossConfig, segmentation_loss, tversky_index

# Four pixels: truth 1 1 0 0, prediction 1 0 1 0: TP 1, FN 1, FP 1. (fn weight, fp weight, index without smoothing)
TABLE = [(0.5, 0.5, 1 / 2), (0.7, 0.3, 1 / 2), (1.0, 0.0, 1 / 2), (1.0, 1.0, 1 / 3), (0.7, 0.7, 1 / 2.4)]


def pixels(*values: float) -> torch.Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


@pytest.mark.parametrize(("fn_weight", "fp_weight", "expected"), TABLE)
def test_the_index_equals_a_calculation_by_hand(fn_weight: float, fp_weight: float, expected: float) -> None:
    index = tversky_index(pixels(1, 0, 1, 0), pixels(1, 1, 0, 0), fn_weight, fp_weight, smooth=0)
    assert index.tolist() == pytest.approx([expected])


def test_alpha_weights_false_negatives_and_beta_false_positives() -> None:
    missed = tversky_index(pixels(1, 0, 0, 0), pixels(1, 1, 1, 0), 0.7, 0.3, smooth=0)  # TP 1, FN 2
    false_alarm = tversky_index(pixels(1, 1, 1, 0), pixels(1, 0, 0, 0), 0.7, 0.3, smooth=0)  # TP 1, FP 2
    assert missed.item() == pytest.approx(1 / (1 + 0.7 * 2))
    assert false_alarm.item() == pytest.approx(1 / (1 + 0.3 * 2))


def logits(*probabilities: float) -> torch.Tensor:
    return torch.logit(pixels(*probabilities))


def test_equal_weights_give_the_dice_loss() -> None:
    config = LossConfig(fn_weight=0.5, fp_weight=0.5, gamma=1.0)
    probability, target = torch.tensor([0.9, 0.6, 0.2, 0.1]), torch.tensor([1.0, 1.0, 0.0, 0.0])
    dice = (2 * (probability * target).sum() + 2) / (
        probability.sum() + target.sum() + 2
    )  # smooth 1 = 2 above and below
    loss = segmentation_loss(logits(0.9, 0.6, 0.2, 0.1), target.view(1, 1, 1, -1), config)
    assert loss.item() == pytest.approx(1 - dice.item(), abs=1e-6)


def test_the_focal_exponent_is_three_quarters_for_gamma_four_thirds() -> None:
    target = pixels(1, 1, 0, 0)
    plain = segmentation_loss(logits(0.9, 0.3, 0.4, 0.1), target, LossConfig(gamma=1.0))
    focal = segmentation_loss(logits(0.9, 0.3, 0.4, 0.1), target, LossConfig())
    assert focal.item() == pytest.approx(plain.item() ** 0.75, rel=1e-5)


def test_classes_are_summed() -> None:
    one, other = torch.randn(2, 1, 6, 6), torch.randn(2, 1, 6, 6)
    target = (torch.rand(2, 2, 6, 6) > 0.5).float()
    both = segmentation_loss(torch.cat((one, other), 1), target, LossConfig())
    apart = [segmentation_loss(part, target[:, [i]], LossConfig()) for i, part in enumerate((one, other))]
    assert both.item() == pytest.approx(sum(part.item() for part in apart), rel=1e-5)


MIXED = LossConfig(cross_entropy=0.5)


def half_labelled() -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and targets of two classes; in the second, the right half of every slice is unlabelled."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 6, 8, generator=generator)
    target = (torch.rand(3, 2, 6, 8, generator=generator) > 0.6).float()
    target[:, 1, :, 4:] = -1
    return x, target


def test_unlabelled_pixels_are_ignored_for_their_class_only() -> None:
    x, target = half_labelled()
    plain = LossConfig()
    apart = segmentation_loss(x[:, :1], target[:, :1], plain) + segmentation_loss(
        x[:, 1:, :, :4], target[:, 1:, :, :4], plain
    )
    assert segmentation_loss(x, target, plain).item() == pytest.approx(apart.item(), rel=1e-6)


def test_cross_entropy_is_the_mean_over_labelled_pixels() -> None:
    x, target = half_labelled()
    labelled = target >= 0
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(x[labelled], target[labelled])
    extra = segmentation_loss(x, target, MIXED) - segmentation_loss(x, target, LossConfig())
    assert extra.item() == pytest.approx(0.5 * entropy.item(), rel=1e-5)


def test_unlabelled_pixels_have_no_gradient() -> None:
    x, target = half_labelled()
    x.requires_grad_()
    segmentation_loss(x, target, MIXED).backward()
    assert x.grad is not None
    assert (x.grad[target < 0] == 0).all()
    assert (x.grad[target >= 0] != 0).all()


@pytest.mark.parametrize("value", [0.0, -1.0], ids=["empty", "unlabelled"])
@pytest.mark.parametrize(
    "config", [LossConfig(), MIXED, LossConfig(0.5, 0.5, gamma=1.0)], ids=["focal", "mixed", "dice"]
)
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_class_absent_from_a_batch_has_a_finite_loss_and_gradient(
    value: float, config: LossConfig, scale: float
) -> None:
    x, target = half_labelled()
    x = (scale * x).requires_grad_()
    target[:, 1] = value
    loss = segmentation_loss(x, target, config)
    loss.backward()
    assert torch.isfinite(loss)
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_a_batch_without_labels_has_almost_no_loss() -> None:
    x, target = half_labelled()
    assert segmentation_loss(x, torch.full_like(target, -1), MIXED).item() < 1e-4


def test_parts_of_a_shared_batch_give_the_loss_of_the_whole() -> None:
    x, target = half_labelled()
    sums: list[torch.Tensor] = []

    def first(part: torch.Tensor) -> torch.Tensor:
        sums.append(part)
        return part

    segmentation_loss(x[:1], target[:1], MIXED, first)
    shared = segmentation_loss(x[1:], target[1:], MIXED, lambda part: part + sums.pop(0))
    assert shared.item() == pytest.approx(segmentation_loss(x, target, MIXED).item(), rel=1e-6)


def test_targets_of_another_shape_than_the_logits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maps of \(1, 1, 2, 2\), the targets are \(1, 3, 2, 2\)"):
        segmentation_loss(torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2), LossConfig())


def test_an_empty_slice_has_a_loss_for_false_positives_only() -> None:
    empty = torch.zeros(1, 1, 16, 16)
    quiet, loud = torch.full_like(empty, -20.0), torch.full_like(empty, 20.0)
    assert segmentation_loss(quiet, empty, LossConfig()).item() < 1e-4
    assert segmentation_loss(loud, empty, LossConfig()).item() > 0.95


def test_a_slice_full_of_lesion_has_a_loss_for_false_negatives_only() -> None:
    full = torch.ones(1, 1, 16, 16)
    assert segmentation_loss(20 * full, full, LossConfig()).item() < 1e-4
    assert segmentation_loss(-20 * full, full, LossConfig()).item() > 0.95


@pytest.mark.parametrize("target", [torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)])
def test_a_perfect_prediction_has_a_finite_gradient(target: torch.Tensor) -> None:
    x = ((target * 2 - 1) * 100).requires_grad_()
    segmentation_loss(x, target, LossConfig()).backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(("fn_weight", "fp_weight"), [(0.5, 0.5), (0.7, 0.3)])
def test_the_loss_equals_monais_tversky_loss(fn_weight: float, fp_weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 9, 11, generator=generator)
    target = (torch.rand(3, 2, 9, 11, generator=generator) > 0.7).float()
    # MONAI's alpha is the weight of false positives, and it averages over classes.
    theirs = TverskyLoss(sigmoid=True, alpha=fp_weight, beta=fn_weight, batch=True, smooth_nr=1.0, smooth_dr=1.0)
    ours = segmentation_loss(x, target, LossConfig(fn_weight, fp_weight, gamma=1.0))
    assert ours.item() == pytest.approx(2 * theirs(x, target).item(), rel=1e-5)


def test_cross_entropy_is_added_with_its_weight() -> None:
    target = pixels(1, 1, 0, 0)
    x = logits(0.9, 0.3, 0.4, 0.1)
    entropy = -torch.log(torch.tensor([0.9, 0.3, 0.6, 0.9])).mean()
    plain = segmentation_loss(x, target, LossConfig())
    mixed = segmentation_loss(x, target, LossConfig(cross_entropy=0.5))
    assert mixed.item() == pytest.approx(plain.item() + 0.5 * entropy.item(), rel=1e-5)


def test_the_loss_of_bfloat16_logits_is_computed_in_float32() -> None:
    x, target = torch.randn(1, 1, 64, 64), (torch.rand(1, 1, 64, 64) > 0.9).float()
    loss = segmentation_loss(x.bfloat16(), target, LossConfig())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(segmentation_loss(x, target, LossConfig()).item(), rel=1e-2)


def test_the_gradient_equals_finite_differences() -> None:
    target = (torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(0)) > 0.5).double()
    probability = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: tversky_index(p, target, 0.7, 0.3), (probability,))
