"""Values that are not known: null in a result, which gives the reason under the same path.

A result is built as a tree in which `Unknown` stands for a value; `resolve` turns it into plain values and reasons.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

Value = TypeVar("Value")


@dataclass(frozen=True)
class Unknown:
    """Stands for a value that is not known, and holds the reason."""

    reason: str


def known(value: Value | None, reason: str) -> Value | Unknown:
    """Return the value itself, or `Unknown` with this reason where it is None."""
    return Unknown(reason) if value is None else value


def resolve(tree: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace every `Unknown` in nested dicts, lists and tuples by None.

    Returns:
        The tree of plain values (tuples become lists), and {dotted path of each unknown value: the reason}.
    """
    reasons: dict[str, str] = {}

    def plain(node: Any, path: str) -> Any:
        if isinstance(node, Unknown):
            reasons[path] = node.reason
            return None
        if isinstance(node, Mapping):
            return {key: plain(value, f"{path}.{key}") for key, value in node.items()}
        if isinstance(node, list | tuple):
            return [plain(value, f"{path}.{index}") for index, value in enumerate(node)]
        return node

    return {key: plain(value, key) for key, value in tree.items()}, reasons
