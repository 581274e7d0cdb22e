"""The page, from a dropped scan to its result."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from groundglass.io import nifti
from groundglass.report.amounts import format_ml
from groundglass.scan.intensity import LUNG_WINDOW, Window
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.browser import AXIAL, SCAN_LIMIT_MS, SliceOnScreen, Tab
from helpers.dicom_phantom import write_series
from helpers.served_results import download, slice_numbers, view_slices
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Route

# Holds each array of HU so that it may be freed, and counts those that are there.
SCANS_HELD = """() => {
  const held = [];
  window.Int16Array = new Proxy(Int16Array, {
    construct(made, values) {
      const array = new made(...values);
      if (values[0] instanceof ArrayBuffer) held.push(new WeakRef(array));
      return array;
    },
  });
  window.scansHeld = () => held.filter((each) => each.deref()).length;
}"""
NO_WEBGL = """() => {
  const original = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
    return kind.startsWith("webgl") ? null : original.call(this, kind, ...rest);
  };
}"""


def test_the_start_screen_shows_the_limits(tab: Tab) -> None:
    page = tab.open()
    assert page.locator("h1").count() == 1
    assert "Up to 2.1 GB, 5,000 files and 3,000 slices per scan. Results are kept for 7 days." in page.inner_text(
        "#limits"
    )
    assert "not a medical device" in page.inner_text("header")


def test_a_dropped_scan_is_followed_to_its_result(tab: Tab, server: Server, scan_file: Path) -> None:
    page = tab.open()
    tab.drop(scan_file)
    job = tab.wait_until_shown()
    findings = json.loads(download(server, f"{job}/findings"))
    facts = page.inner_text(".facts")
    for value in (findings["lesion_volume_ml"], findings["right_lung"]["lesion_volume_ml"]):
        assert format_ml(value) in facts
    assert f"{findings['lesion_share_of_lung_percent']:.1f}" in facts
    assert page.inner_text("h1") == "ct.nii.gz"
    assert page.title() == "ct.nii.gz - groundglass"
    page.reload()
    assert tab.wait_until_shown() == job
    assert page.inner_text(".facts") == facts


def test_the_lesion_is_drawn_at_its_position(shown: Tab, server: Server, done: str) -> None:
    mask, spacing_mm = view_slices(server, done, "lesions")
    z = int(np.argmax(mask.any(axis=2).sum(axis=1)))
    shown.go_to(slice_numbers(server, done)[z])
    shown.page.uncheck("#contour")
    shown.page.fill("#opacity", "80")
    over = shown.screenshot()
    shown.page.uncheck("#lesion")
    under = shown.screenshot()
    expected = SliceOnScreen(mask.shape[1:], spacing_mm, over.shape[:2]).resample(mask[z]) > 0
    drawn = np.abs(over - under).max(axis=2) > 20
    assert expected.sum() > 500
    assert (
        2 * (drawn & expected).sum() / (drawn.sum() + expected.sum()) > 0.9
    )  # speckles: a pixel of rim is much of them
    red, _, blue = over[drawn].mean(axis=0)
    assert red > blue + 60
    red, _, blue = under[drawn].mean(axis=0)
    assert abs(red - blue) < 12
    shown.page.check("#lesion")
    shown.page.check("#contour")
    shown.page.fill("#opacity", "0")
    line = np.abs(shown.screenshot() - under).max(axis=2) > 20
    assert line.sum() > 100
    rim = ndimage.binary_dilation(drawn, iterations=2) & ~ndimage.binary_erosion(drawn, iterations=3)
    assert (line & rim).sum() > 0.95 * line.sum()


def test_a_scan_is_not_shown_with_the_image_of_the_one_before(
    shown: Tab, server: Server, done: str, tmp_path: Path
) -> None:
    nifti.write_scan(chest_phantom(1, (32, 144, 190)).scan, tmp_path / "other.nii.gz")  # of the same size
    other = server.wait_for_job(server.post(tmp_path / "other.nii.gz").json()["id"])["id"]
    shown.open(other)
    shown.wait_until_shown(other)
    shown.page.uncheck("#lesion")  # stays so: what differs is the scan
    alone, slice_number = shown.screenshot(), shown.slice_shown()
    shown.page.evaluate(f"location.hash = '{done}'")
    shown.wait_until_shown(done)
    shown.go_to(slice_number)
    before = shown.screenshot()
    shown.page.evaluate(f"location.hash = '{other}'")
    shown.wait_until_shown(other)
    assert shown.slice_shown() == slice_number
    assert np.abs(shown.screenshot() - alone).mean() < 0.5 < 1 < np.abs(before - alone).mean()


@pytest.mark.parametrize("webgl", [True, False], ids=["webgl", "no webgl"])
def test_a_scan_is_freed_before_the_next_one_is_loaded(tab: Tab, server: Server, done: str, webgl: bool) -> None:
    with server.client() as client:
        mask = download(server, f"{done}/view/lesions.nii.gz")
        other = client.post(f"/api/jobs/{done}/corrections", content=mask).raise_for_status().json()["id"]
    server.wait_for_job(other)
    page = tab.page
    page.add_init_script(f"({SCANS_HELD})()")
    if not webgl:
        page.add_init_script(f"({NO_WEBGL})()")
    tab.open(done)
    tab.wait_until_shown(done)
    page.click("label[for=layout-multiplanar]")
    tab.wait_for_frame()
    assert page.evaluate("scansHeld()") == 1
    held: list[Route] = []
    page.route("**/view/scan.nii", lambda route: held.append(route))
    with page.expect_request("**/view/scan.nii"):
        page.evaluate(f"location.hash = '{other}'")
    page.wait_for_timeout(1000)  # in which a surface is built at most
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    assert page.evaluate("scansHeld()") == 0
    held.pop().continue_()
    tab.wait_until_shown(other)


def assert_drawn_in_window(tab: Tab, server: Server, job: str, window: Window) -> None:
    """Compare the grey levels of the slice in the middle with the scan in an intensity window."""
    hu, spacing_mm = view_slices(server, job, "scan")
    z = len(hu) // 2
    tab.go_to(slice_numbers(server, job)[z])
    tab.page.uncheck("#lesion")
    image = tab.screenshot().mean(axis=2)
    geometry = SliceOnScreen(hu.shape[1:], spacing_mm, (image.shape[0], image.shape[1]))
    low, high = ndimage.minimum_filter(hu[z], 3), ndimage.maximum_filter(hu[z], 3)
    uniform = geometry.resample((high - low < 40) & (low > window.low_hu) & (high < window.high_hu)) > 0
    grey = geometry.resample(window.to_grey(hu[z].astype(np.float32)))
    assert uniform.mean() > 0.05
    assert np.median(np.abs(image - grey)[uniform]) < 3


def test_the_scan_is_drawn_in_the_lung_window_of_the_report(shown: Tab, server: Server, done: str) -> None:
    assert_drawn_in_window(shown, server, done, LUNG_WINDOW)


def test_the_lung_window_is_the_one_that_the_server_names(tab: Tab, server: Server, done: str) -> None:
    body = json.dumps({"lung_window": {"low_hu": -1500, "high_hu": 500}})
    tab.page.route("**/api/display", lambda route: route.fulfill(body=body, content_type="application/json"))
    tab.open(done)
    tab.wait_until_shown(done)
    assert_drawn_in_window(tab, server, done, Window(-1500, 500))


@pytest.mark.slow
def test_windows_and_layouts_change_the_image(shown: Tab) -> None:
    lung = shown.screenshot()
    shown.page.select_option("#window", "mediastinum")
    mediastinum = shown.screenshot()
    assert mediastinum.mean() < lung.mean() - 10
    shown.page.select_option("#window", "lung")
    assert np.abs(shown.screenshot() - lung).mean() < 1
    for layout in ("multiplanar", "3d"):
        shown.page.click(f"label[for=layout-{layout}]")
        shown.page.wait_for_selector("text=Drag to turn", timeout=SCAN_LIMIT_MS)
        assert np.abs(shown.screenshot() - lung).mean() > 5
        assert shown.screenshot().max() > 100
    shown.page.click("label[for=layout-axial]")
    assert np.abs(shown.screenshot() - lung).mean() < 1


def test_lesions_and_profile_are_links_to_slices(shown: Tab, server: Server, done: str) -> None:
    findings = json.loads(download(server, f"{done}/findings"))
    largest = findings["largest_lesions"]
    assert 1 < shown.page.locator(".lesions .jump").count() == len(largest) <= findings["lesion_count"]
    for i in (1, 0):
        shown.page.locator(".lesions .jump").nth(i).click()
        assert shown.slice_shown() == largest[i]["slice"]
        number = findings["input"]["image_numbers"][shown.slice_shown()]
        assert f"image {number} of {findings['slices']}: lesion" in shown.page.inner_text(".slice-text")
    shown.page.click(".lesions button.sort >> text=Image")
    images = [int(row.split("\t")[-1]) for row in shown.page.locator(".lesions tbody tr").all_inner_texts()]
    assert images == sorted(findings["input"]["image_numbers"][lesion["slice"]] for lesion in largest)
    shown.page.locator(".lesions .jump").first.click()
    box = shown.page.locator(".profile").bounding_box()
    assert box is not None
    left, right = 52, 10  # beside the axis
    shown.page.mouse.click(box["x"] + (left + box["width"] - right) / 2, box["y"] + box["height"] / 2)
    assert abs(shown.slice_shown() - findings["slices"] / 2) < 2
    before = shown.slice_shown()
    for key, step in (("ArrowRight", 1), ("ArrowLeft", -1), ("PageUp", 10), ("PageDown", -10)):
        shown.page.keyboard.press(key)
        assert shown.slice_shown() == before + step
        before += step
        assert shown.page.get_attribute(".profile", "aria-valuenow") == str(before)


def test_the_chart_names_the_ends_of_the_body_only_where_the_file_states_them(tab: Tab, done: str) -> None:
    def forget_directions(route: "Route") -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "has_directions": False})

    page = tab.open(done)
    tab.wait_until_shown(done)
    assert "feet" in (page.text_content(".profile") or "")
    page.route("**/view/slices.json", forget_directions)
    page.reload()
    tab.wait_until_shown(done)
    text = page.text_content(".profile") or ""
    assert "image" in text
    assert not {"feet", "head"} & set(re.findall("[a-z]+", text))


def test_downloads_are_the_result_files(shown: Tab, server: Server, done: str) -> None:
    names = [file["name"] for file in server.job(done)["files"]]
    links = shown.page.locator(".downloads a[download]")
    saved = {}
    for link in links.all():
        with shown.page.expect_download() as started:
            link.click()
        saved[started.value.suggested_filename] = Path(started.value.path()).read_bytes()
    assert next(iter(saved)) == "ct-report.html"
    assert saved == {f"ct-{name}": download(server, f"{done}/files/{name}?download=1") for name in names}


@pytest.mark.slow
def test_a_dropped_dicom_folder_is_one_scan(tab: Tab, server: Server, phantom: Phantom, tmp_path: Path) -> None:
    write_series(phantom.scan, tmp_path / "study" / "series")
    (tmp_path / "study" / ".hidden").write_text("a file of the file manager")
    page = tab.open()
    tab.drop(tmp_path / "study")
    job = tab.wait_until_shown()
    assert server.job(job)["label"] == page.inner_text("h1") == "study"
    assert "Mask, DICOM SEG" in page.inner_text(".downloads")
    page.goto(f"{tab.url}/#")
    page.set_input_files("#choose-folder", tmp_path / "study")
    page.wait_for_url(lambda address: "#" in address and not address.endswith(("#", job)))
    assert tab.wait_until_shown() != job


def test_values_that_an_image_cannot_give_are_unknown(tab: Tab, phantom: Phantom, tmp_path: Path) -> None:
    plane = phantom.scan.values[12].astype(float)
    grey = Image.fromarray((np.clip((plane + 1250) / 1500, 0, 1) * 255).astype(np.uint8))
    grey.save(tmp_path / "slice.png")
    page = tab.open()
    tab.drop(tmp_path / "slice.png")
    tab.wait_until_shown()
    facts = page.inner_text(".facts")
    assert re.search("Unknown: a picture states no spacing", facts)
    assert "lesion ml" in facts  # the note names it; a large "unknown" beside the share would say no more
    assert page.locator(".figure strong").count() == 1
    assert not page.is_visible("#slice")  # there is one image alone
    assert not page.is_visible(".profile")
    assert "Zones unknown: " in facts
    assert "HU are estimated" in page.inner_text(".warnings >> visible=true")
    assert not page.is_visible("label[for=layout-3d]")


def test_a_double_click_does_not_make_a_volume_of_single_images(tab: Tab, phantom: Phantom, tmp_path: Path) -> None:
    for z in (12, 20):
        grey = np.clip((phantom.scan.values[z].astype(float) + 1250) / 1500, 0, 1) * 255
        Image.fromarray(grey.astype(np.uint8)).save(tmp_path / f"{z}.png")
    page = tab.open()
    tab.drop(tmp_path / "12.png", tmp_path / "20.png")
    tab.wait_until_shown()
    page.dblclick(AXIAL)
    assert page.get_attribute(".panes", "data-layout") == "axial"


def test_a_file_that_is_not_a_scan_is_refused_with_a_reason(tab: Tab, tmp_path: Path) -> None:
    (tmp_path / "letter.nii.gz").write_bytes(b"Dear colleague, " * 100)
    page = tab.open()
    tab.drop(tmp_path / "letter.nii.gz")
    page.wait_for_selector(".job .refused")
    assert len(page.inner_text(".job .refused")) > 20
    assert "Traceback" not in page.inner_text("main")


@pytest.mark.slow
def test_deleting_asks_for_confirmation(tab: Tab, server: Server, scan_file: Path) -> None:
    job = server.wait_for_job(server.post(scan_file).json()["id"])["id"]
    page = tab.open(job)
    tab.wait_until_shown(job)
    page.click(".job-head >> text=Delete")
    page.keyboard.press("Escape")
    assert server.job(job)["status"] == "done"
    page.click(".job-head >> text=Delete")
    page.click("dialog button.danger")
    page.wait_for_selector(".welcome")
    with server.client() as client:
        assert client.get(f"/api/jobs/{job}").status_code == 404
    page.go_back()
    page.wait_for_selector("text=No such scan")
    assert "404" in tab.errors.pop()  # logged by the browser itself


@pytest.mark.slow
def test_the_focus_goes_to_the_next_scan_when_one_is_deleted_from_the_list(
    tab: Tab, server: Server, scan_file: Path
) -> None:
    jobs = [str(server.wait_for_job(server.post(scan_file).json()["id"])["id"]) for _ in range(3)]  # newest first
    page = tab.open()
    page.focus(f"[data-key='delete-{jobs[1]}']")
    page.keyboard.press("Enter")
    page.focus("dialog .danger")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"[data-key='delete-{jobs[1]}']", state="detached")
    assert page.evaluate("() => document.activeElement.dataset.key") == f"delete-{jobs[0]}"


@pytest.mark.slow
def test_several_scans_are_sent_one_after_another(tab: Tab, server: Server, tmp_path: Path) -> None:
    scan = chest_phantom(shape=(20, 96, 128)).scan
    for name in ("first.nii.gz", "second.nii.gz"):
        nifti.write_scan(scan, tmp_path / name)
    page = tab.open()
    tab.drop(tmp_path / "first.nii.gz", tmp_path / "second.nii.gz")
    tab.wait_until_shown()
    page.locator(".jobs .dot.done").nth(1).wait_for(timeout=SCAN_LIMIT_MS)
    names = page.locator(".jobs .name").all_inner_texts()
    assert names[:2] == ["second.nii.gz", "first.nii.gz"]


def test_letters_of_the_sides_are_read_on_white_tissue(shown: Tab) -> None:
    page = shown.page
    page.click("label[for=layout-coronal]")
    for _ in range(4):
        page.click("[aria-label='Zoom in']")
    box = page.locator(".panes").bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + box["height"] - 20)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + 10, steps=4)  # a level at which all is white
    page.mouse.up()
    page.mouse.move(0, 0)
    image = shown.screenshot().max(axis=2)
    assert np.median(image) > 200
    height, width = image.shape
    for y, x in ((height // 2, 14), (height // 2, width - 15), (15, width // 2), (height - 16, width // 2)):
        assert (image[y - 7 : y + 7, x - 6 : x + 6] < 140).mean() > 0.4, (y, x)
