"""A program that prints our lines and listens on its inbox; what it does is what it is sent."""

import itertools
import json
import os
import queue
import socket
import subprocess
import sys
import threading


def out(kind: str, **fields: object) -> None:
    sys.stdout.write(json.dumps({"type": kind, "time": 1.0, **fields}) + "\n")
    sys.stdout.flush()


arguments = sys.argv[1:]
task = arguments[arguments.index("--") + 1] if "--" in arguments else None
flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
named = dict(zip(flags[::2], flags[1::2], strict=True))
inbox = socket.socket(socket.AF_UNIX)
inbox.bind(named["--inbox"])
inbox.listen()
cancelled = threading.Event()
answers: "queue.Queue[dict]" = queue.Queue()
steps = itertools.count(1)


def ask() -> None:
    out("approval_requested", approval_id="q1", tool="shell", call_id="c", arguments={"command": "ls"})
    answer = answers.get()
    out("approval_resolved", approval_id="q1", approved=answer["type"] == "Approve")
    out("assistant_message", content=json.dumps(answer))


def print_much(text: str) -> None:
    if text.startswith("flood"):  # a line without an end, which takes no space
        os.ftruncate(2 if "errors" in text else 1, 1 << 30)
        threading.Event().wait()
    for stream in (sys.stderr, sys.stdout):
        stream.write(("x" * (1 << 20) + "\n") * 12)
        stream.flush()
    out("assistant_message", content="did much")


def work(text: str) -> None:  # noqa: C901 - one branch for each of its words
    step = next(steps)
    cancelled.clear()
    out("turn_start", step=step)
    out("user_message", content=text)
    if text == "wait":
        cancelled.wait()
        out("turn_end", step=step, outcome="cancelled")
        return
    if text == "fail":
        out("error", error="it cannot")
    elif text == "die":
        os._exit(7)
    elif text == "leave":
        out("turn_end", step=step)
        os._exit(0)
    elif text == "daemon":  # holds our pipes, and leaves our group
        subprocess.Popen(["sh", "-c", "trap '' TERM; sleep 1000"], start_new_session=True)
        out("turn_end", step=step)
        os._exit(0)
    elif text == "branch":  # leaves our session
        child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
        out("assistant_message", content=str(child.pid))
    elif text == "environment":
        out("assistant_message", content=json.dumps({"env": dict(os.environ), "argv": sys.argv[1:]}))
    elif text == "ask":
        ask()
    elif text == "call":
        for number in range(300):
            out("tool_call", id=f"c{number}", name="t", args={})
        cancelled.wait()
    elif text == "much" or text.startswith("flood"):
        print_much(text)
    elif text == "garbage":
        sys.stdout.write('{"type": "assistant_mess\n\nnpm warn\n')
        out("assistant_message", content="still here")
    else:
        out("assistant_message", content=[{"type": "text", "text": f"did {text}"}])
    out("turn_end", step=step)


def listen() -> None:
    while True:
        connection, _ = inbox.accept()
        if named.get("--model") == "deaf":
            threading.Event().wait()
        for line in connection.makefile(encoding="utf-8"):
            verb, _, rest = line.rstrip("\n").partition(" ")
            if verb == "shutdown":
                if named.get("--model") == "stubborn":
                    continue
                out("agent_stopped", reason="shutdown")
                os._exit(0)
            elif verb.startswith("{"):
                answers.put(json.loads(line))
            elif verb == "cancel":
                cancelled.set()
            else:
                text = json.loads(rest) if verb == "user-json" else rest
                threading.Thread(target=work, args=[text]).start()


out("agent_ready", version="1", cwd=named["--cwd"], session=named.get("--session", "s-new"))
sys.stderr.write("ready\n")
sys.stderr.flush()
if task:
    threading.Thread(target=work, args=[task]).start()
listen()
