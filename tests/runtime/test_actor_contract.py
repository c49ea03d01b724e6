"""What pykka promises of an actor, held by its own ThreadingActor and by ours alike."""

import threading
import time
import uuid
from collections.abc import Iterator

import pykka
import pytest
from pykka.messages import ProxyCall

from actors.runtime.actor import AsyncActor

WAIT = 60


class Diary:
    """What an actor does, in order, for a test to wait for."""

    def __init__(self):
        self.lines = []
        self._changed = threading.Condition()

    def write(self, *line):
        with self._changed:
            self.lines.append(line[0] if len(line) == 1 else line)
            self._changed.notify_all()

    def wait_for(self, line):
        with self._changed:
            assert self._changed.wait_for(lambda: line in self.lines, WAIT), f"{line!r} not in {self.lines}"


@pykka.traversable
class Nested:
    inner = "inner"

    def method(self):
        return "nested"


class Writer:
    """An actor's behaviour, to be mixed into both kinds of actor."""

    def __init__(self, diary, greeting="hello"):
        super().__init__()
        self.diary = diary
        self.greeting = greeting
        self.nested = Nested()

    def on_start(self):
        if self.greeting == "fail at start":
            raise ValueError(self.greeting)
        self.diary.write("start")

    def on_stop(self):
        self.diary.write("stop")
        if self.greeting == "fail at stop":
            raise ValueError(self.greeting)

    def on_failure(self, kind, error, traceback):
        self.diary.write("failure", kind, str(error), traceback is not None)
        if self.greeting == "fail at failure":
            raise ValueError(self.greeting)

    def on_receive(self, message):
        if isinstance(message, threading.Event):
            assert message.wait(WAIT)
        elif isinstance(message, Exception):
            raise message
        elif message == "stop yourself":
            self.stop()
            self.diary.write("asked myself to stop")
        elif callable(message):
            return message(self)
        else:
            self.diary.write(message)
        return message

    def add(self, a, b=0):
        return a + b

    def note(self, line):
        self.diary.write(line)

    def fail(self):
        raise KeyError("proxied")

    @property
    def reversed_greeting(self):
        return self.greeting[::-1]

    @property
    def broken(self):
        raise RuntimeError("a property that raises")


class OnThread(Writer, pykka.ThreadingActor):
    pass


class OnLoop(Writer, AsyncActor):
    pass


@pytest.fixture(params=[OnThread, OnLoop])
def kind(request) -> Iterator[type]:
    yield request.param
    pykka.ActorRegistry.stop_all(timeout=WAIT)


@pytest.fixture
def diary():
    return Diary()


@pytest.fixture
def ref(kind, diary):
    return kind.start(diary)


@pytest.fixture
def held(ref):
    """The actor, busy until the event is set."""
    gate = threading.Event()
    ref.tell(gate)
    yield gate
    gate.set()


def test_a_sent_message_is_handled_and_gives_nothing_back(ref, diary):
    assert ref.tell("a") is None
    diary.wait_for("a")


def test_an_asked_message_gives_the_reply(ref):
    assert ref.ask("a", timeout=WAIT) == "a"


def test_an_ask_that_does_not_block_gives_a_future_of_the_reply(ref):
    future = ref.ask("a", block=False)
    assert isinstance(future, pykka.Future)
    assert future.get(timeout=WAIT) == "a"
    assert future.get(timeout=WAIT) == "a"


def test_messages_are_handled_one_at_a_time_in_the_order_they_were_sent(ref, diary):
    for number in range(500):
        ref.tell(number)
    ref.ask("last", timeout=WAIT)
    assert diary.lines == ["start", *range(500), "last"]


def test_an_ask_times_out_and_the_message_is_handled_all_the_same(ref, diary, held):
    with pytest.raises(pykka.Timeout):
        ref.ask("late", timeout=0.01)
    held.set()
    diary.wait_for("late")


def test_an_exception_goes_to_who_asked_and_the_actor_lives(ref, diary):
    with pytest.raises(ZeroDivisionError):
        ref.ask(ZeroDivisionError(), timeout=WAIT)
    assert ref.is_alive()
    assert ref.ask("still here", timeout=WAIT) == "still here"
    assert diary.lines == ["start", "still here"]


def test_an_exception_of_a_sent_message_ends_the_actor_through_on_failure_alone(ref, diary, caplog):
    ref.tell(ZeroDivisionError("oops"))
    diary.wait_for(("failure", ZeroDivisionError, "oops", True))
    assert ref.actor_stopped.wait(WAIT)
    assert diary.lines == ["start", ("failure", ZeroDivisionError, "oops", True)]
    assert ref.actor_urn in caplog.text
    assert "Unhandled exception" in caplog.text


