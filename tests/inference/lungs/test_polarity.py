"""Grey levels that are bright where CT is dark."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from numpy.typing import NDArray

from groundglass.errors import IntensityError, LungError
from groundglass.inference.lungs.finding import find_lungs
from groundglass.inference.lungs.network import INSIDE, LungMaps, LungNetwork, open_lung_network
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.cases import sample
from helpers.chests import axial, pictures
from helpers.windows import WINDOWS, grey_levels


class Counting(LungNetwork):
    """The lung network, counting the slices on its own grid that it is given as negatives, and all others."""

    def __init__(self) -> None:
        self.negatives = self.others = 0
        self.threads = 1

    def maps(self, slices: Iterable[NDArray[Any]], limits: tuple[float, float] | None) -> Iterator[LungMaps]:
        planes = list(slices)
        self.negatives += sum(plane.shape == (INSIDE, INSIDE) and plane.max() <= 0 for plane in planes)
        self.others += sum(plane.max() > 0 for plane in planes)
        return open_lung_network().maps(planes, limits)


@pytest.mark.parametrize(("low", "high"), sample(WINDOWS, every=3))
def test_inverted_pictures_are_refused(upright: Phantom, low: int, high: int) -> None:
    hu = axial(upright).values
    with pytest.raises((IntensityError, LungError), match=r"grey levels seem to be inverted|no lung was found"):
        find_lungs(pictures(255 - grey_levels(hu[14], low, high)))


@pytest.mark.thorough
def test_of_a_volume_the_negative_of_a_few_slices_is_looked_at_as_the_network_saw_them(phantom: Phantom) -> None:
    network = Counting()
    find_lungs(Scan(grey_levels(phantom.scan.values), phantom.scan.geometry), network=network)
    assert 5 <= network.negatives <= 8
    assert network.others > 32
