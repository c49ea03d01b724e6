"""Spans of OpenTelemetry from the events of pods: of each run, each request to a model, each tool call."""

import asyncio

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, Status, StatusCode, Tracer, set_span_in_context

from polypod import (
    AssistantMessage,
    Event,
    PodEnded,
    PodManifest,
    PodStarted,
    PodSystem,
    RunEnd,
    RunStart,
    Subscription,
    ToolResulted,
    ToolStart,
    TurnStart,
    Usage,
    tool,
)

TRACED = (PodStarted, RunStart, TurnStart, AssistantMessage, ToolStart, ToolResulted, RunEnd, PodEnded)


class Spans:
    """Makes spans with the names and attributes of OpenTelemetry's conventions for generative AI. They hold
    names and numbers, and no words of users, models and tools.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._pods: dict[str, PodStarted] = {}
        self._open: dict[tuple[str, str], Span] = {}  # by the pod's name, and what it is at

    async def follow(self, events: Subscription) -> None:
        async for event in events:
            self.take(event)

    def take(self, event: Event) -> None:
        pod = event.pod
        match event:
            case PodStarted():
                self._pods[pod] = event
            case RunStart():
                parent = self._pods[pod].parent if pod in self._pods else None  # of a sub-agent
                within = self._open.get((parent, "run")) if parent is not None else None
                self._begin(event, "run", f"invoke_agent {pod}", "invoke_agent", within)
            case TurnStart() if pod in self._pods:
                model = self._pods[pod].model
                span = self._begin(event, "request", f"chat {model}", "chat")
                span.set_attribute("gen_ai.request.model", model)
            case AssistantMessage():
                self._end_request(event)
            case ToolStart(call_id=call, name=name):
                span = self._begin(event, call, f"execute_tool {name}", "execute_tool")
                span.set_attributes({"gen_ai.tool.name": name, "gen_ai.tool.call.id": call})
            case ToolResulted(item=item):
                self._end(event, item.call_id, "the tool failed" if item.is_error else None)
            case RunEnd(outcome=outcome, error=error):
                for key in [key for key in self._open if key[0] == pod and key[1] != "run"]:
                    self._end(event, key[1], f"the run ended: {outcome}")
                self._end(event, "run", error.kind if error is not None else None)
            case PodEnded():
                self._pods.pop(pod, None)

    def _begin(self, event: Event, what: str, name: str, operation: str, within: Span | None = None) -> Span:
        self._end(event, what, "it has no answer")  # as a request that did not fit the context
        parent = within or self._open.get((event.pod, "run"))
        span = self._open[event.pod, what] = self._tracer.start_span(
            name,
            set_span_in_context(parent) if parent is not None else None,
            start_time=_nanoseconds(event),
            attributes={
                "gen_ai.operation.name": operation,
                "gen_ai.agent.name": event.pod,
                "gen_ai.conversation.id": event.session_id,
            },
        )
        return span

    def _end_request(self, event: AssistantMessage) -> None:
        span, usage = self._open.get((event.pod, "request")), event.usage or Usage()
        counts = {
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "polypod.cost_usd": event.cost,
        }
        if span is not None:  # unknown is not zero
            span.set_attributes({name: count for name, count in counts.items() if count is not None})
        self._end(event, "request")

    def _end(self, event: Event, what: str, error: str | None = None) -> None:
        span = self._open.pop((event.pod, what), None)
        if span is not None:
            if error is not None:
                span.set_status(Status(StatusCode.ERROR, error))
            span.end(_nanoseconds(event))


def _nanoseconds(event: Event) -> int:
    return int(event.at * 1e9)


@tool
def double(number: int) -> int:
    """Twice a number."""
    return 2 * number


async def main() -> None:
    made = InMemorySpanExporter()  # or OTLPSpanExporter(), in a BatchSpanProcessor, to send them somewhere
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    async with PodSystem() as system:
        spans = Spans(provider.get_tracer("polypod"))
        following = asyncio.create_task(spans.follow(system.subscribe(kinds=TRACED)))
        pod = await system.spawn(PodManifest.of(name="clerk", model="offline"), tools=[double])
        await pod.run("use double number=21")
    await following
    for span in sorted(made.get_finished_spans(), key=lambda span: span.start_time or 0):
        print("-" if span.parent is None else "  -", span.name, span.status.status_code.name)


asyncio.run(main())
