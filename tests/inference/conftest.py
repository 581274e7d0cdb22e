"""A chest whose grid is upright already."""

import pytest

from groundglass.scan.phantom import Phantom, chest_phantom


@pytest.fixture(scope="session")
def upright() -> Phantom:
    """A chest whose grid is upright already."""
    return chest_phantom(3, shape=(32, 144, 190), oblique=False)
