"""The report: its content, that it is escaped and self-contained, and its viewer in a browser."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from groundglass.inference.model_card import bundled_model, read_card
from groundglass.inference.segmenter import Segmenter
from groundglass.io import nifti
from groundglass.io.reader import read_scan
from groundglass.report.amounts import format_ml, true_minus
from groundglass.report.analysis import Analysis, segment
from groundglass.report.charts import round_up
from groundglass.report.findings import Identity
from groundglass.report.image_numbers import describe_share
from groundglass.report.report_page import render_report
from groundglass.report.sentence import report_sentence
from groundglass.scan.phantom import Phantom
from helpers.fake_engine import RecordingEngine

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ("--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")


@pytest.fixture(scope="module")
def analysis(phantom: Phantom, grey_band: Segmenter) -> Analysis:
    return segment(phantom.scan, grey_band)


@pytest.fixture(scope="module")
def report(analysis: Analysis, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    analysis.save(folder)
    return folder / "report.html"


class PageText(HTMLParser):
    """The visible text of a page, and the addresses it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self._hidden = "", False
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden = tag in ("style", "script")
        self.loaded += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, _: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else f"{data} "


def test_the_report_states_the_numbers_and_loads_nothing(report: Path, analysis: Analysis) -> None:
    page = PageText(report.read_text())
    found = analysis.findings
    for value in (found.lesion_volume_ml, found.right_lung.lesion_volume_ml, found.left_lung.lesion_volume_ml):
        assert format_ml(value) in page.text
    assert found.zones is not None
    for zone in found.zones:
        assert f"{format_ml(zone.lesion_volume_ml)} of {zone.lung_volume_ml:.0f}" in page.text
    assert found.density_bands is not None
    for band in found.density_bands:
        hu = true_minus(f"{band.low_hu} to {band.high_hu}")
        assert f"{hu} {band.share_of_lung_percent:.1f}" in " ".join(page.text.split())
    assert report_sentence(found) in page.text
    assert f"{sum(zone.score for zone in found.zones)} of 24" in page.text
    assert "lobes are not segmented" in " ".join(page.text.split())
    assert "Not a medical device" in page.text
    assert "grey-band" in page.text
    assert all(address.startswith("data:image/") for address in page.loaded)
    assert "default-src 'none'" in report.read_text()


def test_the_spacing_is_stated_as_on_the_page_across_the_slice_first(report: Path, analysis: Analysis) -> None:
    dz, dy, dx = analysis.findings.input.spacing_mm or (0, 0, 0)
    assert len({dz, dy, dx}) > 1
    assert (
        f"<dd>{dx:.3g} \N{MULTIPLICATION SIGN} {dy:.3g} \N{MULTIPLICATION SIGN} {dz:.3g} mm</dd>"
        in report.read_text("utf-8")
    )


def test_zones_and_profile_add_up_to_the_lungs(analysis: Analysis) -> None:
    found = analysis.findings
    assert found.zones is not None
    for side, burden in (("right", found.right_lung), ("left", found.left_lung)):
        on_side = [zone for zone in found.zones if zone.side == side]
        assert sum(zone.lung_volume_ml for zone in on_side) == pytest.approx(burden.lung_volume_ml, rel=1e-4)
        assert sum(zone.lesion_volume_ml for zone in on_side) <= (burden.lesion_volume_ml or 0) * (1 + 1e-6)
    assert sum(found.profile.lesion) == pytest.approx(found.lesion_volume_ml, rel=1e-4)
    assert sum(found.profile.lung) == pytest.approx(found.lung_volume_ml, rel=1e-4)
    assert [i for i, ml in enumerate(found.profile.lesion) if ml] == list(found.lesion_slice_indices)
    assert sum(found.histogram.lesion) == analysis.lesions.voxels.sum()