def test_an_exception_in_on_failure_is_logged(kind, diary, caplog):
    gate = threading.Event()
    ref = kind.start(diary, greeting="fail at failure")
    ref.tell(gate)
    ref.tell(ZeroDivisionError("oops"))
    left = ref.ask("left", block=False)
    gate.set()
    with pytest.raises(pykka.ActorDeadError):
        left.get(timeout=WAIT)
    assert "ValueError: fail at failure" in caplog.text


def test_an_exception_in_on_start_ends_the_actor_without_any_other_hook(kind, diary, caplog):
    ref = kind.start(diary, greeting="fail at start")
    assert ref.actor_stopped.wait(WAIT)
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("a", timeout=WAIT)
    assert diary.lines == []
    assert "ValueError: fail at start" in caplog.text


def test_an_exception_in_on_stop_is_logged_and_the_actor_has_stopped(kind, diary, caplog):
    ref = kind.start(diary, greeting="fail at stop")
    assert ref.stop(timeout=WAIT) is True
    assert diary.lines == ["start", "stop"]
    assert "ValueError: fail at stop" in caplog.text


def test_the_start_hook_runs_before_any_message(kind, diary):
    refs = [kind.start(diary) for _ in range(20)]
    for number, ref in enumerate(refs):
        ref.tell(number)
    for ref in refs:
        ref.ask("end", timeout=WAIT)
    for number in range(20):
        assert diary.lines[: diary.lines.index(number)].count("start") > number


def test_a_message_that_an_actor_sends_itself_while_it_is_made_comes_after_the_start(kind, diary):
    class Hasty(kind):
        def __init__(self, diary):
            super().__init__(diary)
            self.actor_ref.tell("from init")

    Hasty.start(diary).ask("from outside", timeout=WAIT)
    assert diary.lines == ["start", "from init", "from outside"]


def test_stopping_gives_true_once_the_actor_has_stopped_and_false_afterwards(ref, diary):
    assert ref.stop(timeout=WAIT) is True
    assert not ref.is_alive()
    assert diary.lines == ["start", "stop"]
    assert ref.stop(timeout=WAIT) is False


def test_a_stop_that_does_not_block_gives_a_future(ref):
    future = ref.stop(block=False)
    assert future.get(timeout=WAIT) is True
    assert ref.stop(block=False).get(timeout=WAIT) is False


def test_messages_sent_before_the_stop_are_handled_and_those_after_it_refused(ref, diary, held):
    before = [ref.ask(number, block=False) for number in range(3)]
    stopping = ref.stop(block=False)
    after = ref.ask("too late", block=False)
    again = ref.stop(block=False)
    held.set()
    assert pykka.get_all(before, timeout=WAIT) == [0, 1, 2]
    assert stopping.get(timeout=WAIT) is True
    with pytest.raises(pykka.ActorDeadError, match="stopped before handling the message"):
        after.get(timeout=WAIT)
    assert again.get(timeout=WAIT) is True
    assert diary.lines == ["start", 0, 1, 2, "stop"]


def test_an_actor_can_stop_itself_and_ends_the_message_first(ref, diary):
    ref.tell("stop yourself")
    diary.wait_for("stop")
    assert diary.lines == ["start", "asked myself to stop", "stop"]


def test_messages_left_when_a_failure_ends_the_actor_are_refused(ref, held, caplog):
    ref.tell(ZeroDivisionError())
    left = ref.ask("left", block=False)
    held.set()
    with pytest.raises(pykka.ActorDeadError):
        left.get(timeout=WAIT)


def test_a_dead_actor_takes_no_message(ref):
    ref.stop(timeout=WAIT)
    with pytest.raises(pykka.ActorDeadError, match="not found"):
        ref.tell("a")
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("a", timeout=WAIT)
    with pytest.raises(pykka.ActorDeadError):
        ref.ask("a", block=False).get(timeout=WAIT)
    with pytest.raises(pykka.ActorDeadError):
        ref.proxy()


