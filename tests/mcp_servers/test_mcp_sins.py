"""MCP servers that do what no server should: their pods go on, and models learn what happened."""

import re

import pytest
from mcp_kit import at, at_a_port, follow, having, play, raw, servers

from actors.llm.scripted import ScriptedClient, call, say
from actors.system import PodSystem
from actors.tools.base import ToolContext
from protocol.errors import ToolError
from protocol.manifest import PodManifest
from protocol.scope import Scope


async def test_what_is_no_message_is_passed_over_and_an_answer_behind_it_counts() -> None:
    played = await play("raw__garbage", ("raw__echo", {"text": "fine"}), of=raw("chatty"))
    assert played.texts == ["half �", "fine"]


async def test_answers_to_nobody_and_second_answers_are_dropped() -> None:
    played = await play("raw__wrong_id", "raw__twice", ("raw__echo", {"text": "fine"}), of=raw())
    assert played.texts == ["as a text", "the first", "fine"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"result": {"content": [{"type": "text", "text": "of no version"}]}}, "of no version"),
        ({"jsonrpc": "2.0", "result": None}, "MCP server 'raw' returned an invalid result"),
        ({"jsonrpc": "2.0", "result": "done"}, "MCP server 'raw' returned an invalid result"),
        ({"jsonrpc": "2.0", "error": "no licence"}, "MCP server 'raw' refused: no licence (-32603)"),
        ({"jsonrpc": "2.0", "error": {"message": None}}, "MCP server 'raw' refused: None (-32603)"),
    ],
)
async def test_an_answer_that_is_nearly_one_ends_its_call_at_once(
    answer: dict[str, object], words: str
) -> None:
    played = await play(("raw__nearly", answer), ("raw__echo", {"text": "fine"}), of=raw())
    assert played.texts[0].startswith(words)
    assert played.texts[1] == "fine"


async def test_of_a_server_with_very_many_tools_only_so_many_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.tools.mcp.listing.MOST_TOOLS", 100)
    played = await play("raw__tool_50", "raw__tool_99", of=raw("many"))
    assert played.texts[0] == "MCP server 'raw' refused: Unknown tool: tool_50 (-32602)"
    assert "there is no tool 'raw__tool_99'" in played.texts[1]
    assert played.alerts == ["some tools of MCP server 'raw' are left out: all beyond the first 100"]


async def test_of_a_server_with_very_many_tools_those_that_a_pod_may_have_are_there() -> None:
    """What a manifest admits was chosen from the first 2,000 tools."""
    played = await play("raw__tool_5000", "raw__tool_0", of=raw("many", allow=["tool_5*"], deny=["tool_50"]))
    assert played.texts[0] == "MCP server 'raw' refused: Unknown tool: tool_5000 (-32602)"
    assert "there is no tool 'raw__tool_0'" in played.texts[1]
    assert played.alerts == [
        "some tools of MCP server 'raw' are left out: all beyond the first 10,000 that it lists"
    ]


async def test_a_list_that_is_null_is_reported_at_once() -> None:
    played = await play("raw__echo", of=raw("null"))
    assert "MCP server 'raw' cannot be used" in played.alerts[0]


PLAIN = ["jsonrpc", "id", "result"]


@pytest.mark.parametrize(
    "members", [PLAIN, ["id", "jsonrpc", "result"], ["result", "jsonrpc", "id"], ["jsonrpc", "result", "id"]]
)
async def test_a_call_whose_answer_is_too_long_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, members: list[str]
) -> None:
    """It took its whole time-out."""
    monkeypatch.setattr("actors.tools.mcp.streams.LONGEST_MESSAGE", 100_000)
    huge = ("raw__huge", {"size": 200_000, "members": members})
    played = await play("raw__pid", huge, "raw__pid", of=raw())
    first, long, second = played.results
    assert long.is_error
    assert long.text.startswith(
        "MCP server 'raw' did not answer: its answer is a line of more than 100,000 bytes"
    )
    assert first.text == second.text


async def test_a_line_that_is_too_long_and_may_answer_any_call_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.tools.mcp.streams.LONGEST_MESSAGE", 100_000)
    huge = ("raw__huge", {"size": 200_000, "members": ["result", "id", "jsonrpc", "more"]})
    played = await play(huge, ("raw__echo", {"text": "fine"}), of=raw())
    long, fine = played.results
    assert long.is_error
    assert "a line of more than 100,000 bytes names no call, so the connection was closed" in long.text
    assert fine.text == "fine"


