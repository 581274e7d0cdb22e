"""Every text in the HTML reports is escaped, wherever it comes from."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import BaseModel

from groundglass.inference.model_card import ModelCard
from groundglass.inference.segmenter import Segmenter
from groundglass.io.reader import read_scan
from groundglass.report.analysis import segment
from groundglass.report.charts import Chart
from groundglass.report.findings import Identity, ModelRef
from groundglass.report.follow_up import Visit, compare_visits
from groundglass.report.follow_up_page import render_follow_up
from groundglass.report.html import render
from groundglass.report.report_page import render_report
from groundglass.scan.phantom import Phantom
from helpers.dicom_phantom import write_series

HOSTILE = """</title></style></script></svg>'"><planted onclick="planted()">&amp;{{ 7 * 7 }}</planted>"""


class Document(HTMLParser):
    """The elements of a document, its text, and its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(str(html))  # `Markup` would escape what the parser does with it

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def check(html: str, times: int = 1) -> None:
    """Check that a hostile text is shown as it is, at least so many times, and adds no element or attribute."""
    document = Document(html)
    assert "planted" not in document.tags
    assert not [name for name, _ in document.attributes if name.startswith("on")]
    shown = document.text.count(HOSTILE) + sum(HOSTILE in (value or "") for _, value in document.attributes)
    assert shown >= times
    assert "<planted" not in html


def with_hostile_texts(model: BaseModel, *names: str) -> dict[str, Any]:
    """Updates that make these fields of a record hostile: texts, tuples of texts and mappings to texts."""
    updates: dict[str, Any] = {}
    for name in names:
        value = getattr(model, name)
        if isinstance(value, Mapping):
            updates[name] = {f"path.{HOSTILE}": HOSTILE}
        else:
            updates[name] = (HOSTILE,) if isinstance(value, tuple) else HOSTILE
    return updates


@pytest.fixture(scope="module")
def hostile_card(grey_band: Segmenter) -> ModelCard:
    card = grey_band.card
    names = ("name", "intended_use", "training_data", "never_trained_on", "limits", "classes")
    return card.model_copy(update=with_hostile_texts(card, *names))


def test_every_text_of_the_report_is_escaped(phantom: Phantom, grey_band: Segmenter, hostile_card: ModelCard) -> None:
    analysis = segment(phantom.scan, grey_band, with_identity=True)
    findings = analysis.findings
    identity = Identity(source=HOSTILE, patient_name=HOSTILE, patient_id=HOSTILE, birth_date=HOSTILE)
    hostile = findings.model_copy(
        update={
            **with_hostile_texts(findings, "warnings", "unknown", "version"),
            "input": findings.input.model_copy(update={"identity": identity}),
            "intensity": findings.intensity.model_copy(update={"reason": HOSTILE, "kind": HOSTILE}),
            "model": ModelRef(name=HOSTILE, sha256=HOSTILE),
        }
    )
    page = render_report(analysis.segmented, hostile, Image.new("RGB", (8, 8)), hostile_card)
    check(page, times=12)
    assert Document(page).tags.count("script") == 2  # the slices, and the viewer


@pytest.mark.thorough
def test_texts_of_a_dicom_header_and_a_file_name_are_escaped(
    phantom: Phantom, grey_band: Segmenter, tmp_path: Path
) -> None:
    folder = tmp_path / "<planted onclick=x>"
    write_series(phantom.scan, folder, SeriesDescription="<planted>", PatientName="<planted>", PatientID="<planted>")
    scan = replace(read_scan(folder), notes=(HOSTILE,))
    segment(scan, grey_band, with_identity=True).save(tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    check(page)
    assert page.count("&lt;planted") >= 4  # source, name, id and note


def test_every_text_of_the_follow_up_report_is_escaped() -> None:
    visit = Visit(
        folder=HOSTILE, taken=None, lesion_volume_ml=10.0, lesion_interval_ml=(9.0, 11.0), lung_volume_ml=4000.0,
        lesion_share_of_lung_percent=1.0, share_interval_percent=(0.9, 1.1), slice_distance_mm=1.0, kernel=HOSTILE,
        calibrated=True, warnings=(HOSTILE,),
    )  # fmt: skip
    dated = visit.model_copy(update={"taken": datetime(2020, 3, 1), "kernel": f"other {HOSTILE}"})
    model = ModelRef(name=HOSTILE, sha256=HOSTILE)
    result = compare_visits([dated, dated, visit], 0.1, model).model_copy(update={"version": HOSTILE})
    check(render_follow_up(result), times=5)  # three links, the warning about kernels, the model


def test_labels_and_attributes_of_a_chart_are_escaped() -> None:
    chart = Chart((0, 1), 1)
    chart.x_label(0.5, HOSTILE)
    chart.x_title(0.5, HOSTILE)
    chart.text(1, 1, HOSTILE, HOSTILE)
    chart.line([(0, 0), (1, 1)], HOSTILE)
    chart.add("rect", {"data-name": HOSTILE}, HOSTILE)
    svg = chart.svg(HOSTILE)
    check(svg, times=8)
    check(render("document.html", HOSTILE))


def test_a_title_is_escaped_and_the_policy_allows_only_the_style_sheet() -> None:
    page = render("document.html", HOSTILE)
    check(page)
    (policy,) = [
        value for name, value in Document(page).attributes if name == "content" and "default-src" in str(value)
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "script-src" not in policy
