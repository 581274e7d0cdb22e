"""Two scans side by side: where they open, at which scale they are drawn, and that they go together."""

import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from groundglass.io import nifti
from groundglass.scan.phantom import Phantom, chest_phantom
from helpers.browser import AXIAL, Tab
from helpers.served_results import download
from helpers.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smaller(server: Server, phantom: Phantom, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A job of a scan whose field of view and slices are other ones than those of `done`."""
    path = tmp_path_factory.mktemp("smaller") / "smaller.nii.gz"
    depth, height, width = phantom.scan.values.shape
    shape = (depth // 2 + 3, height, width)
    nifti.write_scan(chest_phantom(seed=1, shape=shape, extent_mm=(200.0, 240.0, 316.0)).scan, path)
    return str(server.wait_for_job(server.post(path).json()["id"])["id"])


def compare(tab: Tab, one: str, other: str) -> None:
    tab.page.goto(f"{tab.url}/#{one}:{other}")
    tab.page.wait_for_selector(f"[data-ready='{one}:{other}']")
    tab.wait_for_frame()


def test_a_comparison_opens_at_the_slice_with_most_lesion_and_at_the_same_height_of_the_other_lungs(
    tab: Tab, server: Server, done: str, smaller: str
) -> None:
    compare(tab, done, smaller)
    names = tab.page.locator(".side-scan h2 a")
    shown = [
        text.split(" · ")[0]
        for text in tab.page.locator(".side-scan [data-plane=axial] .hud.bottom-left").all_inner_texts()
    ]
    jobs = [str(names.nth(i).get_attribute("href"))[1:] for i in (0, 1)]
    assert sorted(jobs) == sorted([done, smaller])
    shares = []
    for job, words in zip(jobs, shown, strict=True):
        findings = json.loads(download(server, f"{job}/findings"))
        slice_shown = findings["input"]["image_numbers"].index(int(words.split()[1]))
        lung = np.flatnonzero(findings["profile"]["lung"])
        shares.append((slice_shown - lung[0]) / (lung[-1] - lung[0]))
        last = findings, slice_shown
    findings, slice_shown = last  # the second of the pair, whose lesions the reader wants to see
    assert findings["profile"]["lesion"][slice_shown] == max(findings["profile"]["lesion"])
    assert abs(shares[0] - shares[1]) < 0.08  # a slice


def test_keys_scroll_and_zoom_both_scans(tab: Tab, done: str, smaller: str) -> None:
    compare(tab, done, smaller)
    tab.page.locator(".side-scan [data-plane=axial] canvas").first.focus()

    def shown() -> list[NDArray[np.int16]]:
        tab.wait_for_frame()
        image = tab.screenshot_of_page()
        return np.array_split(image, 2, axis=1)

    whole = shown()
    for key, is_changed in (("+", True), ("0", False), ("ArrowUp", True)):
        tab.page.keyboard.press(key)
        assert all((one != other).any() == is_changed for one, other in zip(whole, shown(), strict=True)), key


def test_two_zoomed_scans_show_the_same_place_if_one_has_a_wider_field_of_view(
    tab: Tab, server: Server, done: str, scan_file: Path, tmp_path: Path
) -> None:
    image = nib.Nifti1Image.from_filename(scan_file)
    air = [(30, 30), (50, 50), (0, 0)]
    affine = image.affine @ nib.affines.from_matvec(np.eye(3), [-before for before, _ in air])
    values = np.pad(np.asarray(image.dataobj), air, constant_values=-1000)
    nib.save(nib.Nifti1Image(values, affine), tmp_path / "wide.nii.gz")
    wide = str(server.wait_for_job(server.post(tmp_path / "wide.nii.gz").json()["id"])["id"])
    compare(tab, done, wide)
    tab.page.uncheck("#compare-lesions")
    panes = tab.page.locator(".side-scan .panes")
    box = panes.first.bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.4)
    tab.page.keyboard.down("Control")
    for _ in range(3):
        tab.page.mouse.wheel(0, -300)
    tab.page.keyboard.up("Control")
    tab.wait_for_frame()
    one, other = (
        np.asarray(Image.open(io.BytesIO(panes.nth(i).screenshot())).convert("L"), dtype=float)[60:-60, 60:-60]
        for i in (0, 1)
    )
    assert one.std() > 20  # not air alone
    assert np.abs(one - other).mean() < 0.2 * one.std()


def test_both_scans_are_drawn_at_one_scale_in_a_window_that_they_name(tab: Tab, done: str, smaller: str) -> None:
    compare(tab, done, smaller)
    lengths = []
    for i in (0, 1):
        panes = tab.page.locator(".side-scan .panes").nth(i)
        scale = panes.evaluate(SCALE_PX)
        lengths.append(scale)
    assert lengths[0] == pytest.approx(lengths[1], abs=1)
    assert lengths[0] > 20
    corners = tab.page.locator(".side-scan [data-plane=axial] .top-left")
    assert corners.all_inner_texts() == ["W 1500 L −600"] * 2
    tab.page.select_option("#compare-window", "bone")
    tab.wait_for_frame()
    assert corners.all_inner_texts() == ["W 2000 L 300"] * 2


def test_two_scans_stand_side_by_side_and_scroll_and_zoom_together(tab: Tab, server: Server, done: str) -> None:
    mask = download(server, f"{done}/view/lesions.nii.gz")
    with server.client() as client:
        sent = client.post(f"/api/jobs/{done}/corrections", content=mask).json()
    other = server.wait_for_job(sent["id"])["id"]
    page = tab.open(done)
    tab.wait_until_shown(done)
    page.select_option("[aria-label='Scan to compare with']", other)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.wait_for_selector(f"[data-ready='{done}:{other}']")
    assert "0.0\N{NO-BREAK SPACE}ml" in page.inner_text(".change")
    feet = page.locator(".side-scan .bottom-left >> visible=true")
    before = feet.all_inner_texts()
    assert before[0] == before[1]
    box = page.locator(AXIAL).first.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, -120)
    tab.wait_for_frame()
    after = feet.all_inner_texts()
    assert after[0] == after[1] != before[0]
    before_zoom = [page.locator(".side-scan .panes").nth(i).screenshot() for i in (0, 1)]
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    tab.wait_for_frame()
    assert all(page.locator(".side-scan .panes").nth(i).screenshot() != before_zoom[i] for i in (0, 1))
    pictures = [pair_picture(tab)]
    page.select_option("#compare-window", "bone")
    pictures.append(pair_picture(tab))
    page.uncheck("#compare-lesions")
    pictures.append(pair_picture(tab))
    assert len(set(pictures)) == 3


def pair_picture(tab: Tab) -> bytes:
    tab.wait_for_frame()
    return tab.page.locator(".pair").screenshot()


# The length in pixels of the scale's line in the lower right corner.
SCALE_PX = """(panes) => {
  const canvas = panes.querySelector("[data-plane=axial] canvas");
  const row = Math.floor(canvas.height - 16.5 * devicePixelRatio);
  const { data } = canvas.getContext("2d").getImageData(0, row, canvas.width, 1);
  let first = canvas.width, last = 0;
  for (let x = Math.floor(canvas.width / 2); x < canvas.width; x++) {
    const [red, green, blue] = data.subarray(4 * x, 4 * x + 3);
    if (Math.abs(red - 223) + Math.abs(green - 231) + Math.abs(blue - 234) > 40) continue;
    [first, last] = [Math.min(first, x), x];
  }
  return last - first;
}"""
