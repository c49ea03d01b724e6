"""What a model reads about parameters: words in annotations, and docstrings of each style."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from actors.tools.base import Tool, tool
from actors.tools.docstring import described


def descriptions(made: Tool) -> dict[str, Any]:
    return {name: each.get("description") for name, each in made.input_schema["properties"].items()}


def test_words_in_an_annotation_describe_the_parameter() -> None:
    @tool
    def forecast(  # noqa: D417
        town: Annotated[str, "Where."],
        days: Annotated[int, "How many days.", msgspec.Meta(ge=1)] = 1,
        unit: Annotated[str | None, msgspec.Meta(description="C or F.")] = None,
        plain: str = "",
    ) -> str:
        """The weather to come.

        Args:
            town: not this
            plain: From the docstring.

        """
        return f"{town} {days} {unit} {plain}"

    assert descriptions(forecast) == {
        "town": "Where.",
        "days": "How many days.",
        "unit": "C or F.",
        "plain": "From the docstring.",
    }
    assert forecast.description == "The weather to come."
    days = forecast.input_schema["properties"]["days"]
    assert days["minimum"] == 1
    assert days["default"] == 1


def test_a_docstring_as_numpy_writes_it_is_read() -> None:
    @tool
    def area(width: float, height: float, unit: str = "m", depth: float = 0) -> float:  # noqa: D417
        """Calculate an area.

        It is that of a rectangle.

        Parameters
        ----------
        width, height : float
            The sides,
            in that order.
        unit : {"m", "km"}, optional
            The unit.

        Returns
        -------
        float
            The area.

        Other Parameters
        ----------------
        depth
            Not used.

        """
        return width * height * len(unit) * (1 + depth)

    assert descriptions(area) == {
        "width": "The sides, in that order.",
        "height": "The sides, in that order.",
        "unit": "The unit.",
        "depth": "Not used.",
    }
    assert "Parameters" not in area.description
    assert area.description.startswith("Calculate an area.\n\nIt is that of a rectangle.\n\nReturns\n-------")


@pytest.mark.parametrize(
    ("docstring", "text", "words"),
    [
        (
            "Do it.\n\nArgs:\n    a: One.\n    b (int): Two\n        lines.\n\nReturns:\n    c",
            "Do it.\n\nReturns:\n    c",
            {"a": "One.", "b": "Two lines."},
        ),
        ("Do it.\n\nKeyword Args:\n    a: One.", "Do it.", {"a": "One."}),
        ("Do it.\n\n:param int a: One.\n:type a: int\n:returns: c", "Do it.\n\n:returns: c", {"a": "One."}),
        ("Do it.\n\nParameters\n----------\n", "Do it.", {}),
        ("Parameters\n----------\na\n", "", {"a": ""}),
        ("A title\n-------\nand words", "A title\n-------\nand words", {}),
        ("Do it.\n\nParameters\n----------\n*args : int\n    Many.", "Do it.", {"args": "Many."}),
        (None, "", {}),
    ],
)
def test_each_style_of_docstring_is_taken_apart(
    docstring: str | None, text: str, words: dict[str, str]
) -> None:
    assert described(docstring) == (text, words)
