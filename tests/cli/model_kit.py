"""A model server whose answers a test writes down, for commands that are processes of their own."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from client_kit import chat_events

from actors.llm.scripted import Reply


class Model:
    """What is asked of the server, and where it is. A reply may wait for a sign: then it is held back until
    ``let`` is set.
    """

    def __init__(self, replies: list[Reply]) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.came = threading.Event()
        self.let = threading.Event()
        self.let.set()
        self.url = ""

    @property
    def options(self) -> tuple[str, ...]:
        """What a command is given to ask it."""
        return ("--model", "openai/m", "--base-url", self.url)


@contextmanager
def model_server(*replies: Reply) -> Iterator[Model]:
    """A server that gives these replies in order, on loopback."""
    model = Model(list(replies))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send("application/json", b'{"data": [{"id": "small"}, {"id": "m"}]}')

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            model.asked.append(json.loads(body))
            reply = model.replies.pop(0)
            model.came.set()
            model.let.wait(60)
            self._send("text/event-stream", b"".join(chat_events(reply)))

        def _send(self, kind: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield model
    finally:
        model.let.set()
        server.shutdown()
        server.server_close()
