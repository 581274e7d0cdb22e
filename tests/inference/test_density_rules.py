"""What density does to the odds of lesions, and to their classes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from groundglass.inference.density_rules import apply_density_rules, class_probabilities, lesion_density
from helpers.fake_engine import fake_segmenter

CARD = fake_segmenter().card  # window -1250 to 250 HU


def beside_air(lesion_hu: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A lesion of 20 x 20 pixels in lung of -900 HU, and the probability of lesion."""
    lesion = np.full((128, 160), 1e-4, np.float32)
    lesion[50:70, 60:80] = 0.99
    return np.where(lesion > 0.5, np.float32(lesion_hu), np.float32(-900)), lesion


def test_the_air_around_a_lesion_does_not_count() -> None:
    hu, lesion = beside_air(-200)
    density = lesion_density(hu, lesion)
    assert density[lesion > 0.5] == pytest.approx(-200, abs=1)
    assert (density[:20] < -890).all()


@pytest.mark.parametrize("probability", [0.0, 1e-12, 1e-6])
def test_lung_in_which_smoothing_alone_puts_a_lesion_is_no_consolidation(probability: float) -> None:
    hu = np.full((128, 160), -850, np.float32)
    ground_glass, consolidation = class_probabilities(hu, np.full_like(hu, probability), consolidation_hu=-350.0)
    assert (ground_glass > 0.99).all()
    assert (consolidation < 0.01).all()


def test_a_vessel_in_ground_glass_counts_with_what_is_around_it() -> None:
    hu, lesion = beside_air(-600)
    hu[60, 60:80] = 0
    density = lesion_density(hu, lesion)[52:68, 62:78]
    assert density.max() < -350
    assert density.max() > density.min() + 150


@pytest.mark.parametrize(("size", "pixels"), [(128, 4), (256, 8)])
def test_the_reach_grows_with_the_size_of_the_input(size: int, pixels: int) -> None:
    hu = np.full((size, size), -900, np.float32)
    hu[:, size // 2 :] = 0
    density = lesion_density(hu, np.ones_like(hu))[size // 2]
    assert density[size // 2 - pixels] == pytest.approx(-900, abs=5)
    assert density[size // 2 - pixels // 2] > -880


@pytest.mark.parametrize(("hu", "consolidation"), [(-1000, 0.0), (-400, 0.27), (-350, 0.5), (-300, 0.73), (40, 1.0)])
def test_both_probabilities_add_up_to_one(hu: float, consolidation: float) -> None:
    maps = class_probabilities(*beside_air(hu), consolidation_hu=-350)[:, 60, 70]
    assert maps.tolist() == pytest.approx([1 - consolidation, consolidation], abs=0.01)


@pytest.mark.parametrize(("hu", "log_odds"), [(-900, -4.0), (-600, -1.0), (-500, 0.0), (100, 0.0)])
def test_the_log_odds_of_lesion_fall_by_one_with_every_100_hu_that_it_is_lighter(hu: float, log_odds: float) -> None:
    card = CARD.model_copy(update={"light_hu": -500.0})
    images = np.full((2, 3, 40, 60), 0.5, np.float32)
    images[:, 1] = (hu + 1250) / 1500  # the slice itself; its neighbours do not count
    probability = np.full((2, 1, 40, 60), 0.5, np.float32)
    found = apply_density_rules(probability, images, card)
    assert np.log(found / (1 - found)) == pytest.approx(np.full(found.shape, log_odds), abs=1e-3)


def test_a_card_without_rules_leaves_every_map_as_it_is() -> None:
    probability = np.random.default_rng(0).random((2, 3, 40, 60), dtype=np.float32)
    images = np.zeros((2, 1, 40, 60), np.float32)
    assert (apply_density_rules(probability, images, CARD) == probability).all()


def test_certainty_of_the_network_does_not_outlast_the_rule() -> None:
    """A probability that rounds to 0 or 1 has no log-odds."""
    card = CARD.model_copy(update={"light_hu": -500.0})
    probability = np.array([0.0, 1.0], np.float32)[:, None, None, None] * np.ones((2, 1, 40, 60), np.float32)
    found = apply_density_rules(probability, np.zeros((2, 1, 40, 60), np.float32), card)
    assert np.isfinite(found).all()
    assert 0.99 < found[1].min() <= found[1].max() < 1
