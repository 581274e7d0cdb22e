"""The overview of a cohort: outliers, distribution, thumbnails, and its table in a browser."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from groundglass.apps.batch.overview import find_outliers, render_overview
from groundglass.apps.batch.records import ItemRecord, ItemStatus, KeyNumbers
from groundglass.report.findings import ModelRef
from groundglass.report.thumbnail import mark_areas, read_thumbnail, save_preview

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM = Path("/usr/bin/chromium")
MODEL = ModelRef(name="m", sha256="0" * 64)


def numbers(percent: float | None, **known: object) -> KeyNumbers:
    counts = {"lesions": 1, "slices": 10, "lesion_slices": 2, "intensity": "hu", "warnings": ""}
    values = {"lesion_percent": percent, "lesion_ml": percent and 40 * percent, "lung_ml": 4000.0}
    return KeyNumbers.model_validate(dict.fromkeys(KeyNumbers.model_fields) | counts | values | known)


def record(case: str, found: KeyNumbers | None, reason: str | None = None) -> ItemRecord:
    return ItemRecord(
        case=case, status=ItemStatus.DONE if found else ItemStatus.FAILED, reason=reason, seconds=1.0, source=case,
        fingerprint="", intensity=None, model=MODEL, numbers=found,
    )  # fmt: skip


def test_outliers_lie_beyond_the_fences_of_the_cohort() -> None:
    cases = {f"c{i}": numbers(float(i), lung_ml=4000.0 + i) for i in range(1, 12)}
    cases["small"] = numbers(5.0, lung_ml=900.0)
    cases["much"] = numbers(60.0)
    assert find_outliers(cases) == {
        "much": ["lesion's share of the lung high (60.0 %)"],
        "small": ["lung volume low (900 ml)"],
    }


def test_in_a_small_cohort_no_case_is_called_an_outlier() -> None:
    assert find_outliers({f"c{i}": numbers(float(i**4)) for i in range(7)}) == {}


def cohort(folder: Path) -> str:
    for name, colour in (("a", "red"), ("b <i>", "blue")):
        (folder / name).mkdir()
        Image.new("RGB", (1480, 900), colour).save(folder / name / "preview.png")
    return render_overview(
        [
            record("a", numbers(3.0, extent="minimal", warnings="the lungs are small")),
            record("b <i>", numbers(30.0, extent="extensive")),
            record("c", numbers(None)),
            record("d", None, "the scan is damaged"),
        ],
        folder,
    )


def test_the_overview_states_counts_quartiles_failures_and_warnings_and_shows_thumbnails(tmp_path: Path) -> None:
    page = cohort(tmp_path).replace("\N{NO-BREAK SPACE}", " ")
    assert "3 of 4 cases are done. Lesions fill 16.5 % of the lung in the median case" in page
    assert "<td>d</td><td>failed</td><td>the scan is damaged</td>" in page
    assert "<td>the lungs are small</td>" in page
    assert page.count("data:image/jpeg") == 2
    assert page.count("no preview") == 1
    assert "<i>" not in page
    assert 'href="b%20%3Ci%3E/report.html"' in page
    assert page.index(">b &lt;i&gt;</a>") < page.index(">a</a>")  # most lesion first


def test_the_interval_of_the_share_is_shown_if_the_model_states_one(tmp_path: Path) -> None:
    within = numbers(3.0, lesion_percent_low=1.5, lesion_percent_high=4.0)
    page = render_overview([record("a", within), record("b", numbers(2.0))], tmp_path)
    assert '<th scope="col">80 % interval</th>' in page
    assert "<td>3.0</td><td>1.5 to 4.0</td>" in page
    assert "<td>2.0</td><td>-</td>" in page
    assert "3.0 % (1.5 to 4.0), 120 ml" in page
    assert "interval" not in cohort(tmp_path).partition("<h2>Cases</h2>")[2]


def test_a_click_is_never_asked_for_on_paper_and_no_column_is_cut_off_there(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "overview.html").write_text(cohort(tmp_path))
    page = browser.new_page(viewport={"width": 703, "height": 1000})  # A4 within its margins
    page.emulate_media(media="print")
    page.goto((tmp_path / "overview.html").as_uri())
    assert not page.is_visible("text=A click on a title sorts by it")
    assert page.evaluate("document.documentElement.scrollWidth") == 703
    page.close()


@pytest.mark.parametrize("width", [703, 1280])  # A4 within its margins, and a screen
def test_long_names_of_cases_cut_off_no_column(width: int, browser: Any, tmp_path: Path) -> None:
    name = "study-2020-04-15_THORAX_ROUTINE_LUNG_1.0_Bl57_with_a_name_that_is_long_and_has_no_end.nii"
    cases = [record(f"{i}_{name}", numbers(float(i), lung_ml=4000.0 + i, warnings="many words " * 9)) for i in range(9)]
    cases.append(record(f"9_{name}", numbers(90.0, lung_ml=400.0)))
    cases.append(record(f"{name}_10", None, f"{name}: the scan is damaged"))
    (tmp_path / "overview.html").write_text(render_overview(cases, tmp_path))
    page = browser.new_page(viewport={"width": width, "height": 1000})
    page.emulate_media(media="print" if width == 703 else "screen")
    page.goto((tmp_path / "overview.html").as_uri())
    ends = "() => [...document.querySelectorAll('td, th')].map((cell) => cell.getBoundingClientRect().right)"
    assert max(page.evaluate(ends)) <= width
    page.close()


def test_numbers_are_sorted_by_size_also_where_they_are_nearly_0(browser: Any, tmp_path: Path) -> None:
    cases = [record(name, numbers(value)) for name, value in (("a", 2.0), ("b", 0.01), ("c", 0.0), ("d", None))]
    (tmp_path / "overview.html").write_text(render_overview(cases, tmp_path))
    page = browser.new_page()
    page.goto((tmp_path / "overview.html").as_uri())
    page.click("button:has-text('lesion, % of lung')")
    assert page.locator("table[aria-label=Cases] tbody tr td:first-child").all_inner_texts() == ["c", "b", "a", "d"]
    page.close()


def test_a_thumbnail_is_the_slice_with_most_lesion_beside_the_view_from_the_front(tmp_path: Path) -> None:
    preview = Image.new("RGB", (600, 300), "white")
    preview.paste("red", (20, 30, 120, 130))
    preview.paste("blue", (400, 10, 500, 130))
    mark_areas(preview, [(20, 30, 120, 130), (400, 10, 500, 130)])
    save_preview(preview, tmp_path / "preview.png")
    thumbnail = read_thumbnail(tmp_path / "preview.png", (100, 100))
    assert thumbnail.size == (100, 60)
    assert [thumbnail.getpixel((x, 30)) for x in (20, 80)] == [(255, 0, 0), (0, 0, 255)]
    Image.new("RGB", (600, 300), "red").save(tmp_path / "preview.png")  # of an earlier version
    assert read_thumbnail(tmp_path / "preview.png", (100, 100)).size == (100, 50)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Any]":
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed (Debian: chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--headless", "--no-sandbox"])


def test_a_click_on_a_title_sorts_the_cases(browser: Any, tmp_path: Path) -> None:
    (tmp_path / "overview.html").write_text(cohort(tmp_path))
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto((tmp_path / "overview.html").as_uri())
    cells = "table[aria-label='Cases'] tbody tr td:first-child"
    assert page.locator(cells).all_inner_texts() == ["b <i>", "a", "c"]
    title = page.locator("table[aria-label='Cases'] thead button").nth(1)
    title.dispatch_event("click")
    assert page.locator(cells).all_inner_texts() == ["a", "b <i>", "c"]  # unknown last
    title.dispatch_event("click")
    assert page.locator(cells).all_inner_texts() == ["c", "b <i>", "a"]
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
