"""What the offline model says fits the type that was asked for, wherever a type can be filled by so little."""

import datetime as dt
import uuid
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from actors.llm.offline.forms import in_form
from actors.llm.output import Fit, Misfit, parse_output, schema_for
from actors.system import PodSystem
from protocol.errors import OutputInvalid, RunFailed
from protocol.manifest import PodManifest
from protocol.scope import Scope


class Mood(Enum):
    CALM = "calm"
    LOUD = "loud"


class Leaf(Struct, tag="leaf"):
    size: Annotated[int, Meta(gt=0)]


class Branch(Struct, tag="branch"):
    left: "Leaf | Branch"
    note: str | None = None


class Ring(Struct):
    next: "Ring"


class Report(Struct):
    text: str
    words: int
    share: Annotated[float, Meta(ge=0, le=1)]
    mood: Mood
    kind: Literal["short", "long"]
    tree: Leaf | Branch
    sizes: Annotated[list[int], Meta(min_length=1)]
    lines: list[str] = []
    by_name: dict[str, int] = {}
    at: Annotated[dt.datetime, Meta(tz=True)] | None = None
    due: dt.date | None = None
    key: uuid.UUID | None = None
    price: Decimal | None = None
    data: bytes | None = None
    pair: tuple[int, str] = (1, "")
    title: Annotated[str, Meta(min_length=3, max_length=9)] = "none"
    odd: Annotated[str, Meta(pattern="^x+$")] | None = None
    flag: bool = False
    anything: Any = None


KINDS = [
    Report,
    Leaf,
    Branch,
    int,
    str,
    bool,
    float,
    None,
    list[Leaf],
    list[str],
    dict[str, int],
    Mood,
    tuple[int, ...],
]


@given(st.sampled_from(KINDS), st.text(st.characters(exclude_categories=["Cs"])))
def test_whatever_was_said_fits_the_type(kind: object, words: str):
    assert isinstance(parse_output(in_form(schema_for(kind), words), kind), Fit)


def filled(kind: object, words: str) -> object:
    read = parse_output(in_form(schema_for(kind), words), kind)
    assert isinstance(read, Fit), read
    return read.value


def test_what_the_words_hold_is_found_in_them():
    report = filled(Report, "a.txt: yes, it is loud.\n3 words and 2 more")
    assert (report.text, report.words, report.flag) == (
        "a.txt: yes, it is loud.\n3 words and 2 more",
        3,
        True,
    )
    assert report.mood is Mood.LOUD
    assert report.lines == ["a.txt: yes, it is loud.", "3 words and 2 more"]
    assert filled(list[int], "3 words and 2 more") == [3, 2]
    assert filled(list[int], f"{'9' * 400} and 2 more") == [2]
    assert filled(float, "9" * 400) == 0


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Ring, "it has no end"),
        (Annotated[str, Meta(pattern="^x+$")], "value: a text of a pattern"),
        (Annotated[int, Meta(multiple_of=7)], "value: a multiple of a number"),
        (Annotated[float, Meta(gt=0, lt=1)], "value: a number between two"),
    ],
)
def test_what_so_little_cannot_fill_is_said_in_words(kind: object, why: str):
    words = in_form(schema_for(kind), "8 words")
    assert words.startswith("I am a small program and no language model")
    assert why in words
    assert isinstance(parse_output(words, kind), Misfit)


class Counted(Struct):
    answer: str
    words: int


async def test_a_typed_answer_can_be_had_without_a_key(tmp_path: Path):
    (tmp_path / "a").write_text("one two three\n")

    manifest = PodManifest.of(
        pwd=str(tmp_path), scope=Scope.readable(tmp_path), tools={"builtin": ["files", "search"]}
    )
    async with PodSystem() as system:
        pod = await system.spawn(manifest)
        assert (await pod.run("count words in a", output=Counted)).output == Counted("a has 3 words.", 3)
        with pytest.raises(RunFailed, match="holds no JSON") as caught:
            await pod.run("hello", output=Ring)
        assert isinstance(caught.value.cause, OutputInvalid)
