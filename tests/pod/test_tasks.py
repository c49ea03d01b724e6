import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.compaction.compose import SNAPSHOT, compose
from actors.pod.history.task_list import MOST_CLOSED, Task, TaskStore, Written
from actors.pod.history.task_tools import TASK_TOOLS
from actors.tools.base import ToolContext
from actors.tools.extras import TASKS
from actors.tools.toolbox import Toolbox
from protocol.errors import ToolError
from protocol.items import AssistantItem, SystemItem, ToolCall, ToolResult, UserItem
from protocol.scope import Scope


class Desk:
    """A pod's history and store, with the real tools between."""

    def __init__(self, items=()):
        self.items = list(items)
        self.store = TaskStore.replayed(self.items)
        self.toolbox = Toolbox(TASK_TOOLS)

    def call(self, name, **arguments):
        """Run a call and put it with its result into the history."""
        call = ToolCall(f"call-{len(self.items)}", name, arguments)
        ctx = ToolContext(pwd=Path("/"), scope=Scope(), pod="p", extras={TASKS: lambda pod: self.store})
        result = asyncio.run(self.toolbox.run(call, ctx))
        self.items += [AssistantItem.of("", (call,)), result]
        return result


def facts(store):
    return store.list(), store.next_id


def test_tasks_are_numbered_from_1_and_pending_at_first():
    desk = Desk()
    assert desk.call("TaskCreate", subject="Port", description="the parser").text == (
        '{"taskid":1,"status":"pending"}'
    )
    desk.call("TaskCreate", subject="Test", description="it")
    assert desk.call("TaskList").text == "1. [pending] Port\n2. [pending] Test"


def test_a_task_can_be_changed_and_read():
    desk = Desk()
    desk.call("TaskCreate", subject="Port", description="the parser")
    desk.call("TaskUpdate", taskid=1, status="inprogress", subject="Port it")
    assert desk.call("TaskGet", taskid=1).text == (
        '{"taskid":1,"subject":"Port it","description":"the parser","status":"inprogress"}'
    )


@pytest.mark.parametrize("name", ["TaskGet", "TaskUpdate"])
def test_a_task_that_is_not_there_is_an_error_with_its_number(name):
    more = {"status": "completed"} if name == "TaskUpdate" else {}
    result = Desk().call(name, taskid=7, **more)
    assert result.is_error
    assert result.text == "taskid 7 not found"


def test_an_update_of_nothing_is_an_error():
    desk = Desk()
    desk.call("TaskCreate", subject="a", description="b")
    result = desk.call("TaskUpdate", taskid=1)
    assert result.is_error
    assert result.text == "give at least one of status, subject and description"


def test_a_status_that_there_is_not_is_refused():
    desk = Desk()
    desk.call("TaskCreate", subject="a", description="b")
    assert "status" in desk.call("TaskUpdate", taskid=1, status="done").text


def test_a_deleted_task_is_off_the_list_and_its_number_is_not_used_again():
    desk = Desk()
    desk.call("TaskCreate", subject="a", description="b")
    desk.call("TaskUpdate", taskid=1, status="deleted")
    assert desk.call("TaskList").text == "no tasks"
    assert desk.store.get(1).status == "deleted"
    assert desk.store.create("c", "d").taskid == 2


def test_task_replay_applies_only_calls_that_succeeded():
    call = ToolCall("1", "TaskCreate", {"subject": "never", "description": "made"})
    items = [
        AssistantItem.of("", (call,)),
        ToolResult.of(call, "interrupted, outcome unknown", is_error=True),
    ]
    items += Desk().items
    unanswered = AssistantItem.of(
        "", (ToolCall("2", "TaskCreate", {"subject": "not", "description": "yet"}),)
    )
    assert facts(TaskStore.replayed([*items, unanswered])) == ([], 1)


def test_task_replay_accepts_a_snapshot_from_the_runtime_alone():
    snapshot = f'{SNAPSHOT}\nnext taskid: 9\n{{"taskid":8,"subject":"x","description":"y"}}'
    call = ToolCall("1", "TaskList")
    for item in (UserItem.of(snapshot), AssistantItem.of(snapshot), ToolResult.of(call, snapshot)):
        assert facts(TaskStore.replayed([item])) == ([], 1)
    assert facts(TaskStore.replayed([SystemItem.of(snapshot)])) == ([Task(8, "x", "y")], 9)


