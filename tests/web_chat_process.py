"""The web chat of the documentation in a process: ``web_chat_process.py URL`` asks the model server there."""

import socket
import sys

import uvicorn
from child_kit import end_with_parent
from documented import loaded

from polypod import PodManifest

web_chat = loaded("web_chat")
web_chat.AGENT = PodManifest.of(name="chat", model="openai/tiny", base_url=sys.argv[1])

if __name__ == "__main__":
    end_with_parent()
    listening = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    web_chat.Server(uvicorn.Config(web_chat.app, log_level="warning")).run(sockets=[listening])
