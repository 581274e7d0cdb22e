"""Unknown values, and the strict records that hold them."""

import pytest
from pydantic import ValidationError

from groundglass.strict_model import StrictModel, first_error
from groundglass.unknown import Unknown, known, resolve


class Size(StrictModel):
    width: float
    names: tuple[str, ...] = ()


class Box(StrictModel):
    size: Size


def test_unknown_values_become_none_with_their_path_and_reason() -> None:
    tree = {
        "volume": Unknown("no spacing"),
        "lung": {"left": Unknown("not found"), "right": 1.5},
        "lesions": [{"area": 3}, {"area": Unknown("too small"), "centre": (1.0, Unknown("no affine"))}],
        "record": Size(width=2.0),
        "none": None,
    }
    values, reasons = resolve(tree)
    assert values == {
        "volume": None,
        "lung": {"left": None, "right": 1.5},
        "lesions": [{"area": 3}, {"area": None, "centre": [1.0, None]}],
        "record": Size(width=2.0),
        "none": None,
    }
    assert reasons == {
        "volume": "no spacing",
        "lung.left": "not found",
        "lesions.1.area": "too small",
        "lesions.1.centre.1": "no affine",
    }


def test_the_tree_itself_is_not_changed() -> None:
    tree = {"lung": {"left": Unknown("not found")}}
    resolve(tree)
    assert tree == {"lung": {"left": Unknown("not found")}}


def test_a_known_value_stays_and_none_becomes_unknown() -> None:
    assert known(0.0, "why") == 0.0
    assert known(None, "why") == Unknown("why")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "wide"])
def test_records_refuse_values_that_are_not_numbers(value: object) -> None:
    with pytest.raises(ValidationError):
        Size.model_validate({"width": value})


def test_records_refuse_unknown_keys_and_changes() -> None:
    with pytest.raises(ValidationError, match="colour"):
        Size.model_validate({"width": 1, "colour": "red"})
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Size(width=1), "width", 2)  # noqa: B010


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"size": {"width": "wide"}}', "size.width: Input should be a valid number"),
        ('{"size": {"width": 1, "names": ["a", 2]}}', "size.names.1: Input should be a valid string"),
        ("{", "Invalid JSON"),
    ],
)
def test_the_first_error_is_one_line_that_names_the_key(text: str, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Box.model_validate_json(text)
    line = first_error(caught.value)
    assert line.startswith(message)
    assert "\n" not in line