@pytest.mark.parametrize("text", ["", "\nno tasks", "\nnext taskid: x\n{}", "\nnext taskid: 3\n{broken"])
def test_a_snapshot_that_is_none_changes_nothing(text):
    desk = Desk()
    desk.call("TaskCreate", subject="a", description="b")
    before = facts(desk.store)
    assert facts(TaskStore.replayed([*desk.items, SystemItem.of(SNAPSHOT + text)])) == before


def test_a_snapshot_replaces_the_calls_before_it_that_were_kept():
    desk = Desk()
    desk.call("TaskCreate", subject="a", description="b")
    desk.call("TaskUpdate", taskid=1, status="completed")
    after = compose("done", desk.items, snapshot=desk.store.snapshot()).items
    assert facts(TaskStore.replayed(after)) == facts(desk.store)


def test_a_snapshot_keeps_open_tasks_and_forgets_the_oldest_closed_ones():
    store = TaskStore()
    for n in range(MOST_CLOSED + 30):
        store.create(f"task {n}", "")
        if n != 3:
            store.update(n + 1, "completed")
    after = TaskStore.replayed(compose("x", [], snapshot=store.snapshot()).items)
    assert [task.taskid for task in after.list()] == [4, *range(31, MOST_CLOSED + 31)]
    assert after.next_id == store.next_id


def test_an_id_is_the_one_the_model_was_given():
    """A call whose result was lost used a number; the next one keeps its own in every replay."""
    desk = Desk()
    desk.store.create("lost", "its result was never logged")
    desk.call("TaskCreate", subject="kept", description="")
    assert [task.taskid for task in TaskStore.replayed(desk.items).list()] == [2]


def test_a_tool_of_the_users_own_with_this_name_does_not_disturb():
    call = ToolCall("1", "TaskCreate", {"title": "mine"})
    assert facts(TaskStore.replayed([AssistantItem.of("", (call,)), ToolResult.of(call, "ok")])) == ([], 1)


def test_a_description_longer_than_any_output_is_replayed_whole():
    desk = Desk()
    desk.call("TaskCreate", subject="long", description="x" * 50_000)
    assert facts(TaskStore.replayed(desk.items)) == facts(desk.store)


def test_a_pod_without_a_task_list_says_so():
    ctx = ToolContext(pwd=Path("/"), scope=Scope())
    result = asyncio.run(Toolbox(TASK_TOOLS).run(ToolCall("1", "TaskList"), ctx))
    assert result.is_error
    assert result.text == "this pod has no task list"


_text = st.text(st.characters(codec="utf-8"), max_size=20)
_changes = st.tuples(
    st.integers(1, 6),
    st.sampled_from([None, "pending", "inprogress", "completed", "deleted"]),
    st.none() | _text,
    st.none() | _text,
)
_steps = st.lists(st.one_of(st.tuples(_text, _text), _changes, st.none()), max_size=25)


@given(_steps)
def test_any_life_of_a_store_is_rebuilt_from_its_history_across_compactions(steps):
    store, items = TaskStore(), []
    for number, step in enumerate(steps):
        if step is None:
            items = compose("so far", items[-3:], snapshot=store.snapshot()).items
            continue
        create = len(step) == 2
        names = ("subject", "description") if create else ("taskid", "status", "subject", "description")
        arguments = {name: value for name, value in zip(names, step, strict=True) if value is not None}
        call = ToolCall(str(number % 3), "TaskCreate" if create else "TaskUpdate", arguments)
        try:
            task = store.create(*step) if create else store.update(*step)
        except ToolError as error:
            result = ToolResult.of(call, str(error), is_error=True)
        else:
            result = ToolResult.of(call, msgspec.json.encode(Written(task.taskid)).decode())
        items += [AssistantItem.of("", (call,)), result]
        rebuilt = TaskStore.replayed(items)
        assert facts(rebuilt) == facts(store)
        assert rebuilt.snapshot() == store.snapshot()
