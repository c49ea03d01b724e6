"""An MCP server of the older generation that is written by hand, and does what no server should: its tools are its sins.

``python raw_server.py [SIN …]``: a sin is one of the words that ``main`` and ``answer`` look for.
"""

import json
import os
import sys
import threading
import time

SINS = set(sys.argv[1:])
TOOLS = (
    "echo",
    "garbage",
    "huge",
    "chatter",
    "wrong_id",
    "twice",
    "die",
    "die_half",
    "never",
    "late",
    "silent",
    "flood",
    "change",
    "ask",
    "pid",
    "pause",
    "strange",
    "nearly",
)


def send(message: dict) -> None:
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def text(words: str) -> dict:
    return {"content": [{"type": "text", "text": words}]}


def result(number: object, words: str) -> None:
    send({"id": number, "result": text(words)})


def listing() -> list:
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
    tools[0]["annotations"] = {"readOnlyHint": True}
    if "grown" in SINS:
        tools.append({"name": "new", "inputSchema": {"type": "object"}})
    if "many" in SINS:
        tools += [{"name": f"tool_{n}", "inputSchema": {"type": "object"}} for n in range(100_000)]
    if "odd" in SINS:
        deep = {}
        for _ in range(250):
            deep = {"type": "object", "properties": {"a": deep}}
        tools += [
            {"name": "deep", "inputSchema": deep},
            {"name": "no_schema"},
            {"name": "text_only", "inputSchema": {"type": "string"}},
            {"name": "dotted.name/x", "inputSchema": {"type": "object"}},
            {"name": "n" * 100, "inputSchema": {"type": "object"}},
            {
                "name": "nullable",
                "inputSchema": {
                    "type": "object",
                    "properties": {"a": {"type": "string", "nullable": True}, "b": True},
                },
            },
            {"name": "echo", "inputSchema": {"type": "object"}},
            {
                "name": "elsewhere",
                "inputSchema": {"type": "object", "properties": {"a": {"$ref": "https://x/y"}}},
            },
            {
                "name": "defs",
                "outputSchema": 5,
                "inputSchema": {
                    "$ref": "#/$defs/A",
                    "$defs": {"A": {"type": "object", "properties": {"x": {"$ref": "#/$defs/A"}}}},
                },
            },
            {"no": "name"},
            7,
        ]
    return tools


def answer(request: dict) -> None:
    method, number = request.get("method"), request.get("id")
    if method == "initialize":
        if "chatty" in SINS:
            print("starting up, and saying so where it should not")
            print("a warning", file=sys.stderr, flush=True)
        send(
            {
                "id": number,
                "result": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": {"tools": {"listChanged": True}},
                    "serverInfo": {"name": "raw", "version": "1"},
                },
            }
        )
    elif method == "tools/list" and "unlisted" in SINS:
        send({"id": number, "error": {"code": -1, "message": "no licence " + "x" * 100_000}})
    elif method == "tools/list" and "null" in SINS:
        send({"id": number, "result": None})
    elif method == "tools/list" and "circling" in SINS:
        page = {"name": f"page_of_{number}", "inputSchema": {"type": "object"}}
        send({"id": number, "result": {"tools": [page], "nextCursor": "the same"}})
    elif method == "tools/list":
        send({"id": number, "result": {"tools": listing()}})
    elif method == "tools/call":
        call(
            number,
            request["params"]["name"],
            request["params"].get("arguments") or {},
            request["params"].get("_meta") or {},
        )
    elif method == "notifications/cancelled":
        print("cancelled", request["params"]["requestId"], file=sys.stderr, flush=True)
        result(request["params"]["requestId"], "an answer that comes after the cancel")
    elif number is not None and method is not None:
        send({"id": number, "error": {"code": -32601, "message": "Method not found"}})


def call(number: object, name: str, arguments: dict, meta: dict) -> None:
    if name == "echo":
        result(number, str(arguments.get("text")))
    elif name == "garbage":
        print('{"jsonrpc": "2.0", "id": ')
        print("\x00\x01 not json at all")
        print("[]")
        print(json.dumps([{"jsonrpc": "2.0", "id": number, "result": text("a batch")}]))
        sys.stdout.buffer.write(b"\xff\xfe\n")
        sys.stdout.flush()
        sys.stdout.write(
            '{"jsonrpc":"2.0","id":%s,"result":{"content":[{"type":"text","text":"half \\ud83d"}]}}\n'
            % json.dumps(number)
        )
        sys.stdout.flush()
    elif name == "huge":
        members = {
            "jsonrpc": "2.0",
            "id": number,
            "result": text("x" * int(arguments.get("size", 0))),
            "more": 0,
        }
        line = json.dumps({key: members[key] for key in arguments["members"]})
        print(line.replace(f'"id": {number}', f'"id": {arguments.get("id", number)}'), flush=True)
    elif name == "chatter":
        print("x" * arguments["size"])
        send({"method": "notifications/message", "params": {"data": "x" * arguments["size"]}})
        result(number, "said a lot")
    elif name == "wrong_id":
        result(999999, "for nobody")
        result("no-such", "for nobody")
        result(str(number), "as a text")
    elif name == "twice":
        result(number, "the first")
        result(number, "the second")
    elif name == "die":
        print("fatal: the token is s3cret-value", file=sys.stderr, flush=True)
        os._exit(3)
    elif name == "die_half":
        sys.stdout.write(
            json.dumps({"jsonrpc": "2.0", "id": number, "result": text("without an end of line")})
        )
        sys.stdout.flush()
        os._exit(0)
    elif name == "never":
        token = meta.get("progressToken")
        for step in range(int(arguments.get("steps", 0))):
            send(
                {
                    "method": "notifications/progress",
                    "params": {"progressToken": token, "progress": step, "message": "at it"},
                }
            )
            time.sleep(float(arguments.get("pause", 0)))
        if arguments.get("answer"):
            result(number, "at last")
    elif name == "silent":
        SINS.add("deaf")
    elif name == "flood":
        for line in range(2000):
            print(f"line {line}", file=sys.stderr)
        result(number, "said a lot")
    elif name == "change":
        SINS.add("grown")
        send({"method": "notifications/tools/list_changed"})
        result(number, "changed")
    elif name == "strange":
        blocks = [
            {"type": "video", "data": "QUJD"},
            {"type": "image", "data": 5},
            {"type": "text", "text": "fine", "annotations": {"priority": 9}},
            "no block",
        ]
        send({"id": number, "result": {"content": blocks}})
    elif name == "nearly":
        print(json.dumps({"id": number, **arguments}), flush=True)
    elif name == "pid":
        result(number, str(os.getpid()))
    elif name == "pause":
        threading.Timer(float(arguments["seconds"]), result, [number, "waited"]).start()
    elif name == "ask":
        send(
            {
                "id": "q1",
                "method": "elicitation/create",
                "params": {
                    "message": "which town?",
                    "requestedSchema": {
                        "type": "object",
                        "properties": {"town": {"type": "string"}},
                        "required": ["town"],
                    },
                },
            }
        )
        reply = json.loads(sys.stdin.readline())
        result(number, json.dumps(reply.get("result") or reply.get("error")))
    else:
        send({"id": number, "error": {"code": -32602, "message": f"Unknown tool: {name}"}})


def main() -> None:
    if "broken" in SINS:
        print("cannot begin: no licence", file=sys.stderr)
        sys.exit(7)
    for line in sys.stdin:
        if "deaf" not in SINS and "mute" not in SINS:
            answer(json.loads(line))


main()