def test_warnings_stand_first_and_everything_is_escaped(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    source = tmp_path / "<b>&x.nii"
    nifti.write_scan(phantom.scan, source)
    scan = replace(read_scan(source), notes=("a <script>note</script> of the reader",))
    segment(scan, grey_band, with_identity=True).save(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script>note" not in page
    assert "a &lt;script&gt;note" in page
    assert "&lt;b&gt;&amp;x.nii" in page
    assert "<b>&x" not in page
    assert page.index("Before you use these numbers") < page.index("<h2>Burden")


def test_the_report_of_an_image_states_what_is_unknown(phantom: Phantom, grey_band: Segmenter, tmp_path: Path) -> None:
    grey = np.clip((phantom.scan.values[16].astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    analysis = segment(read_scan(tmp_path / "a.png"), grey_band)
    analysis.save(tmp_path / "out")
    text = " ".join(PageText((tmp_path / "out" / "report.html").read_text()).text.split())
    assert analysis.findings.zones is None
    assert "zones: a picture is one slice of a lung, whose height is not known" in text
    assert "density bands, mean density of the lesions, mean density of the lung: the file holds no HU" in text
    assert "a picture states no spacing" in text
    assert "lesion, ml" not in text  # a column of unknown values
    assert "HU are estimated from a lung window" in text


@pytest.mark.parametrize(
    ("value", "top"), [(0, 1), (0.03, 0.032), (0.9, 1), (1, 1), (1.1, 1.2), (4.9, 6), (51, 60), (100, 100), (101, 120)]
)
def test_axes_end_at_round_numbers(value: float, top: float) -> None:
    assert round_up(value) == pytest.approx(top)


# In a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed (Debian: chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator["Page"]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.faults.append(request.url) if request.url.startswith("http") else None)
    page.goto(report.as_uri())
    yield page
    assert page.faults == []
    page.close()


def shown(page: "Page") -> int:
    match = re.match(r"image (\d+) of 32, −?\d+ mm: ", page.inner_text("#words"))
    assert match
    return int(match[1]) - 1


def test_the_viewer_starts_at_the_slice_with_most_lesion_and_moves(opened: "Page", analysis: Analysis) -> None:
    most = int(np.argmax(analysis.findings.profile.lesion))
    assert shown(opened) == most
    opened.focus("#stage")
    for key, step in (("ArrowUp", 1), ("ArrowRight", 1), ("ArrowDown", -1), ("PageDown", -10), ("PageUp", 10)):
        before = shown(opened)
        image = opened.get_attribute("#slice", "src")
        opened.keyboard.press(key)
        assert shown(opened) == before + step
        assert opened.get_attribute("#slice", "src") != image
    opened.fill("#slider", "0")
    first = shown(opened)
    opened.keyboard.press("ArrowDown")
    opened.click("#most")
    assert shown(opened) == most != first
    opened.mouse.move(400, 500)
    opened.locator("#stage").hover()
    opened.mouse.wheel(0, -100)
    opened.locator(f"#words:has-text('image {most + 2} of')").wait_for()


def test_the_letters_of_the_sides_are_read_on_white_tissue(opened: "Page") -> None:
    for side in opened.locator(".side").all():
        assert side.evaluate("node => getComputedStyle(node).backgroundColor") == "rgba(0, 0, 0, 0.6)"


def test_the_contour_can_be_hidden(opened: "Page") -> None:
    assert opened.is_visible("#contour")
    with_contour = opened.locator("#stage").screenshot()
    opened.uncheck("#shown")
    assert not opened.is_visible("#contour")
    assert opened.locator("#stage").screenshot() != with_contour
    opened.focus("#stage")
    opened.keyboard.press("c")
    assert opened.locator("#stage").screenshot() == with_contour


def test_a_click_on_the_profile_shows_its_slice(opened: "Page", analysis: Analysis) -> None:
    number = analysis.findings.lesion_slice_indices[0]
    opened.locator(f"rect[data-slice='{number}']").dispatch_event("click")
    assert shown(opened) == number


def test_the_page_fits_a_phone(opened: "Page") -> None:
    opened.set_viewport_size({"width": 390, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") == 390


def test_a_wheel_moves_one_slice_a_notch_and_a_touch_pad_does_not_race(opened: "Page") -> None:
    opened.locator("#stage").hover()
    start = shown(opened)

    def turn(delta: int) -> None:
        opened.evaluate(f"document.getElementById('stage').dispatchEvent(new WheelEvent('wheel', {{deltaY: {delta}}}))")

    turn(120)
    assert shown(opened) == start - 1  # down is towards the feet
    turn(-120)
    for _ in range(12):
        turn(-4)
    assert shown(opened) == start
    turn(-4)
    assert shown(opened) == start + 1


def test_a_lesion_of_the_list_is_shown_on_its_image(opened: "Page", analysis: Analysis) -> None:
    for index, lesion in enumerate(analysis.findings.largest_lesions[:3]):
        opened.locator(".lesions tbody button").nth(index).click()
        assert shown(opened) == lesion.slice


def test_the_sentence_is_copied(opened: "Page", analysis: Analysis) -> None:
    opened.click("#copy")
    assert opened.evaluate("getSelection().toString()") == report_sentence(analysis.findings)
    assert opened.inner_text("#copy") in ("Copied", "Selected")


@pytest.mark.parametrize("count", [0, 10])
def test_the_report_is_printed_on_two_pages_without_controls(
    count: int, browser: Any, analysis: Analysis, tmp_path: Path
) -> None:
    warnings = tuple(
        f"{number}: {'a warning of usual length, which says what to look at ' * 2}" for number in range(count)
    )
    findings = analysis.findings.model_copy(update={"warnings": warnings})
    path = tmp_path / "report.html"
    path.write_text(render_report(analysis.segmented, findings, analysis.preview, analysis.card))
    page = browser.new_page()
    page.goto(path.as_uri())
    printed = page.pdf(prefer_css_page_size=True)
    page.emulate_media(media="print")
    assert not page.is_visible("#slider")
    assert page.is_visible("figure.preview img")
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 within its margins, of 1039 pixels height
    end = page.evaluate("document.querySelector('.preview').getBoundingClientRect().bottom")
    assert 0.8 * 1039 < end < 1039 or count == 10  # the first page is filled, but for many warnings
    page.close()
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2


@pytest.mark.parametrize(("lesions", "shows_slice"), [(1, True), (20, True), (21, False), (60, False)])
def test_what_few_lesions_leave_of_the_second_page_shows_the_slice_with_most_of_them(
    lesions: int, shows_slice: bool, browser: Any, analysis: Analysis, tmp_path: Path
) -> None:
    listed = (analysis.findings.largest_lesions * 60)[:lesions]
    findings = analysis.findings.model_copy(update={"largest_lesions": listed, "lesion_count": lesions})
    path = tmp_path / "report.html"
    path.write_text(render_report(analysis.segmented, findings, analysis.preview, analysis.card))
    page = browser.new_page()
    page.goto(path.as_uri())
    printed = page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == 2
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 703, "height": 1000})  # A4 within its margins, of 1039 pixels height
    assert page.is_visible("#stage") == shows_slice
    places = "(name) => document.querySelector(name).getBoundingClientRect().toJSON()"
    start, end = page.evaluate(places, ".seen")["top"], page.evaluate(places, ".end")["bottom"]
    assert 0.5 * 1039 < end - start < 1039  # of the second page
    if shows_slice:
        slice_place, charts = page.evaluate(places, "#stage"), page.evaluate(places, ".charts")
        assert slice_place["right"] < charts["left"]  # side by side
        assert slice_place["bottom"] <= page.evaluate(places, ".end")["top"]
    page.close()


@pytest.mark.parametrize(("count", "lesions", "pages"), [(1, 2, 1), (4, 10, 1), (1, 30, 2)])
def test_the_report_of_a_few_pictures_with_few_lesions_is_printed_on_one_page(
    count: int, lesions: int, pages: int, browser: Any, phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for index in range(16, 16 + count):
        grey = np.clip((phantom.scan.values[index].astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "in" / f"{index}.png")
    found = segment(read_scan(tmp_path / "in"), grey_band)
    listed = found.findings.largest_lesions[:lesions]
    findings = found.findings.model_copy(update={"largest_lesions": listed, "lesion_count": lesions})
    card = read_card(bundled_model())  # which says more of itself than the fake one
    (tmp_path / "report.html").write_text(render_report(found.segmented, findings, found.preview, card))
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    printed = page.pdf(prefer_css_page_size=True)
    page.close()
    assert len(re.findall(rb"/Type\s*/Page\b", printed)) == pages


def test_without_lesion_the_viewer_starts_in_the_middle_and_offers_nothing_about_lesions(
    browser: Any, phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    healthy = segment(phantom.scan, Segmenter(grey_band.card, RecordingEngine()))
    (tmp_path / "report.html").write_text(
        render_report(healthy.segmented, healthy.findings, healthy.preview, healthy.card)
    )
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    last = int(page.get_attribute("#slider", "max"))
    assert int(page.input_value("#slider")) == (last + 1) // 2
    for name in ("#most", "#shown", ".keys", ".of-lesion", ".key-lesion"):
        assert page.locator(name).count() == 0 or not page.is_visible(name), name
    assert "Mean: lung −" in page.inner_text("main")
    page.close()


def test_the_report_of_one_picture_has_no_slider_no_feet_no_empty_column_and_no_enlarged_preview(
    browser: Any, phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    grey = np.clip((phantom.scan.values[16].astype(np.float32) + 1250) / 1500 * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "a.png")
    segment(read_scan(tmp_path / "a.png"), grey_band).save(tmp_path / "out")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "out" / "report.html").as_uri())
    assert page.inner_text("h1") == "Slice of chest CT"
    assert not page.is_visible("#slider")
    assert not page.is_visible("#most")
    assert "feet" not in page.inner_text("main")
    assert "HU" not in page.inner_text(".lesions thead")
    drawn, own = page.evaluate(
        "(() => { const i = document.querySelector('.preview img'); return [i.width, i.naturalWidth]; })()"
    )
    assert drawn == own
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate("document.querySelector('.preview img').width") > 600  # it scrolls, so that it can be read
    page.close()


def test_a_patient_is_named_and_dated_as_people_write_it(analysis: Analysis) -> None:
    identity = Identity(source="s", patient_name="DOE^JANE^^DR", patient_id="7", birth_date="19010203")
    found = analysis.findings
    found = found.model_copy(update={"input": found.input.model_copy(update={"identity": identity})})
    text = " ".join(PageText(render_report(analysis.segmented, found, None, analysis.card)).text.split())
    assert "Patient DOE, JANE, DR" in text
    assert "Born 1901-02-03" in text


def test_without_scripts_numbers_and_preview_are_shown(browser: Any, report: Path, analysis: Analysis) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(report.as_uri())
    assert page.is_visible("figure.preview img")
    assert f"{format_ml(analysis.findings.lesion_volume_ml)} ml of lesion" in page.inner_text("main")
    page.close()


@pytest.mark.parametrize(
    ("lesion", "lung", "words"),
    [
        (0, 100, "no lesion"),
        (0.4, 100, "lesion on less than 1 % of the lung"),
        (31, 62, "lesion on 50 % of the lung"),
        (3, 2, "lesion on 100 % of the lung"),
        (3, 0, "lesion, no lung"),
    ],
)
def test_a_lesion_is_never_said_to_cover_nothing_of_the_lung(lesion: float, lung: float, words: str) -> None:
    assert describe_share(lesion, lung) == words
