"""Two fingers on the scan, with the touches of Chromium's emulation: they zoom and move, and do nothing else."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from helpers.browser import AXIAL, SliceOnScreen, Tab
from helpers.browser import tab as open_tab
from helpers.served_results import download, view_slices
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow
Point = tuple[float, float]
STEPS = 6
SOLID = ".pane[data-plane='3d']"
# Of the finger that moved last. The emulation can lift all fingers alone.
LIFT_AND_PUT_DOWN = """() => ["pointerup", "pointerdown"].forEach(
  (kind) => moved.target.dispatchEvent(new PointerEvent(kind, moved)))"""


@pytest.fixture
def phone(chrome: "Browser", server: Server, done: str) -> Iterator[Tab]:
    """A phone that shows the result of a job, without crosshair."""
    with open_tab(chrome, server.url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True) as tab:
        tab.open(done)
        tab.wait_until_shown(done)
        tab.page.locator(AXIAL).scroll_into_view_if_needed()
        tab.page.click("[aria-label=Crosshair]")
        yield tab


def touch(tab: Tab, *ways: tuple[Point, Point], lifted: bool = False, on: str = AXIAL) -> None:
    """Put down a finger for each way, one after the other, move all from the starts to the ends, and lift them.

    The first finger has already moved a little when the second one comes, as those of people do.

    Args:
        tab: The tab.
        ways: Start and end of each finger, from the middle of the axial slice or another view in pixels.
        lifted: Lift the last finger half-way, and put it down again.
        on: The view.
    """
    box = tab.page.locator(on).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    session = tab.page.context.new_cdp_session(tab.page)
    tab.page.evaluate("() => addEventListener('pointermove', (event) => (window.moved = event), true)")

    def send(kind: str, fingers: int, share: float) -> None:
        points: list[dict[str, Any]] = [
            {"x": x + x0 + share * (x1 - x0), "y": y + y0 + share * (y1 - y0), "id": number}
            for number, ((x0, y0), (x1, y1)) in enumerate(ways[:fingers])
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    send("touchStart", 1, -0.6)
    send("touchMove", 1, 0)
    for fingers in range(2, len(ways) + 1):
        send("touchStart", fingers, 0)
    for step in range(1, STEPS + 1):
        send("touchMove", len(ways), step / STEPS)
        if lifted and step == STEPS // 2:
            tab.page.evaluate(LIFT_AND_PUT_DOWN)
    send("touchEnd", 0, 1)
    session.detach()
    tab.wait_for_frame()


def state(tab: Tab) -> tuple[int, str, str]:
    """Return the slice, the window and the layout that are shown."""
    page = tab.page
    return (
        tab.slice_shown(),
        page.inner_text("#window option:checked"),
        page.locator("[name=layout]:checked").input_value(),
    )


def middle(tab: Tab) -> Any:
    """Return the grey levels in the middle of the axial slice, 120 pixels wide, with a margin of 60."""
    image = tab.screenshot().mean(axis=2)
    y, x = (n // 2 for n in image.shape)
    return image[y - 90 : y + 90, x - 90 : x + 90]


def test_two_fingers_that_part_zoom_around_their_middle(phone: Tab) -> None:
    before, shown = middle(phone), state(phone)
    touch(phone, ((-30, 0), (-60, 0)), ((30, 0), (60, 0)))
    after = middle(phone)
    expected = ndimage.zoom(before[45:135, 45:135], 2, order=1)
    assert np.abs(after - expected).mean() < 0.3 * np.abs(after - before).mean()
    assert state(phone) == shown


def test_two_fingers_that_close_again_show_the_whole_slice(phone: Tab) -> None:
    before = phone.screenshot()
    touch(phone, ((-30, -10), (-80, -20)), ((30, 10), (80, 20)))
    assert np.abs(phone.screenshot() - before).mean() > 5
    touch(phone, ((-90, 0), (-10, 0)), ((90, 0), (10, 0)))
    assert np.abs(phone.screenshot() - before).mean() < 1


@pytest.mark.parametrize("lifted", [False, True], ids=["held", "one lifted between"])
def test_two_fingers_that_go_together_move_the_zoomed_slice_with_them(phone: Tab, lifted: bool) -> None:
    touch(phone, ((-30, 0), (-60, 0)), ((30, 0), (60, 0)))
    before = middle(phone)
    touch(phone, ((-40, 0), (-20, 30)), ((40, 0), (60, 30)), lifted=lifted)
    after = middle(phone)
    assert np.abs(after[40:, 30:] - before[10:-30, 10:-20]).mean() < 0.3 * np.abs(after - before).mean()


@pytest.mark.parametrize("tool", ["window", "scroll", "pan", "ruler"])
def test_two_fingers_do_nothing_of_the_chosen_tool(phone: Tab, tool: str) -> None:
    phone.page.click(f"label[for=tool-{tool}]")
    before, shown = phone.screenshot(), state(phone)
    touch(phone, ((-30, 0), (-60, 40)), ((30, 0), (60, 40)))
    touch(phone, ((-90, 0), (-10, 0)), ((90, 0), (10, 0)))
    assert state(phone) == shown
    assert np.abs(phone.screenshot() - before).mean() < 1  # no ruler is left either


def test_a_third_finger_changes_nothing(phone: Tab) -> None:
    shown = state(phone)
    touch(phone, ((-30, 0), (-60, 0)), ((30, 0), (60, 0)), ((0, 40), (0, 90)))
    assert state(phone) == shown


def test_two_fingers_draw_nothing_with_the_brush(phone: Tab) -> None:
    page = phone.page
    page.click("text=Correct the mask")
    page.locator(AXIAL).scroll_into_view_if_needed()
    touch(phone, ((-30, 0), (-60, 0)), ((30, 0), (60, 0)))
    assert page.locator("[aria-label=Undo]").is_disabled()
    touch(phone, ((0, 0), (20, 0)))
    assert page.locator("[aria-label=Undo]").is_enabled()
    page.click("[aria-label=Undo]")
    page.click("text=Leave")


@pytest.mark.parametrize("mode", ["remove", "keep"])
def test_two_fingers_remove_no_lesion(phone: Tab, server: Server, done: str, mode: str) -> None:
    page = phone.page
    lesions, spacing_mm = view_slices(server, done, "lesions")
    _, row, column = json.loads(download(server, f"{done}/view/slices.json"))["lesion_points"][0]
    page.click("text=Correct the mask")
    page.click(f"label[for=brush-{mode}]")
    page.locator(AXIAL).scroll_into_view_if_needed()
    box = page.locator(AXIAL).bounding_box()
    assert box is not None
    height, width = round(box["height"]), round(box["width"])
    x, y = SliceOnScreen(lesions.shape[1:], spacing_mm, (height, width)).pixel(row, column)
    x, y = x - width / 2, y - height / 2
    touch(phone, ((x, y), (x, y)))
    page.click("[aria-label=Undo]")
    touch(phone, ((x - 18, y), (x - 48, y)), ((x + 60, y), (x + 90, y)))  # the first one touches the lesion at first
    assert page.locator("[aria-label=Undo]").is_disabled()
    assert page.locator("[aria-label=Redo]").is_enabled()
    page.click("text=Leave")


def test_two_fingers_that_rest_leave_a_zoomed_slice_where_it_is(phone: Tab) -> None:
    touch(phone, ((-80, 0), (-80, 0)))  # puts the crosshair there, which then leaves the picture
    touch(phone, ((-30, 0), (-90, 0)), ((30, 0), (90, 0)))
    before = phone.screenshot()
    touch(phone, ((-30, 0), (-30, 0)), ((30, 0), (30, 0)))
    assert np.abs(phone.screenshot() - before).mean() < 0.3


def test_two_fingers_zoom_the_3d_view_and_do_not_turn_it(phone: Tab) -> None:
    page = phone.page
    page.click("label[for='layout-3d']")
    page.wait_for_selector(f"{SOLID} >> text=Drag to turn")
    page.locator(SOLID).scroll_into_view_if_needed()
    before = phone.screenshot()
    touch(phone, ((-20, -20), (-40, -40)), ((20, 20), (40, 40)), on=SOLID)
    zoomed = phone.screenshot()
    assert np.abs(zoomed - before).mean() > 2
    touch(phone, ((-40, -40), (-20, -20)), ((40, 40), (20, 20)), on=SOLID)
    assert np.abs(phone.screenshot() - before).mean() < 0.3
    touch(phone, ((0, 0), (40, 0)), on=SOLID)
    assert np.abs(phone.screenshot() - before).mean() > 2


def test_the_list_of_scans_is_folded_where_it_would_push_the_scan_away(phone: Tab) -> None:
    assert not phone.page.is_visible(".jobs")
    phone.page.get_by_role("button", name="Show the list of scans").click()
    assert phone.page.is_visible(".jobs")
    phone.page.click("text=New scan")
    phone.page.wait_for_selector(".welcome")
    assert phone.page.is_visible(".jobs")