@pytest.mark.parametrize("number", ["007", '"\t"'])
async def test_a_line_that_is_too_long_and_names_its_call_by_no_id_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    monkeypatch.setattr("actors.tools.mcp.streams.LONGEST_MESSAGE", 100_000)
    huge = ("raw__huge", {"size": 200_000, "members": PLAIN, "id": number})
    played = await play(huge, ("raw__echo", {"text": "fine"}), of=raw())
    long, fine = played.results
    assert "a line of more than 100,000 bytes names no call, so the connection was closed" in long.text
    assert fine.text == "fine"


async def test_a_line_that_is_too_long_and_answers_no_call_is_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("actors.tools.mcp.streams.LONGEST_MESSAGE", 100_000)
    played = await play("raw__pid", ("raw__chatter", {"size": 200_000}), "raw__pid", of=raw())
    assert played.texts[1] == "said a lot"
    assert played.texts[0] == played.texts[2]


@pytest.mark.parametrize("way", [(), ("json",), ("older",), ("older", "json")])
async def test_a_call_whose_answer_over_http_is_too_long_fails_at_once(
    monkeypatch: pytest.MonkeyPatch, way: tuple[str, ...]
) -> None:
    """One of JSON was read to its end; one of events could not have more than 1 MB."""
    for module in ("http_bodies", "transports"):
        monkeypatch.setattr(f"actors.tools.mcp.{module}.LONGEST_MESSAGE", 3_000_000)
    wanted = [("sdk__long", {"size": size}) for size in (1_200_000, 1_600_000)]
    with at_a_port(*way) as url:
        played = await play(*wanted, ("sdk__add", {"a": 1, "b": 2}), of=at(url))
    whole, long, fine = played.results
    assert not whole.is_error
    assert long.is_error
    assert re.search("more than 3,000,000 bytes|exceeded the 3000000 byte limit", long.text)
    assert fine.text == "3"


async def test_a_long_answer_comes_whole_and_is_cut_as_any_tools() -> None:
    played = await play(("raw__huge", {"size": 3_000_000, "members": PLAIN}), of=raw())
    assert "bytes cut here" in played.texts[0]
    assert played.results[0].kept is not None


async def test_an_answer_without_an_end_of_line_counts_and_the_server_is_started_again() -> None:
    played = await play("raw__die_half", ("raw__echo", {"text": "again"}), of=raw())
    assert played.texts == ["without an end of line", "again"]


async def test_a_server_that_dies_in_mid_call_fails_the_call_in_words_and_is_started_again() -> None:
    played = await play("raw__die", ("raw__echo", {"text": "again"}), of=raw())
    dead, again = played.results
    assert dead.is_error
    assert "ended with exit code 3" in dead.text
    assert "fatal: the token is" in dead.text  # its last words
    assert "may or may not have taken effect" in dead.text
    assert again.text == "again"
    assert not played.alerts


async def test_a_server_that_never_answers_costs_the_time_out_and_learns_that_nobody_waits() -> None:
    played = await play("raw__never", ("raw__echo", {"text": "fine"}), of=raw(timeout=0.3))
    late, fine = played.results
    assert late.is_error
    assert re.search(r"took too long: no answer after 0\.\d s", late.text)
    assert fine.text == "fine"  # what was answered after the cancel is nobody's


async def test_a_call_that_says_how_far_it_is_may_take_longer_than_its_time_out() -> None:
    steps = ("raw__never", {"steps": 4, "pause": 0.2, "answer": True})
    played = await play(steps, of=raw(timeout=0.5))
    assert played.texts == ["at last"]
    assert played.progress == [f"at it ({n})" for n in range(4)]


async def test_progress_for_ever_ends_at_a_bound() -> None:
    played = await play(("raw__never", {"steps": 150, "pause": 0.02}), of=raw(timeout=0.2))
    assert re.search(r"took too long: no answer after 2(\.\d)? s", played.texts[0])


