"""A model server in a process of its own, to be killed or to hang: OpenAI's protocol in few lines.

Prints its port, then answers as the last turn asks: ``say N`` in N words, ``hang`` never, ``stall``
with a few words and then silence. Standard library alone, so that it starts at once.
"""

import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODEL = "their-model"
PAUSE = 0.02


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """The models."""
        body = json.dumps({"data": [{"id": MODEL}]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """A streamed answer."""
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = body["messages"][-1]["content"].split()
        if said[0] == "hang":
            threading.Event().wait()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        count = 5 if said[0] == "stall" else int(said[1])
        for number in range(count):
            self._send({"delta": {"content": f"word {number} "}, "finish_reason": None}, number + 1)
            time.sleep(PAUSE)
        if said[0] == "stall":
            threading.Event().wait()
        self._send({"delta": {}, "finish_reason": "stop"}, count)
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Silent."""

    def _send(self, choice: dict[str, object], count: int) -> None:
        chunk = {
            "choices": [{"index": 0, **choice}],
            "usage": {"prompt_tokens": 3, "completion_tokens": count},
        }
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        self.wfile.flush()


class Server(ThreadingHTTPServer):
    """Takes its port over from one that was killed."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Silent: who hangs up is expected here."""


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
