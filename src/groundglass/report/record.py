"""What every record of a result has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """Frozen, strict about its keys, and never NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