def test_many_threads_can_wait_for_one_actor_to_stop(ref):
    reported = []
    threads = [
        threading.Thread(target=lambda: reported.append(ref.actor_stopped.wait(WAIT))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    ref.stop(timeout=WAIT)
    for thread in threads:
        thread.join(WAIT)
    assert reported == [True] * 8


def test_a_proxy_calls_methods_and_reads_and_sets_attributes(ref):
    proxy = ref.proxy()
    assert proxy.add(1, b=2).get(timeout=WAIT) == 3
    assert proxy.greeting.get(timeout=WAIT) == "hello"
    proxy.greeting = "abc"
    assert proxy.greeting.get(timeout=WAIT) == "abc"
    assert proxy.reversed_greeting.get(timeout=WAIT) == "cba"
    with pytest.raises(AttributeError):
        proxy.nothing_of_the_kind  # noqa: B018


def test_a_proxy_passes_errors_on_and_is_not_stopped_by_a_property_that_raises(ref):
    proxy = ref.proxy()
    with pytest.raises(KeyError, match="proxied"):
        proxy.fail().get(timeout=WAIT)
    with pytest.raises(RuntimeError, match="a property that raises"):
        proxy.broken.get(timeout=WAIT)
    assert ref.is_alive()


def test_a_proxy_passes_through_what_is_marked_traversable(ref):
    proxy = ref.proxy()
    assert proxy.nested.method().get(timeout=WAIT) == "nested"
    assert proxy.nested.inner.get(timeout=WAIT) == "inner"


def test_a_deferred_call_of_a_proxy_is_sent_so_that_its_error_ends_the_actor(ref, diary, caplog):
    ref.proxy().fail.defer()
    diary.wait_for(("failure", KeyError, "'proxied'", True))


def test_a_proxy_stops_its_actor(ref, diary):
    ref.proxy().stop().get(timeout=WAIT)
    diary.wait_for("stop")


def test_a_proxied_call_can_be_sent_without_a_proxy(ref):
    assert ref.ask(ProxyCall(attr_path=("add",), args=(2,), kwargs={"b": 3}), timeout=WAIT) == 5


def test_an_actor_works_for_itself_through_a_proxy_after_what_is_in_its_inbox(ref, diary, held):
    ref.tell(lambda actor: actor.actor_ref.proxy().note("later") and None)
    ref.tell("sooner")
    held.set()
    diary.wait_for("later")
    assert diary.lines == ["start", "sooner", "later"]


def test_actors_are_known_to_the_registry_while_they_live(kind, ref, diary):
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is ref
    assert pykka.ActorRegistry.get_by_class(kind) == [ref]
    assert pykka.ActorRegistry.get_by_class_name(kind.__name__) == [ref]
    pykka.ActorRegistry.broadcast("all", target_class=kind)
    diary.wait_for("all")
    ref.stop(timeout=WAIT)
    assert pykka.ActorRegistry.get_by_urn(ref.actor_urn) is None


def test_the_registry_stops_all_in_the_reverse_order_of_their_start(kind):
    diaries = [Diary() for _ in range(5)]
    together = Diary()
    for number, each in enumerate(diaries):
        each.write = lambda line, number=number: together.write((number, line))
        kind.start(each).ask(lambda _: None, timeout=WAIT)
    assert pykka.ActorRegistry.stop_all(timeout=WAIT) == [True] * 5
    assert [number for number, line in together.lines if line == "stop"] == [4, 3, 2, 1, 0]


def test_every_actor_has_a_name_of_its_own_that_says_its_class(kind, ref, diary):
    other = kind.start(diary)
    assert uuid.UUID(ref.actor_urn) != uuid.UUID(other.actor_urn)
    assert str(ref) == f"{kind.__name__} ({ref.actor_urn})"
    assert ref.ask(lambda actor: (str(actor), actor.actor_ref, actor.actor_urn), timeout=WAIT) == (
        str(ref),
        ref,
        ref.actor_urn,
    )


def test_an_actor_that_knows_no_messages_says_so_in_the_log(kind, caplog):
    bare = {OnThread: pykka.ThreadingActor, OnLoop: AsyncActor}[kind]
    ref = type("Bare", (bare,), {}).start()
    assert ref.ask("what", timeout=WAIT) is None
    assert "Unexpected message received" in caplog.text
    ref.stop(timeout=WAIT)


def test_every_asker_of_many_threads_gets_its_own_reply(ref):
    def ask(first):
        got.extend(ref.ask(n, timeout=WAIT) == n for n in range(first, first + 200))

    got = []
    threads = [threading.Thread(target=ask, args=(1000 * n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert got == [True] * 1200


def test_a_wait_for_a_reply_is_over_when_its_time_is(ref, held):
    began = time.monotonic()
    with pytest.raises(pykka.Timeout):
        ref.ask("a", timeout=0.05)
    assert time.monotonic() - began >= 0.05
