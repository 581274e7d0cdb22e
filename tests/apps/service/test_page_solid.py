"""The 3-D view: what ground-glass encloses is seen through it; wheel, fingers and keys zoom."""

import gzip
import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from helpers.browser import Tab
from helpers.served_results import download, nifti_image
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

SOLID = ".pane[data-plane='3d']"


def show_solid(tab: Tab, job: str) -> "Page":
    """Open the 3-D view of a job, and wait until its surfaces are built."""
    page = tab.open(job)
    tab.wait_until_shown(job)
    page.locator("input[name=layout][value='3d']").dispatch_event("click")
    page.wait_for_selector(f"{SOLID} .hud:text('Drag to turn')")
    return page


def enclose(lesion: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a mask of two classes: 2 within the lesions, with 1 on all sides of it."""
    return (lesion > 0).astype(np.uint8) + ndimage.binary_erosion(lesion > 0, iterations=2).astype(np.uint8)


def coloured(picture: NDArray[np.int16]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where a picture shows a lesion, and where it shows the red of consolidation."""
    red, green, blue = np.moveaxis(picture[8:-8, 8:-8], 2, 0)  # without the mark of the focus
    lesion = (red > 90) & (red - blue > 35)
    return lesion, lesion & (green < 0.45 * red)


def test_consolidation_is_seen_through_the_ground_glass_that_encloses_it(tab: Tab, server: Server, done: str) -> None:
    image = nifti_image(server, f"{done}/view/lesions.nii.gz")
    mask = enclose(np.asarray(image.dataobj, dtype=np.uint8))
    assert (mask == 2).sum() > 100
    content = gzip.compress(nib.Nifti1Image(mask, image.affine, image.header).to_bytes())
    view = json.loads(download(server, f"{done}/view/slices.json")) | {"classes": ["ground-glass", "consolidation"]}
    tab.page.route("**/view/lesions.nii.gz", lambda route: route.fulfill(body=content))
    tab.page.route("**/view/slices.json", lambda route: route.fulfill(json=view))
    page = show_solid(tab, done)
    lesion, consolidation = coloured(tab.screenshot())
    assert 0.01 < consolidation.sum() / lesion.sum() < 0.9
    page.uncheck("#lesion")
    assert not coloured(tab.screenshot())[0].any()


def test_wheel_and_keys_zoom_the_3d_view(tab: Tab, done: str) -> None:
    page = show_solid(tab, done)
    start = int(coloured(tab.screenshot())[0].sum())
    page.locator(f"{SOLID} canvas").hover()
    page.mouse.wheel(0, -300)
    nearer = int(coloured(tab.screenshot())[0].sum())
    assert nearer > 1.5 * start
    page.locator(f"{SOLID} canvas").focus()
    page.keyboard.press("-")
    page.keyboard.press("-")
    assert int(coloured(tab.screenshot())[0].sum()) < nearer
    page.keyboard.press("0")
    assert abs(int(coloured(tab.screenshot())[0].sum()) - start) < 0.02 * start


def test_a_double_click_makes_the_3d_view_large_and_small_again(tab: Tab, done: str) -> None:
    page = show_solid(tab, done)
    for layout in ("multiplanar", "3d"):
        page.locator(f"{SOLID} canvas").dblclick()
        assert page.is_checked(f"input[name=layout][value='{layout}']")


def test_the_sides_are_named_as_the_3d_view_turns(tab: Tab, done: str) -> None:
    page = show_solid(tab, done)
    for edge, side in (("left", "R"), ("right", "L")):
        page.wait_for_selector(f"{SOLID} .at-{edge}:text('{side}')")
    box = page.locator(f"{SOLID} canvas").bounding_box()
    assert box is not None
    middle = round(box["width"] / 2)
    lesion = coloured(tab.screenshot())[0]
    right_lung = lesion[:, :middle].sum() / lesion.sum()
    page.locator(f"{SOLID} canvas").focus()
    for _ in range(18):  # half a turn
        page.keyboard.press("ArrowRight")
    for edge, side in (("left", "L"), ("right", "R")):
        page.wait_for_selector(f"{SOLID} .at-{edge}:text('{side}')")
    lesion = coloured(tab.screenshot())[0]
    assert lesion[:, middle:].sum() / lesion.sum() == pytest.approx(right_lung, abs=0.1)


@pytest.mark.slow
def test_the_3d_view_comes_back_after_the_graphics_card_has_forgotten_it(tab: Tab, done: str) -> None:
    page = show_solid(tab, done)
    before = tab.screenshot()
    page.evaluate(
        """async () => {
          const canvas = document.querySelector(".pane[data-plane='3d'] canvas");
          const extension = canvas.getContext("webgl2").getExtension("WEBGL_lose_context");
          extension.loseContext();
          await new Promise((done) => setTimeout(done, 200));
          extension.restoreContext();
          await new Promise((done) => setTimeout(done, 200));
        }"""
    )
    page.wait_for_function("() => !document.querySelector('.panes').textContent.includes('Building')")
    after = tab.screenshot()
    assert coloured(before)[0].sum() > 100
    assert abs(after - before).mean() < 0.3
    tab.errors[:] = [text for text in tab.errors if "CONTEXT_LOST" not in text]  # logged by the browser itself
