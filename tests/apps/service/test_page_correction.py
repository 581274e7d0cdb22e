"""Correcting a mask by hand: what is drawn is saved, at the position where it was drawn."""

from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from helpers.browser import AXIAL, SliceOnScreen, Tab
from helpers.served_results import (
    download,
    is_same_foreground,
    nifti_image,
    slice_numbers,
    view_slices,
)
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Route

DIAMETER_MM = 20


@pytest.fixture(scope="module")
def turned_job(server: Server, scan_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of an oblique scan whose file runs from head to feet, with its axes in another order."""
    turned = nib.Nifti1Image.from_filename(scan_file).as_reoriented(np.array([[1, -1], [2, -1], [0, 1]]))
    path = tmp_path_factory.mktemp("turned") / "turned.nii.gz"
    nib.save(turned, path)
    return str(server.wait_for_job(server.post(path).json()["id"])["id"])


def disc(geometry: SliceOnScreen, row: int, column: int) -> NDArray[np.bool_]:
    """The voxels that a round brush covers."""
    rows, columns = np.indices(geometry.size)
    dy, dx = geometry.spacing_mm
    return np.asarray(((rows - row) * dy) ** 2 + ((columns - column) * dx) ** 2 <= (DIAMETER_MM / 2) ** 2)


def lesion_pixels(tab: Tab) -> int:
    """Return how many pixels have the colour of lesions."""
    image = tab.screenshot()
    return int((image[:, :, 0] - image[:, :, 2] > 50).sum())


def start_correcting(tab: Tab) -> tuple[float, float, tuple[int, int]]:
    """Start the correction; return the (left, top) of the canvas and its size along (y, x)."""
    tab.page.click("text=Correct the mask")
    tab.page.fill("#brush", str(DIAMETER_MM))
    tab.page.focus(AXIAL)
    tab.page.evaluate("() => scrollTo(0, 0)")
    box = tab.page.locator(AXIAL).bounding_box()
    assert box is not None
    return box["x"], box["y"], (round(box["height"]), round(box["width"]))


def middle_of(tab: Tab) -> tuple[float, float]:
    """Return the (x, y) of the middle of the axial slice."""
    box = tab.page.locator(AXIAL).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def yellow_pixels(tab: Tab) -> int:
    """Return how many pixels have the colour of measurements."""
    return int((np.abs(tab.screenshot() - np.array([255, 226, 122])).max(axis=2) < 40).sum())


def correct_with_own_mask(server: Server, job: str) -> str:
    """Send the mask of a job as a correction of it, and return the id of the new job once it is done."""
    mask = nifti_image(server, f"{job}/view/lesions.nii.gz").to_bytes()
    with server.client() as client:
        corrected = client.post(f"/api/jobs/{job}/corrections", content=mask).raise_for_status().json()["id"]
    server.wait_for_job(corrected)
    return str(corrected)


def test_strokes_are_saved_where_they_were_drawn(tab: Tab, server: Server, turned_job: str) -> None:
    before, spacing_mm = view_slices(server, turned_job, "lesions")
    z = int(np.argmax((before > 0).sum(axis=(1, 2))))
    page = tab.open(turned_job)
    tab.wait_until_shown(turned_job)
    left, top, canvas = start_correcting(tab)
    tab.go_to(slice_numbers(server, turned_job)[z])
    geometry = SliceOnScreen(before.shape[1:], spacing_mm, canvas)
    row, column = (int(n) for n in np.argwhere(before[z])[0])
    expected = before > 0
    for mode, at in (("add", (60, 55)), ("erase", (row, column)), ("add", (100, 130))):
        page.click(f"label[for=brush-{mode}]")
        x, y = geometry.pixel(*at)
        page.mouse.click(left + x, top + y)
        covered = disc(geometry, *at)
        expected[z] = expected[z] | covered if mode == "add" else expected[z] & ~covered
    page.click("[aria-label=Undo]")
    expected[z] ^= disc(geometry, 100, 130) & ~(before[z] > 0)
    page.click("[aria-label='Save correction']")
    page.fill("#scan-label", "corrected by A. B.")
    page.fill("#scan-note", "vessels removed")
    page.click("dialog button.primary")
    page.wait_for_url(lambda address: not address.endswith(turned_job))
    corrected = tab.wait_until_shown(page.url[-32:])
    job = server.job(corrected)
    assert (job["corrects"], job["label"], job["note"]) == (turned_job, "corrected by A. B.", "vessels removed")
    assert "vessels removed" in page.inner_text(".job-head")
    assert (expected != (before > 0)).sum() > 50
    after, _ = view_slices(server, corrected, "lesions")
    np.testing.assert_array_equal(after > 0, expected)

    kept = nifti_image(server, f"{turned_job}/files/lesions.nii.gz")
    saved = nifti_image(server, f"{corrected}/files/lesions.nii.gz")
    assert saved.shape == kept.shape
    np.testing.assert_allclose(saved.affine, kept.affine, atol=1e-4)
    assert is_same_foreground(saved, nifti_image(server, f"{corrected}/view/lesions.nii.gz"))
    assert not is_same_foreground(saved, kept)

    assert "corrected by hand" in page.inner_text(".facts .warnings")
    page.click("text=see the original")
    tab.wait_until_shown(turned_job)
    assert page.url.endswith(turned_job)


def test_the_brush_works_with_the_keyboard(shown: Tab, server: Server, done: str) -> None:
    page = shown.page
    page.focus("text=Correct the mask")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.tagName") == "CANVAS"
    page.fill("#brush", "30")
    page.focus(AXIAL)
    saving = page.get_by_role("button", name="Save correction")
    assert saving.is_disabled()
    before = shown.screenshot()
    page.keyboard.press("e")
    assert page.is_checked("#brush-erase")
    page.keyboard.press(" ")  # at the middle of the largest lesion
    assert page.inner_text("#announcer").startswith("erased: +0.00 ml, −")
    assert saving.is_enabled()
    assert (np.abs(shown.screenshot() - before).max(axis=2) > 20).sum() > 100
    for key in ("Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowUp", "Shift+ArrowUp", "PageUp", "a", " "):
        page.keyboard.press(key)
    assert page.is_checked("#brush-add")
    assert page.inner_text("#announcer").startswith("painted: +")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert saving.is_disabled()
    page.keyboard.press("Control+y")
    assert saving.is_enabled()
    page.keyboard.press("Control+z")


@pytest.mark.parametrize(("plane", "key", "slices"), [("coronal", "ArrowUp", 1), ("sagittal", "PageUp", 0)])
def test_keys_draw_in_the_plane_that_is_shown(shown: Tab, plane: str, key: str, slices: int) -> None:
    page = shown.page
    page.click(f"label[for=layout-{plane}]")
    page.focus("text=Correct the mask")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.closest('.pane')?.dataset.plane") == plane
    page.keyboard.press("e")
    page.fill("#brush", "30")
    page.focus(f"[data-plane={plane}] canvas")
    before, at = shown.screenshot(), shown.slice_shown()
    page.keyboard.press(" ")
    assert (np.abs(shown.screenshot() - before).max(axis=2) > 20).sum() > 100  # a disc, not the edge of an axial one
    page.keyboard.press(key)
    assert shown.slice_shown() == at + slices
    page.keyboard.press("Control+z")


def test_the_focus_stays_at_buttons_that_a_step_disables(shown: Tab) -> None:
    page = shown.page
    start_correcting(shown)
    page.keyboard.press("e")
    page.keyboard.press(" ")
    page.focus("[aria-label=Undo]")
    for reached in ("Redo", "Undo"):
        page.keyboard.press("Enter")
        shown.wait_for_frame()
        assert page.evaluate("() => document.activeElement.ariaLabel") == reached
    page.keyboard.press("Enter")


def test_a_fast_stroke_has_no_gaps(shown: Tab) -> None:
    page = shown.page
    page.fill("#opacity", "100")
    left, top, (height, width) = start_correcting(shown)
    before = shown.screenshot()
    page.mouse.move(left + width * 0.45, top + height * 0.3)
    page.mouse.down()
    page.mouse.move(left + width * 0.55, top + height * 0.3)  # a single jump of a fast pointer
    page.mouse.up()
    page.mouse.move(left + 5, top + 5)
    new = np.abs(shown.screenshot() - before).max(axis=2)[
        round(height * 0.3), round(width * 0.45) : round(width * 0.55)
    ]
    assert (new > 20).mean() > 0.9
    page.click("[aria-label=Undo]")
    page.click("text=Leave")


def test_the_page_asks_before_it_discards_unsaved_strokes(shown: Tab, server: Server, done: str) -> None:
    page = shown.page
    before = lesion_pixels(shown)
    start_correcting(shown)
    page.keyboard.press(" ")
    page.keyboard.press("Shift+ArrowUp")
    page.keyboard.press(" ")
    page.click("text=New scan")
    assert "not saved" in page.inner_text("dialog")
    page.keyboard.press("Escape")
    assert page.url.endswith(done)
    dialogs = shown.stay_when_closing()
    assert dialogs == ["beforeunload"]
    page.click("text=Leave")
    page.click("dialog button.danger")
    page.wait_for_selector("text=Correct the mask")
    assert lesion_pixels(shown) == pytest.approx(before, rel=0.03)  # as it was loaded, but for the crosshair
    page.click("text=New scan")
    page.wait_for_selector(".welcome")


def test_a_correction_that_cannot_be_saved_stays_on_the_page(shown: Tab) -> None:
    page = shown.page
    start_correcting(shown)
    page.keyboard.press("e")
    page.keyboard.press(" ")
    full = '{"detail": "the queue is full"}'
    page.route("**/corrections", lambda route: route.fulfill(status=429, body=full, headers={"Retry-After": "9"}))
    page.click("[aria-label='Save correction']")
    page.click("dialog button.primary")
    page.wait_for_selector("text=Not saved. The queue is full.")
    assert page.get_by_role("button", name="Save correction").is_enabled()
    assert page.evaluate("() => document.activeElement.ariaLabel") == "Save correction"
    assert "429" in shown.errors.pop()  # logged by the browser itself


def test_a_correction_whose_name_cannot_be_saved_is_saved_once_and_its_name_asked_for_again(
    shown: Tab, server: Server
) -> None:
    page, failures = shown.page, ['{"detail": "the database is in use"}']

    def fail_once(route: "Route") -> None:
        if route.request.method == "PATCH" and failures:
            route.fulfill(status=503, body=failures.pop())
        else:
            route.continue_()

    with server.client() as client:
        before = {job["id"] for job in client.get("/api/jobs").json()}
    page.route("**/api/jobs/*", fail_once)
    start_correcting(shown)
    page.keyboard.press("e")
    page.keyboard.press(" ")
    page.click("[aria-label='Save correction']")
    page.fill("#scan-note", "by A. B.")
    page.click("dialog button.primary")
    page.wait_for_selector("text=The mask itself is saved. The database is in use.")
    page.click("dialog button.primary")
    page.wait_for_selector(".job-head >> text=by A. B.")
    with server.client() as client:
        (saved,) = (job for job in client.get("/api/jobs").json() if job["id"] not in before)
    assert (page.url[-32:], saved["note"]) == (saved["id"], "by A. B.")
    assert "503" in shown.errors.pop()  # logged by the browser itself


def test_nothing_is_drawn_while_a_correction_is_sent(shown: Tab, done: str) -> None:
    page = shown.page
    held: list[Route] = []
    page.route("**/corrections", lambda route: held.append(route))
    start_correcting(shown)
    page.keyboard.press("e")
    page.keyboard.press(" ")
    changed = page.inner_text(".changed")
    page.click("[aria-label='Save correction']")
    with page.expect_request("**/corrections"):
        page.click("dialog button.primary")
    page.focus(AXIAL)
    for key in ("a", "Shift+ArrowUp", "Shift+ArrowUp", " ", "Control+z"):
        page.keyboard.press(key)
    page.mouse.click(*middle_of(shown))
    page.click("text=Fill between")
    assert page.inner_text(".changed") == changed
    assert page.get_by_role("button", name="Save correction").is_disabled()
    page.click("text=New scan")
    page.wait_for_selector("text=The correction is being sent.")
    assert page.locator("dialog").count() == 0
    assert page.url.endswith(done)
    held.pop().continue_()
    page.wait_for_url(lambda address: not address.endswith(done))
    shown.wait_until_shown(page.url[-32:])


def test_a_scan_that_was_renamed_does_not_get_its_old_name_back(
    tab: Tab, server: Server, scan_file: Path, tmp_path: Path
) -> None:
    job = str(server.wait_for_job(server.post(scan_file).json()["id"])["id"])
    page = tab.open(job)
    tab.wait_until_shown(job)
    for name in ("patient 6", "patient 7"):
        page.click("text=Name and note")
        page.fill("#scan-label", name)
        page.click("dialog button.primary")
        page.wait_for_selector(f".job-head h1 >> text={name}")
        assert page.title() == f"{name} - groundglass"
    start_correcting(tab)
    page.keyboard.press("e")
    page.keyboard.press(" ")
    page.click("[aria-label='Save correction']")
    assert page.input_value("#scan-label") == "patient 7"
    page.keyboard.press("Escape")
    page.click("[aria-label=Undo]")
    page.click("text=Leave")
    (tmp_path / "mask.nii").write_bytes(nifti_image(server, f"{job}/view/lesions.nii.gz").to_bytes())
    page.set_input_files("#open-mask", tmp_path / "mask.nii")
    page.wait_for_url(lambda address: not address.endswith(job))
    opened = server.wait_for_job(tab.wait_until_shown(page.url[-32:]))
    assert (opened["label"], opened["note"]) == ("patient 7", "mask mask.nii")


def test_a_zoomed_slice_stays_where_it_is_when_another_mask_of_the_scan_is_shown(
    shown: Tab, server: Server, done: str
) -> None:
    corrected = correct_with_own_mask(server, done)
    page = shown.page
    for _ in range(6):
        page.click("[aria-label='Zoom in']")
    page.click("label[for=tool-pan]")
    x, y = middle_of(shown)
    for _ in range(2):  # the crosshair leaves the picture to the left
        page.mouse.move(x + 100, y)
        page.mouse.down()
        page.mouse.move(x - 200, y, steps=3)
        page.mouse.up()
    page.mouse.move(0, 0)
    before = shown.screenshot()
    page.goto(f"{shown.url}/#{corrected}")
    shown.wait_until_shown(corrected)
    assert np.abs(shown.screenshot() - before).mean() < 1


def test_measurements_of_a_scan_are_there_again_whatever_was_shown_between(
    shown: Tab, server: Server, done: str, turned_job: str
) -> None:
    mask = nifti_image(server, f"{done}/view/lesions.nii.gz").to_bytes()
    ids = [done]
    for _ in range(2):  # a correction, and a correction of it
        with server.client() as client:
            ids.append(client.post(f"/api/jobs/{ids[-1]}/corrections", content=mask).raise_for_status().json()["id"])
        server.wait_for_job(ids[-1])
    page = shown.page
    page.reload()
    shown.wait_until_shown(done)
    without = yellow_pixels(shown)

    def show(job: str) -> int:
        page.goto(f"{shown.url}/#{job}")
        shown.wait_until_shown(job)
        return yellow_pixels(shown)

    show(ids[1])
    page.click("label[for=tool-ruler]")
    x, y = middle_of(shown)
    page.mouse.move(x - 100, y - 80)
    page.mouse.down()
    page.mouse.move(x + 100, y - 80, steps=3)
    page.mouse.up()
    assert show(turned_job) < without + 50
    for job in (done, ids[1], turned_job, ids[2], done):
        assert (show(job) > without + 50) == (job != turned_job)


@pytest.mark.slow  # alone it states nothing: the corrections are those of the tests before it
def test_a_correction_does_not_change_the_original_job(server: Server, turned_job: str) -> None:
    assert server.job(turned_job)["corrects"] is None
    assert b"corrected by hand" not in download(server, f"{turned_job}/findings")


def test_a_reader_stays_where_she_was_when_another_mask_of_the_scan_is_shown(
    shown: Tab, server: Server, done: str
) -> None:
    corrected = correct_with_own_mask(server, done)
    page = shown.page
    opened_at = shown.slice_shown()
    shown.go_to(opened_at - 4)
    page.select_option("#window", "bone")
    page.click("label[for=tool-ruler]")
    box = page.locator(AXIAL).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 300, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 220, steps=3)
    page.mouse.up()
    page.click("[aria-label='Zoom in']")

    page.goto(f"{shown.url}/#{corrected}")
    shown.wait_until_shown(corrected)
    assert shown.slice_shown() == opened_at - 4
    assert page.input_value("#window") == "bone"
    yellow = np.abs(shown.screenshot() - np.array([255, 226, 122])).max(axis=2) < 40
    assert yellow.sum() > 60  # the ruler
    page.click("[aria-label='Remove the measurements']")
    page.click("text=see the original")
    shown.wait_until_shown(done)
    assert shown.slice_shown() == opened_at - 4
    assert page.evaluate("() => sessionStorage.length") == 0  # measurements are of the scan, whatever mask is shown

    page.goto(f"{shown.url}/#{corrected}:{done}")
    page.wait_for_selector(f"[data-ready='{corrected}:{done}']")
    assert sorted("by hand" in words for words in page.locator(".side-scan header").all_inner_texts()) == [False, True]
    page.goto(f"{shown.url}/#{done}")
    shown.wait_until_shown(done)
    assert shown.slice_shown() == opened_at  # after two scans were compared it opens as ever
