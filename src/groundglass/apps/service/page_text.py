"""Messages of the program as the page words them: without options of the command line, which a page does not have."""

from __future__ import annotations

import re

# Each repetition has a limit: without one, the time grows with the square of the length of texts from a file's header.
_IN_BRACKETS = re.compile(r"\s?\([^()]{0,300}--[a-z][^()]{0,300}\)")
_WORDED = (
    (re.compile(r"name one of these with --series"), "choose one of these below"),
    (re.compile(r"[:;,]? or have the images ordered by number$"), ""),
    (re.compile(r"[:;,]? --[a-z-]{1,30} \S{1,100} takes one of them$"), ""),
    (re.compile(r"[:;,]? --force-modality reads it all the same$"), ""),
    (re.compile(r"[:;,]?[^:;,]{0,300}--intensity \S{1,100}$"), ""),
)
_OF_FILES = (  # advice on files in a folder, which a page does not have
    (re.compile(r"give one of them, such as .{1,200} to .groundglass batch.$"), "send one of them"),
    (re.compile(r"give one file, such as .{1,200} to .groundglass batch.$"), "send one scan in one file"),
    (
        re.compile(r"(another file \(\S{1,20}\)), which is not beside it: .{1,100}$"),
        r"\1, which the page does not take: save both as one file (.mha, .nrrd or .nii.gz)",
    ),
)
_UPLOAD = re.compile(r"^scan\b(?! has)")  # the name of an uploaded file in the folder of its job


def for_the_page(message: str) -> str:
    """Return a refusal or a warning without the options of the command line that it names."""
    if "--" in message:
        message = _IN_BRACKETS.sub("", message)
        for found, worded in _WORDED:
            message = found.sub(worded, message)
    for found, worded in _OF_FILES:
        message = found.sub(worded, message)
    return _UPLOAD.sub("the upload", message)
