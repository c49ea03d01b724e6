"""Names and texts that look the same: the one that is there is used, and said; no twin is made."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.tools.alike import alike, real_path
from actors.tools.filesystem.view import view
from actors.tools.scope import Located, check, locate, resolved
from protocol.errors import ScopeRefused
from protocol.scope import Rule, Scope

NFC, NFD = unicodedata.normalize("NFC", "café.txt"), unicodedata.normalize("NFD", "café.txt")
PAIRS = [
    (NFD, NFC),
    (NFC, NFD),
    ("Screenshot at 4.42.48\u202fPM.txt", "Screenshot at 4.42.48 PM.txt"),
    ("v\u00a013.txt", "v 13.txt"),
    ("Capture d\u2019écran.txt", "Capture d'écran.txt"),
    ("say \u201chello\u201d.txt", 'say "hello".txt'),
    (unicodedata.normalize("NFD", "한국어.txt"), "한국어.txt"),
    ("caf\udce9.txt", "caf\ufffd.txt"),
]


@pytest.mark.parametrize(("real", "asked"), PAIRS)
def test_a_file_is_found_by_a_name_that_looks_like_its_own(pwd, use, real, asked):
    (pwd / real).write_text("hello\n")
    result = use("read_file", path=asked)
    assert not result.is_error
    assert result.text.endswith("hello\n")
    assert "looks the same" in result.text.splitlines()[0]
    assert use("count_words", path=asked).text.endswith("1 words, 1 lines, 6 bytes")
    assert "hello" in use("grep", pattern="hello", path=asked).text
    assert use("find_files", pattern=asked).text in {real, real.encode("utf-8", "replace").decode(), asked}
    assert "hello" in use("grep", pattern="hello", glob=asked).text


@pytest.mark.parametrize(("real", "asked"), PAIRS)
@pytest.mark.parametrize("append", [False, True])
def test_writing_makes_no_twin(pwd, use, real, asked, append):
    (pwd / real).write_text("hello\n")
    result = use("write_file", path=asked, content="second\n", append=append)
    assert not result.is_error
    assert "looks the same" in result.text
    assert os.listdir(pwd) == [real]  # noqa: PTH208 - names as they are
    assert not use("edit_file", path=asked, old="second", new="third").is_error
    assert (pwd / real).read_text().endswith("third\n")


def test_folders_on_the_way_are_found_too_and_the_rest_is_made_there(pwd, use):
    (pwd / NFD).mkdir()
    assert "wrote" in use("write_file", path=f"{NFC}/new/file", content="x").text
    assert (pwd / NFD / "new" / "file").read_text() == "x"
    assert "file" in use("list_files", path=f"{NFC}/new").text
    assert os.listdir(pwd) == [NFD]  # noqa: PTH208


def test_links_behind_a_name_that_looks_the_same_are_followed_and_lead_nowhere_outside(tmp_path):
    folder = tmp_path.resolve() / "in"
    (folder / "caf\u00e9").mkdir(parents=True)
    (folder / "caf\u00e9/near").symlink_to(folder)
    (folder / "caf\u00e9/far").symlink_to(tmp_path)
    (tmp_path / "secret").touch()
    scope = resolved(Scope.writable(folder))
    assert check(scope, folder, "cafe\u0301/near", "read") == folder
    with pytest.raises(ScopeRefused):
        check(scope, folder, "cafe\u0301/far/secret", "read")


def test_of_several_that_look_the_same_none_is_taken(pwd, use):
    (pwd / "a\u00a0b").write_text("1")
    (pwd / "a\u202fb").write_text("2")
    for tool, more in (("read_file", {}), ("write_file", {"content": "x"})):
        result = use(tool, path="a b", **more)
        assert result.is_error
        assert "'a\\xa0b' and 'a\\u202fb'" in result.text
    assert use("read_file", path="a\u202fb").text == "2\n", "the name itself is the name itself"
    (pwd / "a b").write_text("3")
    assert use("read_file", path="a b").text == "3\n"


def test_the_scope_is_asked_for_the_real_name(pwd, use):
    (pwd / NFD).write_text("hidden\n")
    (pwd / "open").mkdir()
    denied = Scope((Rule(str(pwd), "write"),), (Rule(str(pwd / NFD)),))
    by_the_other = Scope((Rule(str(pwd), "write"),), (Rule(str(pwd / NFC)),))
    for scope in (denied, by_the_other):
        for name in (NFC, NFD):
            result = use("read_file", path=name, scope=scope)
            assert result.is_error
            assert "hidden" not in result.text
        assert use("write_file", path=NFC, content="x", scope=scope).is_error
    (pwd / "open" / NFD).symlink_to(pwd / NFD)
    assert use("read_file", path=f"open/{NFC}", scope=Scope.readable(pwd / "open")).is_error
    outside = use("read_file", path=f"../pod/{NFC}", scope=Scope.readable(pwd / "open"))
    assert NFD not in outside.text
    assert "looks" not in outside.text, "nobody looks into a folder that may not be read"


def test_texts_that_only_look_the_same_are_found(pwd, use):
    (pwd / "q.txt").write_text("say \u201chello\u201d \u2013 it\u2019s\u00a0fine\n")
    result = use("edit_file", path="q.txt", old="it's fine", new="it's ok")
    assert "old differed from the file in spaces, quotes" in result.text
    assert (pwd / "q.txt").read_text() == "say \u201chello\u201d \u2013 it's ok\n"
    assert use("grep", pattern='say "hello"').text.startswith("q.txt:1: say \u201chello")
    (pwd / "t.txt").write_text(unicodedata.normalize("NFD", "naïve résumé\n"))
    assert use("grep", pattern="résumé").text.startswith("t.txt:1:")
    assert use("grep", pattern="RÉSUMÉ", ignore_case=True).text.startswith("t.txt:1:")
    refused = use("edit_file", path="t.txt", old="résumé", new="é")
    assert refused.is_error
    assert "another Unicode form" in refused.text
    assert "any_form" in refused.text
    assert not use("edit_file", path="t.txt", old="résumé", new="é", any_form=True).is_error
    assert (pwd / "t.txt").read_text() == unicodedata.normalize("NFD", "naïve é\n"), "in the form of the file"


CHARACTERS = st.sampled_from(
    [*"ab'\" \n\r", "\u00e9", "e\u0301", "\u00a0", "\u2019", "\u201d", "\uac00", "\u1100\u1161", "\udcff"]
)
TEXTS = st.lists(CHARACTERS, max_size=12).map("".join)


@given(TEXTS, st.booleans(), st.booleans())
def test_a_view_is_the_text_in_another_form_and_knows_where_it_comes_from(text, loose, cr_ends):
    seen = view(text, loose=loose, cr_ends=cr_ends)
    ends = text.replace("\r\n", "\n").replace("\r", "\n") if cr_ends else text.replace("\r\n", "\n")
    assert seen.text == (alike(ends) if loose else ends)
    for start in range(len(seen.text)):
        for end in range(start + 1, min(start + 4, len(seen.text)) + 1):
            wanted = seen.text[start:end]
            for first, last in seen.spans(wanted):
                assert view(text[first:last], loose=loose, cr_ends=cr_ends).text == wanted


NAMES = TEXTS.map(lambda text: text[:4].replace("\r", "").replace("\n", "")).filter(bool)


@given(st.lists(NAMES, max_size=4), NAMES)
def test_a_real_path_is_the_path_itself_or_the_one_that_looks_like_it(tmp_path_factory, names, asked):
    folder = tmp_path_factory.mktemp("names")
    for name in names:
        (folder / name).touch()
    twins = [name for name in {*names} if alike(name) == alike(asked) and name != asked]
    try:
        real = real_path(folder / asked, lambda _: True)
    except ScopeRefused:
        assert len(twins) > 1
        return
    assert real.name == (asked if asked in names or not twins else twins[0])


def test_without_a_twin_everything_is_as_it_was(tmp_path):
    scope = resolved(Scope.writable(tmp_path))
    assert locate(scope, tmp_path, "new/é", "write") == Located(
        Path(os.path.realpath(tmp_path)) / "new" / "é"
    )
    assert check(scope, tmp_path, ".", "read") == Path(os.path.realpath(tmp_path))