async def test_what_a_server_lists_that_is_odd_is_mended_or_left_out_with_words() -> None:
    client = ScriptedClient([call("raw__nullable", {}), say("done")])
    async with PodSystem() as system:
        pod = await system.spawn(having(raw("odd")), client=client)
        played = await follow(pod)
    specs = {each.name: each.input_schema for each in client.requests[0].tools}
    assert specs["raw__no_schema"] == {"type": "object", "properties": {}}
    assert specs["raw__nullable"]["properties"] == {"a": {"type": ["string", "null"]}, "b": {}}
    assert specs["raw__defs"]["properties"] == {"x": {"$ref": "#/$defs/A"}}
    assert all(len(name) <= 64 and name.replace("_", "").replace("-", "").isalnum() for name in specs)
    assert any(name.startswith("raw__dotted_name_x_") for name in specs)
    (alert,) = played.alerts
    for left_out in ("text_only", "elsewhere", "echo", "'deep': its schema is nested more than 128 deep"):
        assert left_out in alert


@pytest.mark.parametrize("way", ["", "json", "gzip", "json gzip"])
async def test_over_http_too_a_tool_that_is_odd_is_left_out_alone_and_what_is_no_unicode_is_mended(
    way: str,
) -> None:
    client = ScriptedClient([call("sdk__half", {}), say("done")])
    with at_a_port("older", "odd", *way.split()) as url:
        async with PodSystem() as system:
            pod = await system.spawn(having(at(url)), client=client)
            played = await follow(pod)
    specs = {each.name: each.description for each in client.requests[0].tools}
    assert specs == {"sdk__half": "half \N{REPLACEMENT CHARACTER}", "sdk__fine": ""}
    (alert,) = played.alerts
    assert "'deep': its schema is nested more than 128 deep" in alert
    assert played.texts == ["half \N{REPLACEMENT CHARACTER}, and \N{GRINNING FACE} whole"]


async def test_a_block_of_an_unknown_type_does_not_cost_the_other_blocks_of_a_result() -> None:
    played = await play("raw__strange", of=raw())
    (shown,) = played.texts
    assert shown.splitlines() == [
        "[a block of type 'video', which polypod does not know]",
        "[a block of type 'image', which polypod does not know]",
        "fine",
        "[a block of type None, which polypod does not know]",
    ]


async def test_many_words_on_standard_error_hold_up_nothing() -> None:
    played = await play("raw__flood", ("raw__echo", {"text": "fine"}), of=raw())
    assert played.texts == ["said a lot", "fine"]


async def test_a_server_that_cannot_be_started_leaves_the_run_alone_and_says_why() -> None:
    client = ScriptedClient([say("without tools")])
    manifest = having(raw("broken"), {"name": "nowhere", "command": ["no-such-program"]})
    async with PodSystem() as system:
        pod = await system.spawn(manifest, client=client)
        played = await follow(pod)
    (alert,) = played.alerts
    assert "'raw' ended with exit code 7" in alert
    assert "cannot begin: no licence" in alert
    assert "'nowhere' could not be reached: cannot start no-such-program: No such file" in alert


async def test_a_server_that_refuses_to_list_its_tools_is_reported_in_its_words_and_not_as_one_that_ended() -> (
    None
):
    async with PodSystem() as system:
        pod = await system.spawn(having(raw("unlisted")), client=ScriptedClient([say("without tools")]))
        played = await follow(pod)
    (alert,) = played.alerts
    assert "'raw' cannot be used: MCPError: no licence" in alert
    assert "ended" not in alert
    assert len(alert) < 1000


async def test_a_list_whose_next_page_is_the_same_again_is_at_its_end() -> None:
    async with servers() as all_servers:
        (source,) = all_servers.sources(having(raw("circling")).tools.mcp, "/")
        await source.open()
        assert len(source.tools()) == 2
        await source.close()


async def test_a_server_that_ends_again_and_again_is_left_alone() -> None:
    played = await play(*["raw__die"] * 5, of=raw())
    assert all(each.is_error for each in played.results)
    assert "is not restarted again for a while" in played.texts[-1]


async def test_a_server_that_reads_no_more_fails_calls_at_their_time_out() -> None:
    played = await play("raw__silent", "raw__echo", of=raw(timeout=0.3))
    assert all("took too long" in text for text in played.texts)


async def test_an_unknown_tool_is_reported_in_the_servers_words() -> None:
    async with servers() as all_servers:
        (source,) = all_servers.sources(PodManifest.of(mcp=[raw()]).tools.mcp, "/")
        await source.open()
        ctx = ToolContext(pwd=None, scope=Scope())  # type: ignore[arg-type]
        with pytest.raises(ToolError, match="Unknown tool: gone"):
            await source._connection.call("gone", {}, ctx, 5)
        await source.close()
