"""Annotations without quotes: evaluated when a function is made, from Python 3.14 on when they are asked for."""

import sys
from typing import TYPE_CHECKING

import pytest

from actors.tools.base import tool
from actors.tools.toolbox import Toolbox
from protocol.errors import ToolDefinitionError

if TYPE_CHECKING:
    from decimal import Decimal

    from actors.tools.base import ToolContext


def test_a_context_that_only_type_checkers_import_is_handed_in():
    @tool
    def pwd(within: "ToolContext", word: str) -> str:
        return f"{word} {within.pwd}"

    (spec,) = Toolbox([pwd]).specs
    assert list(spec.input_schema["properties"]) == ["word"]


def test_the_type_in_its_brackets_may_be_imported_for_type_checkers_alone():
    @tool
    def price(word: str, within: "ToolContext[Decimal]") -> str:
        return f"{word} {within.deps}"

    (spec,) = Toolbox([price]).specs
    assert list(spec.input_schema["properties"]) == ["word"]

    def pay(amount: "Decimal", within: "ToolContext[Decimal]") -> str:
        return f"{amount} {within.deps}"

    with pytest.raises(ToolDefinitionError, match="'Decimal' cannot be resolved"):
        tool(pay)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="such a function cannot be made")
def test_it_is_handed_in_without_quotes_as_well():
    @tool
    def pwd(word: str, within: ToolContext) -> str:
        return f"{word} {within.pwd}"

    (spec,) = Toolbox([pwd]).specs
    assert "within" not in spec.input_schema["properties"]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="such a function cannot be made")
def test_a_name_that_cannot_be_resolved_is_refused_by_name():
    def pay(amount: Decimal) -> str:
        return str(amount)

    with pytest.raises(ToolDefinitionError, match="'Decimal' cannot be resolved"):
        tool(pay)
