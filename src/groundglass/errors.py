"""Every error that groundglass raises on purpose.

    GroundglassError               exit 1: the program could not finish
    ├── InputError                 exit 3: the input was refused; what was found, what was expected, how to fix it
    │   ├── FormatError            the file is damaged, empty, too large, or not in a format that is read here
    │   ├── IntensityError         the intensities are not recognised as CT
    │   ├── LungError              no lung was found
    │   └── DatasetError           a training folder is not laid out as expected
    ├── ConfigError                exit 2: a configuration has an unknown key or a bad value
    ├── ModelError                 exit 1: a model file is damaged or does not match its card
    ├── EngineError                exit 1: no engine can run the model on this machine
    ├── TrainingError              exit 1: a training could not be completed (NaN loss, no data left)
    ├── OutputError                exit 1: the results could not be written
    ├── PacsError                  exit 1: a PACS cannot be reached, refuses a request, or gives an unexpected answer
    └── BatchError                 exit 4: some scans of a batch, or series of a PACS, failed; the others are done

The command line prints the message on one line and exits with `exit_code`.
"""

from __future__ import annotations

import traceback
from pathlib import Path

OUT_OF_MEMORY = "it needs more memory than one scan may take (16 GiB), or than there is: cut it into smaller scans"


class GroundglassError(Exception):
    """Base class of all errors that groundglass raises on purpose."""

    exit_code = 1


class InputError(GroundglassError):
    """The input was refused. The message states what was found, what was expected, and how to fix it."""

    exit_code = 3


class FormatError(InputError):
    """The file is damaged, empty, too large, or not in a format that groundglass reads."""


class IntensityError(InputError):
    """The intensities of the scan are not recognised as CT."""


class LungError(InputError):
    """No lung was found where one is needed."""


class DatasetError(InputError):
    """A training folder is not laid out as expected, or its pairs do not match."""


class ConfigError(GroundglassError):
    """A configuration has an unknown key, a missing one, or a bad value."""

    exit_code = 2


class ModelError(GroundglassError):
    """A model file is missing or damaged, or does not match its card."""


class EngineError(GroundglassError):
    """No engine on this machine can run the model."""


class TrainingError(GroundglassError):
    """A training could not be completed; its last good checkpoint is kept."""


class OutputError(GroundglassError):
    """The results could not be written."""


class OccupiedError(OutputError):
    """A folder holds files of others, which results would replace, or would lie beside as if they belonged together."""


class PacsError(GroundglassError):
    """A PACS cannot be reached, refuses a request, or gives an unexpected answer."""


class BatchError(GroundglassError):
    """Some scans of a batch, or series of a PACS, failed; the others are done."""

    exit_code = 4


def origin(error: Exception) -> str:
    """Return where an unforeseen error was raised, such as `KeyError in nifti.py:12`.

    The text of the error is left out, because it may quote patient data from a header.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
