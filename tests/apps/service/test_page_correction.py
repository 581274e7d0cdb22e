"""Correcting a mask by hand: what is drawn is what is saved, where it was drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.browser import OnScreen, Tab
from helpers.served_results import get, image, lesions, places, slice_numbers
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Dialog

DIAMETER_MM = 20


@pytest.fixture(scope="module")
def turned_job(server: Server, scan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of an oblique scan whose file runs from head to feet, with its axes in another order."""
    turned = nib.Nifti1Image.from_filename(scan_file).as_reoriented(np.array([[1, -1], [2, -1], [0, 1]]))
    path = tmp_path_factory.mktemp("turned") / "turned.nii.gz"
    nib.save(turned, path)
    return str(server.over(server.post(path).json()["id"])["id"])


def disc(place: OnScreen, row: int, column: int) -> NDArray[np.bool_]:
    """What a round brush covers."""
    rows, columns = np.indices(place.size)
    dy, dx = place.spacing_mm
    return np.asarray(((rows - row) * dy) ** 2 + ((columns - column) * dx) ** 2 <= (DIAMETER_MM / 2) ** 2)


def begin(tab: Tab) -> tuple[float, float, tuple[int, int]]:
    """Take the brush; where the canvas is, and its size along (y, x)."""
    tab.page.click("text=Correct the mask")
    tab.page.fill("#brush", str(DIAMETER_MM))
    tab.page.focus(".stage canvas")
    tab.page.evaluate("() => scrollTo(0, 0)")
    box = tab.page.locator(".stage canvas").bounding_box()
    assert box is not None
    return box["x"], box["y"], (round(box["height"]), round(box["width"]))


def test_what_is_drawn_is_saved_where_it_was_drawn(tab: Tab, server: Server, turned_job: str) -> None:
    before, spacing_mm = lesions(server, turned_job)
    z = int(np.argmax((before > 0).sum(axis=(1, 2))))
    page = tab.open(turned_job)
    tab.ready(turned_job)
    left, top, canvas = begin(tab)
    tab.go_to(slice_numbers(server, turned_job)[z])
    place = OnScreen(before.shape[1:], spacing_mm, canvas)
    row, column = (int(n) for n in np.argwhere(before[z])[0])
    expected = before > 0
    for mode, at in (("add", (60, 55)), ("erase", (row, column)), ("add", (100, 130))):
        page.click(f"label[for=brush-{mode}]")
        x, y = place.pixel(*at)
        page.mouse.click(left + x, top + y)
        covered = disc(place, *at)
        expected[z] = expected[z] | covered if mode == "add" else expected[z] & ~covered
    page.click("text=Undo")
    expected[z] ^= disc(place, 100, 130) & ~(before[z] > 0)
    page.click("text=Save correction")
    page.wait_for_url(lambda address: not address.endswith(turned_job))
    corrected = tab.ready(page.url[-32:])
    assert server.job(corrected)["corrects"] == turned_job
    assert (expected != (before > 0)).sum() > 50
    after, _ = lesions(server, corrected)
    np.testing.assert_array_equal(after > 0, expected)

    kept = image(server, f"{turned_job}/files/lesions.nii.gz")
    saved = image(server, f"{corrected}/files/lesions.nii.gz")
    assert saved.shape == kept.shape
    np.testing.assert_allclose(saved.affine, kept.affine, atol=1e-4)
    assert places(saved) == places(image(server, f"{corrected}/view/lesions.nii.gz"))
    assert places(saved) != places(kept)

    assert "corrected by hand" in page.inner_text(".facts .warnings")
    page.click("text=see the original")
    tab.ready(turned_job)
    assert page.url.endswith(turned_job)


def test_the_brush_works_by_keys(shown: Tab, server: Server, done: str) -> None:
    page = shown.page
    page.focus("text=Correct the mask")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.tagName") == "CANVAS"
    page.fill("#brush", "30")
    page.focus(".stage canvas")
    saving = page.get_by_role("button", name="Save correction")
    assert saving.is_disabled()
    before = shown.scan()
    page.keyboard.press("e")
    assert page.is_checked("#brush-erase")
    page.keyboard.press(" ")  # at the middle of the largest lesion
    assert page.inner_text("#announcer") == "erased, stroke 1"
    assert saving.is_enabled()
    assert (np.abs(shown.scan() - before).max(axis=2) > 20).sum() > 100
    for key in ("Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowUp", "Shift+ArrowUp", "PageUp", "a", " "):
        page.keyboard.press(key)
    assert page.is_checked("#brush-add")
    assert page.inner_text("#announcer") == "painted, stroke 2"
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert saving.is_disabled()


def test_a_stroke_has_no_gaps_and_shows_at_once(shown: Tab) -> None:
    page = shown.page
    page.fill("#opacity", "100")
    left, top, (height, width) = begin(shown)
    before = shown.scan()
    page.mouse.move(left + width * 0.45, top + height * 0.3)
    page.mouse.down()
    page.mouse.move(left + width * 0.55, top + height * 0.3)  # a single jump of a hurried hand
    page.mouse.up()
    page.mouse.move(left + 5, top + 5)
    new = np.abs(shown.scan() - before).max(axis=2)[round(height * 0.3), round(width * 0.45) : round(width * 0.55)]
    assert (new > 20).mean() > 0.9
    page.click("text=Undo")
    page.click("text=Leave")


def test_unsaved_strokes_are_not_lost_without_asking(shown: Tab, server: Server, done: str) -> None:
    page = shown.page
    begin(shown)
    page.keyboard.press(" ")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press(" ")
    page.click("text=New scan")
    assert "not saved" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    assert page.url.endswith(done)
    asked: list[str] = []

    def stay(dialog: "Dialog") -> None:
        asked.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", stay)
    page.close(run_before_unload=True)
    page.wait_for_timeout(200)
    assert asked == ["beforeunload"]
    painted = shown.scan()[:, :, 0].mean()
    page.click("text=Leave")
    page.click("text=Throw it away")
    page.wait_for_selector("text=Correct the mask")
    assert shown.scan()[:, :, 0].mean() < painted  # drawn as it was
    page.click("text=New scan")
    page.wait_for_selector(".welcome")


def test_a_correction_that_cannot_be_saved_is_kept_on_the_page(shown: Tab) -> None:
    page = shown.page
    begin(shown)
    page.keyboard.press(" ")
    full = '{"detail": "the queue is full"}'
    page.route("**/corrections", lambda route: route.fulfill(status=429, body=full, headers={"Retry-After": "9"}))
    page.click("text=Save correction")
    page.wait_for_selector("text=Not saved. The queue is full.")
    assert page.get_by_role("button", name="Save correction").is_enabled()
    assert "429" in shown.complaints.pop()  # which the browser says itself


def test_the_original_stays_as_it_was(server: Server, turned_job: str) -> None:
    assert server.job(turned_job)["corrects"] is None
    assert b"corrected by hand" not in get(server, f"{turned_job}/findings")
