"""Messages on the page name no option of the command line, which a page does not have."""

import pytest

from groundglass.apps.service.page_text import for_the_page


@pytest.mark.parametrize(
    ("message", "worded"),
    [
        (
            "series 2 was chosen; others there: 3 (40 slices) (--series NUMBER takes another)",
            "series 2 was chosen; others there: 3 (40 slices)",
        ),
        (
            "the scan is one series, or name one of these with --series: 2; 3",
            "the scan is one series, or choose one of these below: 2; 3",
        ),
        ("scan is text, expected a CT", "the upload is text, expected a CT"),
        (
            "it holds 2 acquisitions, 1 and 2: --acquisition NUMBER takes one of them",
            "it holds 2 acquisitions, 1 and 2",
        ),
        (
            "scan: the series is no CT (an MR): --force-modality reads it all the same",
            "the upload: the series is no CT (an MR)",
        ),
        ("the scan has 4 slices", "the scan has 4 slices"),
        (
            "scan holds no DICOM, PNG or JPEG slice but 2 without extension: give one file, such as 000001, or the "
            "folder to `groundglass batch`",
            "the upload holds no DICOM, PNG or JPEG slice but 2 without extension: send one scan in one file",
        ),
        (
            "scan holds no DICOM image but 50 ZIP archives: unpack it, and give one of them, such as 0.zip, or their "
            "folder to `groundglass batch`",
            "the upload holds no DICOM image but 50 ZIP archives: unpack it, and send one of them",
        ),
        (
            "scan keeps its voxels in another file (.raw), which is not beside it: find that file, and put it there "
            "under the name that the header states",
            "the upload keeps its voxels in another file (.raw), which the page does not take: save both as one file "
            "(.mha, .nrrd or .nii.gz)",
        ),
    ],
)
def test_options_of_the_command_line_are_left_out(message: str, worded: str) -> None:
    assert for_the_page(message) == worded


@pytest.mark.parametrize("text", ["a" * 200_000, "a" + " " * 200_000 + "b", "(" * 200_000, " --a" * 2_000])
def test_a_long_text_from_a_header_takes_no_time_that_grows_with_its_square(text: str) -> None:
    assert for_the_page(f"series 2 (kernel {text})") == f"series 2 (kernel {text})"  # it would take an hour
