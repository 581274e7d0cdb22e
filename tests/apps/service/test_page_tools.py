"""The tools of the viewer: windows, HU, ruler, slabs, wheel, fingers, contours, layouts; with and without WebGL2."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from groundglass.report.amounts import format_ml
from helpers.browser import AXIAL, SliceOnScreen, Tab
from helpers.browser import tab as open_tab
from helpers.served_results import download, nifti_image, slice_numbers, view_slices
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

YELLOW = np.array([255, 226, 122])  # of measurements

# Elements whose content is cut off or runs out of them, and the width of the page.
OVERFLOWING = """() => [...document.querySelectorAll("main *, nav *")]
  .filter((each) => each.checkVisibility() && each.scrollWidth > each.clientWidth + 1)
  .filter((each) => !["auto", "scroll"].includes(getComputedStyle(each).overflowX))
  .filter((each) => getComputedStyle(each).textOverflow !== "ellipsis" && getComputedStyle(each).display !== "inline")
  .filter((each) => !each.closest(".visually-hidden, .hud, svg, select, .choice"))
  .map((each) => `${each.tagName}.${each.className} ${each.scrollWidth} > ${each.clientWidth}`)"""

NO_WEBGL = """() => {
  const original = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
    return kind.startsWith("webgl") ? null : original.call(this, kind, ...rest);
  };
}"""


def yellow_pixels(tab: Tab) -> int:
    """Return how many pixels have the colour of measurements."""
    return int((np.abs(tab.screenshot() - YELLOW).max(axis=2) < 40).sum())


def box_of(tab: Tab) -> tuple[float, float, float, float]:
    box = tab.page.locator(AXIAL).bounding_box()
    assert box is not None
    return box["x"], box["y"], box["width"], box["height"]


def answer_with(body: Any) -> "Callable[[Route], None]":
    return lambda route: route.fulfill(json=body)


def drag(tab: Tab, start: tuple[float, float], end: tuple[float, float]) -> None:
    tab.page.mouse.move(*start)
    tab.page.mouse.down()
    tab.page.mouse.move(*end, steps=3)
    tab.page.mouse.up()
    tab.wait_for_frame()


def test_dragging_changes_the_window_and_a_click_moves_the_crosshair(shown: Tab) -> None:
    x, y, width, height = box_of(shown)
    drag(shown, (x + width / 2, y + height / 2), (x + width / 2 + 100, y + height / 2))
    wide = shown.page.inner_text(".pane[data-plane=axial] .top-left")
    assert int(wide.split("W ")[1].split(" ")[0]) > 1500
    assert "…" in shown.page.inner_text("#window option:checked")
    before = shown.screenshot()
    shown.page.mouse.click(x + width * 0.3, y + height * 0.3)
    shown.page.mouse.move(x + 5, y + height - 5)
    assert np.abs(shown.screenshot() - before).max() > 50


def test_the_hu_under_the_pointer_are_those_of_the_scan(shown: Tab, server: Server, done: str) -> None:
    hu, spacing_mm = view_slices(server, done, "scan")
    z = len(hu) // 2
    shown.go_to(slice_numbers(server, done)[z])
    x, y, width, height = box_of(shown)
    at = SliceOnScreen(hu.shape[1:], spacing_mm, (round(height), round(width))).pixel(40, 60)
    shown.page.mouse.move(x + at[0], y + at[1])
    text = shown.page.inner_text(".pane[data-plane=axial] .top-left").replace("−", "-")
    assert int(text.split(" HU")[0]) == hu[z, 40, 60]


def test_the_hu_under_a_resting_pointer_follow_the_slices_and_every_plane_names_its_window(
    shown: Tab, server: Server, done: str
) -> None:
    page = shown.page
    page.click("label[for=layout-multiplanar]")
    x, y, width, height = box_of(shown)
    page.mouse.move(x + width / 2, y + height / 2)
    page.mouse.wheel(0, -120)
    shown.wait_for_frame()
    corners = page.locator(".hud.top-left")
    hu, spacing_mm = view_slices(server, done, "scan")
    z = slice_numbers(server, done).index(shown.slice_shown())
    geometry = SliceOnScreen(hu.shape[1:], spacing_mm, (round(height), round(width)))
    points = [(row, column) for row in range(hu.shape[1]) for column in range(hu.shape[2])]
    row, column = min(points, key=lambda at: np.hypot(*(np.array(geometry.pixel(*at)) - [width / 2, height / 2])))
    stated = int(corners.first.inner_text().split(" HU")[0].replace("−", "-"))
    assert stated in hu[z, row - 1 : row + 2, column - 1 : column + 2]
    drag(shown, (x + 40, y + 40), (x + 90, y + 60))
    windows = {text.split("W")[-1] for text in corners.all_inner_texts()}
    assert len(windows) == 1
    assert " 1500 L −600" not in windows


def test_a_ruler_gives_mm(shown: Tab, server: Server, done: str) -> None:
    hu, spacing_mm = view_slices(server, done, "scan")
    shown.page.click("label[for=tool-ruler]")
    x, y, width, height = box_of(shown)
    screen = SliceOnScreen(hu.shape[1:], spacing_mm, (round(height), round(width)))
    (x0, y0), (x1, y1) = screen.pixel(30, 20), screen.pixel(30, 70)
    before = shown.screenshot()
    drag(shown, (x + x0, y + y0), (x + x1, y + y1))
    drawn = np.abs(shown.screenshot() - YELLOW).max(axis=2) < 40
    assert drawn.sum() > 50
    shown.page.click("[aria-label='Remove the measurements']")
    shown.page.mouse.move(x + 2, y + height - 2)
    assert (np.abs(shown.screenshot() - YELLOW).max(axis=2) < 40).sum() <= (
        np.abs(before - YELLOW).max(axis=2) < 40
    ).sum()


def test_a_ruler_is_laid_by_keys(shown: Tab, server: Server, done: str) -> None:
    _, (dy, _) = view_slices(server, done, "scan")
    x, y, _, height = box_of(shown)
    shown.page.mouse.move(x + 2, y + height - 2)
    before = (np.abs(shown.screenshot() - YELLOW).max(axis=2) < 40).sum()
    keys = shown.page.locator(AXIAL)
    for key in ("m", "Enter", "Shift+ArrowUp", "Shift+ArrowUp", "Enter"):
        keys.press(key)
    assert shown.page.text_content("#announcer") == f"{20 * dy:.1f} mm"
    assert (np.abs(shown.screenshot() - YELLOW).max(axis=2) < 40).sum() > before + 20
    slice_before = shown.slice_shown()
    keys.press("ArrowUp")  # moves through the slices again
    assert shown.slice_shown() != slice_before


def test_rulers_are_kept_until_the_tab_is_closed(shown: Tab, done: str) -> None:
    shown.page.click("label[for=tool-ruler]")
    x, y, width, height = box_of(shown)
    before = yellow_pixels(shown)
    drag(shown, (x + width * 0.4, y + height * 0.4), (x + width * 0.6, y + height * 0.4))
    shown.page.reload()
    shown.wait_until_shown(done)
    assert yellow_pixels(shown) > before + 50
    shown.page.click("[aria-label='Remove the measurements']")
    shown.page.reload()
    shown.wait_until_shown(done)
    assert yellow_pixels(shown) <= before


def test_a_slab_shows_the_greatest_or_least_values(shown: Tab) -> None:
    shown.page.uncheck("#lesion")
    single = shown.screenshot().mean()
    shown.page.select_option("#slab", "maximum 50")
    greatest = shown.screenshot().mean()
    assert "MIP" in shown.page.inner_text(".pane[data-plane=axial] .bottom-left")
    shown.page.select_option("#slab", "minimum 20")
    assert shown.screenshot().mean() < single < greatest


def test_the_hu_under_the_pointer_are_those_of_the_slab(shown: Tab, server: Server, done: str) -> None:
    hu, spacing_mm = view_slices(server, done, "scan")
    z = len(hu) // 2
    shown.go_to(slice_numbers(server, done)[z])
    shown.page.select_option("#slab", "maximum 50")
    count = round(50 / nifti_image(server, f"{done}/view/scan.nii").header.get_zooms()[2])
    first = max(0, z - (count - 1) // 2)
    expected = hu[first : first + count].max(axis=0)
    row, column = np.unravel_index(np.argmax(expected - hu[z]), expected.shape)
    x, y, width, height = box_of(shown)
    at = SliceOnScreen(hu.shape[1:], spacing_mm, (round(height), round(width))).pixel(int(row), int(column))
    shown.page.mouse.move(x + at[0], y + at[1])
    shown.wait_for_frame()
    text = shown.page.inner_text(".pane[data-plane=axial] .top-left").replace("−", "-")
    assert int(text.split(" HU")[0]) == expected[row, column] > hu[z, row, column]


def test_a_zoomed_slice_stays_where_it_is_while_the_wheel_goes_through_the_slices(shown: Tab) -> None:
    page = shown.page
    x, y, width, height = box_of(shown)
    page.mouse.click(x + width * 0.4, y + height * 0.5)
    for _ in range(6):
        page.click("[aria-label='Zoom in']")
    page.click("label[for=tool-pan]")
    for _ in range(2):  # the crosshair leaves the picture to the left
        drag(shown, (x + width * 0.6, y + height / 2), (x + width * 0.1, y + height / 2))
    before = shown.screenshot()
    for delta in (-120, 120):
        page.mouse.wheel(0, delta)
        shown.wait_for_frame()
    assert np.abs(shown.screenshot() - before).mean() < 0.3
    page.locator(".lesions .jump").first.click()  # elsewhere: the picture goes there
    assert np.abs(shown.screenshot() - before).mean() > 2


def test_a_notch_of_a_wheel_is_a_slice_and_small_steps_of_a_trackpad_are_added_up(shown: Tab) -> None:
    x, y, width, height = box_of(shown)
    shown.page.mouse.move(x + width / 2, y + height / 2)
    before = shown.slice_shown()
    for delta, step in ((-120, 1), (120, -1), (100, -1)):
        shown.page.mouse.wheel(0, delta)
        shown.page.wait_for_function(f"() => document.querySelector('#slice').value === '{before + step}'")
        before += step
    for _ in range(12):
        shown.page.mouse.wheel(0, -10)
    shown.wait_for_frame()
    assert before < shown.slice_shown() <= before + 2


def test_contours_and_crosshair_keep_their_width_on_the_screen(shown: Tab) -> None:
    shown.page.fill("#opacity", "0")

    def line_width() -> float:
        with_line = shown.screenshot()
        shown.page.uncheck("#contour")
        line = np.abs(with_line - shown.screenshot()).max(axis=2) > 60
        shown.page.check("#contour")
        runs = np.diff(np.flatnonzero(np.diff(np.pad(line.astype(int), ((0, 0), (1, 1))).ravel())))[::2]
        return float(np.median(runs))

    assert 1 <= line_width() <= 4
    for _ in range(6):
        shown.page.click("[aria-label='Zoom in']")
    assert 1 <= line_width() <= 4


def test_a_result_is_complete_without_webgl2(chrome: "Browser", server: Server, done: str) -> None:
    with open_tab(chrome, server.url) as tab:
        tab.page.add_init_script(f"({NO_WEBGL})()")
        page = tab.open(done)
        tab.wait_until_shown(done)
        assert tab.screenshot().std() > 30
        assert page.locator(".downloads a[download]").count() == len(server.job(done)["files"])
        page.click("label[for=layout-3d]")
        assert "no WebGL2" in page.inner_text(".pane[data-plane='3d'] .hud")
        image = tab.screenshot()
        assert (image[:, :, 0] - image[:, :, 2] > 60).sum() > 50  # the lesions from the front


def test_facts_and_downloads_are_there_if_the_images_are_not(tab: Tab, server: Server, done: str) -> None:
    tab.page.route("**/view/scan.nii", lambda route: route.fulfill(status=404, body='{"detail": "the file is gone"}'))
    page = tab.open(done)
    page.wait_for_selector("text=The scan cannot be shown. The file is gone.")
    findings = json.loads(download(server, f"{done}/findings"))
    assert format_ml(findings["lesion_volume_ml"]) in page.inner_text(".facts")
    assert page.locator(".downloads a[download]").count() > 3
    tab.errors.clear()  # 404, logged by the browser itself


@pytest.mark.parametrize("size", [(390, 844), (1280, 800), (1920, 1080)])
def test_nothing_overflows_with_long_names_two_series_and_ten_warnings(
    chrome: "Browser", server: Server, done: str, size: tuple[int, int]
) -> None:
    uid = "1.2.826.0.1.3680043.8.498." + "1234567890" * 4
    findings: dict[str, Any] = json.loads(download(server, f"{done}/findings"))
    findings["warnings"] = [f"series {uid} was chosen; others there: {uid}{i}" for i in range(10)]
    series = [
        {
            **{"label": f"{i}", "description": f"Thorax_{uid}", "kernel": "B70f", "modality": "CT", "slices": 300},
            **{"slice_distance_mm": 1.25, "axial": True, "chosen": i == 2, "rejection_reason": None},
        }
        for i in (2, 3)
    ]
    job = server.job(done) | {"label": "x" * 100, "note": uid}
    answers = {"findings": findings, "series": series, "": job}
    with open_tab(chrome, server.url, viewport={"width": size[0], "height": size[1]}) as tab:
        for path, body in answers.items():
            address = f"**/api/jobs/{done}/{path}" if path else f"**/api/jobs/{done}"
            tab.page.route(address, answer_with(body))
        tab.page.route("**/api/jobs", answer_with([job]))
        page = tab.open(done)
        tab.wait_until_shown(done)
        page.wait_for_selector(".series-list")
        assert page.evaluate("() => document.documentElement.scrollWidth") == size[0]
        assert page.evaluate(OVERFLOWING) == []


def test_the_image_is_as_large_as_the_window_allows(chrome: "Browser", server: Server, done: str) -> None:
    for width, height in ((1280, 800), (2560, 1440)):
        with open_tab(chrome, server.url, viewport={"width": width, "height": height}) as tab:
            page = tab.open(done)
            tab.wait_until_shown(done)
            _, _, image_width, image_height = box_of(tab)
            assert image_height > 0.6 * height
            assert image_width > 0.5 * width
            chart = page.locator(".profile").bounding_box()
            assert chart is not None
            assert chart["height"] == 92
            assert chart["y"] + chart["height"] <= height


def test_a_wide_window_leaves_no_black_sides_and_gives_the_numbers_two_columns(
    chrome: "Browser", server: Server, done: str
) -> None:
    hu, (dy, dx) = view_slices(server, done, "scan")
    shape = hu.shape[2] * dx / (hu.shape[1] * dy)
    with open_tab(chrome, server.url, viewport={"width": 2560, "height": 1440}) as tab:
        page = tab.open(done)
        tab.wait_until_shown(done)
        _, _, width, height = box_of(tab)
        assert width == pytest.approx(height * shape, rel=0.03)
        boxes = [page.locator(f"[aria-labelledby={name}]").bounding_box() for name in ("burden", "downloads")]
        left, right = (box["x"] for box in boxes if box)
        assert right > left + 250
        shown, content = page.evaluate(
            "() => ['clientHeight', 'scrollHeight'].map((n) => document.querySelector('.numbers')[n])"
        )
        assert content <= shown


@pytest.mark.parametrize("size", [(1280, 800), (1366, 768), (1920, 1080), (2560, 1440)])
def test_the_bar_above_the_scan_takes_one_row_and_the_tools_beside_it_are_whole(
    chrome: "Browser", server: Server, done: str, size: tuple[int, int]
) -> None:
    job = server.job(done) | {"label": "a_label_of_a_hospital_" * 4}
    with open_tab(chrome, server.url, viewport={"width": size[0], "height": size[1]}) as tab:
        tab.page.route(f"**/api/jobs/{done}", answer_with(job))
        page = tab.open(done)
        tab.wait_until_shown(done)
        page.select_option("#window", "mediastinum")  # the longest name
        drag(tab, (box_of(tab)[0] + 100, 300), (box_of(tab)[0] + 110, 300))  # and then a window by its limits
        bar = page.locator(".top-bar").bounding_box()
        row = page.locator(".top-bar .choice").bounding_box()
        assert bar is not None
        assert row is not None
        assert bar["height"] < 2 * row["height"]
        assert page.evaluate("() => document.querySelector('.top-bar').scrollWidth") < bar["width"] + 1
        height, content = page.evaluate(
            "() => ['clientHeight', 'scrollHeight'].map((n) => document.querySelector('.tools')[n])"
        )
        assert content <= height


@pytest.mark.parametrize(("size", "rows"), [((1280, 800), 1), ((390, 844), 2)])
def test_each_bar_of_the_brush_takes_one_row_on_a_phone_two_and_a_message_moves_nothing(
    tab: Tab, server: Server, done: str, size: tuple[int, int], rows: int
) -> None:
    tab.page.set_viewport_size({"width": size[0], "height": size[1]})
    view = json.loads(download(server, f"{done}/view/slices.json"))
    view["classes"] = ["ground-glass", "consolidation"]
    tab.page.route(f"**/api/jobs/{done}/view/slices.json", answer_with(view))
    page = tab.open(done)
    tab.wait_until_shown(done)
    page.click("text=Correct the mask")
    for key in ("e", " "):  # in the middle of a lesion; shows what was changed
        page.locator(AXIAL).press(key)
    boxes = [page.locator(name).bounding_box() for name in (".top-bar", ".brush-bar", ".brush-bar select")]
    top, brush, row = (box["height"] for box in boxes if box)
    assert max(top, brush) < (rows + 1) * row
    assert page.evaluate("() => document.documentElement.scrollWidth") == size[0]
    before = box_of(tab)
    page.click("text=Fill between")
    assert "Nothing to fill" in page.inner_text("[role=alert] >> visible=true")
    assert box_of(tab) == before
    page.click("[aria-label=Undo]")
    assert not page.is_visible("text=Nothing to fill")


def test_the_sentence_for_a_report_is_copied(shown: Tab, server: Server, done: str) -> None:
    page = shown.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy", exact=True).click()
    page.wait_for_selector("text=Copied")
    words = json.loads(download(server, f"{done}/view/slices.json"))["sentence"]
    assert words.startswith("Automated analysis of the chest CT")
    assert page.evaluate("() => navigator.clipboard.readText()") == words


def test_the_list_of_scans_is_folded_away_and_leaves_its_room_to_the_scan(shown: Tab) -> None:
    width = box_of(shown)[2]
    for name, is_wider in (("Hide", True), ("Show", False)):
        button = shown.page.get_by_role("button", name=f"{name} the list of scans")
        assert (button.get_attribute("aria-expanded") == "true") == is_wider
        button.click()
        shown.wait_for_frame()
        assert (box_of(shown)[2] > width + 50) == is_wider
        assert shown.page.is_visible(".jobs") != is_wider
