"""The base class of every record that is read from or written to a file: frozen, and strict about its keys."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError


def _ascending(window: tuple[float, float]) -> tuple[float, float]:
    if window[0] >= window[1]:
        raise ValueError("the window's lower end comes first")
    return window


WindowEnds = Annotated[tuple[float, float], AfterValidator(_ascending)]  # lower and upper end in HU


class StrictModel(BaseModel):
    """A frozen pydantic model that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def first_error(error: ValidationError) -> str:
    """Describe the first validation error on one line: `training.epochs: Input should be a valid integer`."""
    first = error.errors()[0]
    path = ".".join(map(str, first["loc"]))  # empty where the text as a whole is not JSON
    return f"{path}: {first['msg']}" if path else first["msg"]
