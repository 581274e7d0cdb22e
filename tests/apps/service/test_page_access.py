"""Accessibility of the page: keyboard, names, contrast, small screens, dark mode, reduced motion."""

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers.axe import AXE_RUN, axe_source
from helpers.browser import AXIAL, Tab
from helpers.browser import tab as open_tab
from helpers.server import Server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

# The lowest contrast of any visible text, with that text: WCAG 2 requires 4.5, and 3 for large text.
CONTRAST = """() => {
  const numbers = (colour) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const light = ([r, g, b]) => [r, g, b]
    .map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const found = numbers(getComputedStyle(at).backgroundColor);
      if (found[3] > 0.99) return found;
    }
    return [255, 255, 255, 1];
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text = texts.nextNode(); text; text = texts.nextNode()) {
    const element = text.parentElement;
    if (!text.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest(".visually-hidden, noscript, :disabled")) continue;
    const style = getComputedStyle(element);
    const svg = element instanceof SVGElement;
    const [one, other] = [light(numbers(svg ? style.fill : style.color)), light(behind(element))];
    found.push([(Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05), text.textContent.trim()]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
}"""

# Elements that can have the focus but no name for a screen reader.
NAMELESS = """() => [...document.querySelectorAll("a, button, input, [tabindex='0']")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.getAttribute("aria-label") || each.getAttribute("aria-labelledby")
    || each.labels?.length || each.innerText?.trim()))
  .map((each) => each.outerHTML)"""

FOCUSED = """() => {
  const at = document.activeElement;
  if (at === document.body) return ["", true];
  const drawn = at.matches(".choice input, .visually-hidden") ? at.nextElementSibling : at.closest(".toggle") ?? at;
  const style = getComputedStyle(drawn);
  return [at.id || at.getAttribute("aria-label") || at.innerText || at.tagName, style.outlineStyle !== "none"];
}"""


MOVING = """() => [...document.querySelectorAll("*")]
  .filter((each) => getComputedStyle(each).transitionDuration !== "0s").length"""


def assert_fits(page: "Page", width: int) -> None:
    assert page.evaluate("() => document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(chrome: "Browser", server: Server, done: str, scheme: Any) -> None:
    with open_tab(chrome, server.url, color_scheme=scheme) as tab:
        page = tab.open()
        least, text = page.evaluate(CONTRAST)
        assert least >= 4.5, text
        tab.open(done)
        tab.wait_until_shown(done)
        least, text = page.evaluate(CONTRAST)
        assert least >= 4.5, text
        page.click("text=Correct the mask")
        least, text = page.evaluate(CONTRAST)
        assert least >= 4.5, text


def test_the_page_fits_a_phone(chrome: "Browser", server: Server, done: str) -> None:
    with open_tab(chrome, server.url, viewport={"width": 390, "height": 844}, has_touch=True) as tab:
        page = tab.open()
        assert_fits(page, 390)
        tab.open(done)
        tab.wait_until_shown(done)
        assert_fits(page, 390)
        assert "not a medical device" in page.inner_text("header")
        page.click("text=Correct the mask")
        assert_fits(page, 390)
        box = page.locator(AXIAL).bounding_box()
        assert box is not None
        page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + box["height"] / 3)
        assert page.get_by_role("button", name="Save correction").is_enabled()
        page.click("[aria-label=Undo]")
        page.click("text=Leave")


def test_every_control_has_a_name(shown: Tab) -> None:
    page = shown.page
    assert page.evaluate(NAMELESS) == []
    page.click("text=Correct the mask")
    assert page.evaluate(NAMELESS) == []
    assert page.locator("h1").count() == page.locator("main").count() == page.locator("header.top").count() == 1
    assert page.get_by_role("navigation", name="Scans").is_visible()
    assert page.get_attribute("html", "lang") == "en"
    assert page.locator("[aria-live]").count() == 1
    tree = page.locator("body").aria_snapshot()
    expected = [
        'radio "Axial" [checked]',
        'combobox "Window"',
        'slider "Slice"',
        'slider "Size',
        'table "Burden by',
    ]
    for text in expected:
        assert text in tree, text


def test_the_tab_key_reaches_every_control_in_order_with_a_visible_focus(shown: Tab) -> None:
    page = shown.page
    page.evaluate("() => document.activeElement.blur()")
    focused = []
    for _ in range(300):
        page.keyboard.press("Tab")
        name, outlined = page.evaluate(FOCUSED)
        if not name:
            break
        assert outlined, name
        focused.append(name)
    assert focused[0].startswith("Skip")
    expected = [
        "New scan",
        "Delete",
        "layout-axial",
        "window",
        "slab",
        "opacity",
        "Correct mask",
        "Crosshair",
        "lesion",
        "contour",
        "Zoom in",
        "Axial slices of the scan with the lesions drawn over them",
    ]
    expected += ["slice", "Lesion in each slice: go to a slice"]
    positions = [focused.index(name) for name in expected]
    assert positions == sorted(positions)
    assert any("Mask, NIfTI" in name for name in focused)


def test_the_page_works_with_the_keyboard_only(tab: Tab, done: str) -> None:
    page = tab.open()
    link = page.locator(f".jobs a[href='#{done}']")
    link.focus()
    page.keyboard.press("Enter")
    tab.wait_until_shown(done)
    page.focus(AXIAL)
    before = tab.slice_shown()
    for key, step in (("ArrowUp", 1), ("ArrowDown", -1), ("PageUp", 10), ("PageDown", -10)):
        page.keyboard.press(key)
        assert tab.slice_shown() == before + step
        before += step
    page.keyboard.press("l")
    assert not page.is_checked("#lesion")
    page.keyboard.press("c")
    assert not page.is_checked("#contour")
    page.focus("#layout-axial")
    page.keyboard.press("ArrowRight")
    assert page.is_checked("#layout-coronal")
    page.focus(".skip")
    page.keyboard.press("Enter")
    assert page.evaluate("() => document.activeElement.id") == "main"
    assert page.url.endswith(done)


def focused_id(page: "Page") -> str:
    return str(page.evaluate("() => document.activeElement.id || document.activeElement.tagName"))


def test_the_focus_goes_on_where_a_view_is_replaced(tab: Tab, done: str) -> None:
    """Keys would begin at the top of the page again, and a screen reader would lose its place."""
    page = tab.open(done)
    tab.wait_until_shown(done)
    page.focus(AXIAL)
    page.evaluate("() => (location.hash = '')")
    page.wait_for_selector(".welcome")
    assert focused_id(page) == "main"
    page.go_back()
    tab.wait_until_shown(done)
    page.click("text=Correct the mask")
    page.keyboard.press("Escape")
    page.wait_for_selector(".brush-bar", state="detached")
    assert "Correct" in page.evaluate("() => document.activeElement.textContent")


def test_progress_leaves_the_focus_on_the_button_that_stops_a_scan(tab: Tab, done: str) -> None:
    job = tab.page.request.get(f"{tab.url}/api/jobs/{done}").json()
    progress = {"stage": "lesions", "total": 100}
    states = [{**job, "status": "running", "progress": {**progress, "done": number}} for number in (10, 20, 30)]
    body = "".join(f"event: job\ndata: {json.dumps(state)}\n\n" for state in states)
    listening: list[Any] = []

    def hold(route: Any) -> None:
        listening.append(route)

    tab.page.route(f"**/api/jobs/{done}", lambda route: route.fulfill(json=states[-1 if listening else 0]))
    tab.page.route("**/events", hold)
    page = tab.open(done)
    page.get_by_role("button", name="Stop and delete").focus()
    while not listening:
        page.wait_for_timeout(50)
    listening[0].fulfill(body=body, content_type="text/event-stream")
    page.wait_for_selector(".running >> text=/: 30 %/")
    assert page.evaluate("() => document.activeElement.textContent") == "Stop and delete"


@pytest.mark.parametrize("layout", ["axial", "multiplanar"])
def test_the_page_itself_never_scrolls_away_on_a_wide_window(shown: Tab, layout: str) -> None:
    page = shown.page
    page.click(f"label[for=layout-{layout}]")
    page.focus("#open-mask")  # a hidden control far down in the numbers
    assert page.evaluate("() => [scrollY, document.documentElement.scrollHeight]") == [0, 800]
    assert page.is_visible("label[for=open-mask]:below(.job-head)")
    page.set_viewport_size({"width": 600, "height": 800})
    page.evaluate("() => scrollTo(0, 700)")
    page.set_viewport_size({"width": 1280, "height": 800})
    shown.wait_for_frame()
    assert page.evaluate("() => scrollY") == 0


def test_a_view_that_has_the_focus_as_a_whole_has_no_frame(shown: Tab) -> None:
    shown.page.focus("#window")  # by keys, as browsers see it
    shown.page.keyboard.press("Tab")
    shown.page.evaluate("() => document.getElementById('main').focus()")
    assert shown.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "none"


def test_the_list_of_lesions_is_one_stop_of_the_tab_key(shown: Tab) -> None:
    page = shown.page
    lesions = page.locator(".jump")
    assert lesions.count() > 1
    assert page.locator(".jump[tabindex='0']").count() == 1
    lesions.first.focus()
    page.keyboard.press("ArrowDown")
    assert page.evaluate("() => document.activeElement.closest('tr').rowIndex") == 2
    page.keyboard.press("Enter")
    assert page.locator(".chosen").evaluate("(row) => row.rowIndex") == 2
    page.keyboard.press("End")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.closest('.lesions')") is None
    assert str(lesions.first.get_attribute("aria-label")).startswith("Go to the lesion of ")


def test_state_is_announced_and_nothing_moves_under_reduced_motion(
    chrome: "Browser", server: Server, done: str
) -> None:
    with open_tab(chrome, server.url, reduced_motion="reduce") as tab:
        page = tab.open(done)
        tab.wait_until_shown(done)
        assert page.inner_text("#announcer") == "The scan is shown."
        assert page.evaluate(MOVING) == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_fault(chrome: "Browser", server: Server, done: str, scheme: Any) -> None:
    with open_tab(chrome, server.url, color_scheme=scheme) as tab:
        page = tab.open()
        page.evaluate(axe_source())
        assert page.evaluate(AXE_RUN) == []
        tab.open(done)
        tab.wait_until_shown(done)
        assert page.evaluate(AXE_RUN) == []
        page.click("text=Correct the mask")
        assert page.evaluate(AXE_RUN) == []
