"""A small server that speaks OpenAI's chat protocol: it looks at the pixels it is sent, and misbehaves when told to."""

import base64
import gzip
import io
import json
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

MODEL = "tiny/looker"
ENDLESS = {
    "flood": (b"HTTP/1.0 200 OK\r\n\r\n", b" " * (1 << 16)),
    "continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
}


class LookingServer(ThreadingHTTPServer):
    """P(yes) is the brightness of the last image. `moods` are taken one a request, in order; then it behaves.

    A mood is a status, (status, headers), bytes that are sent as they are, "hang", "drip" (a byte at a time), "flood"
    (a body without end), "continue" (HTTP 100 without end), "zipped", "drop", "garbage", "list", "no logprobs",
    "silent", "evasive" or "slow". With `moved_to` every request is sent on to that address.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, key: str | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.key, self.moods, self.requests = key, [], []
        self.moved_to: str | None = None
        self.times: list[float] = []  # of the requests
        self.num_running = self.most_running = 0
        self.lock, self.released = threading.Lock(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def looking_server(key: str | None = None) -> Iterator[LookingServer]:
    """A running server; it is gone, and its port refuses connections, afterwards."""
    server = LookingServer(key)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: LookingServer

    def do_GET(self) -> None:
        if self._is_let_in():
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_let_in():
            return
        with self.server.lock:
            self.server.requests.append(body)
            self.server.times.append(time.monotonic())
            mood = self.server.moods.pop(0) if self.server.moods else None
            self.server.num_running += 1
            self.server.most_running = max(self.server.most_running, self.server.num_running)
        try:
            self._answer(body, mood)
        finally:
            with self.server.lock:
                self.server.num_running -= 1

    def _is_let_in(self) -> bool:
        if self.server.moved_to is not None:
            self._send(307, {}, Location=self.server.moved_to)
            return False
        if self.server.key is None or self.headers["Authorization"] == f"Bearer {self.server.key}":
            return True
        self._send(401, {"error": {"message": "no such key"}})
        return False

    def _answer(self, body: dict[str, Any], mood: Any) -> None:
        if mood == "hang":
            self.server.released.wait(30)
            self.close_connection = True
        elif mood == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            while not self.server.released.wait(0.02) and not self.wfile.closed:
                self.wfile.write(b" ")
        elif isinstance(mood, str) and mood in ENDLESS:
            with suppress(OSError):  # the client has gone
                head, part = ENDLESS[mood]
                self.wfile.write(head)
                while not self.server.released.is_set():
                    self.wfile.write(part)
            self.close_connection = True
        elif mood == "zipped":
            self._send_bytes(200, gzip.compress(bytes(1 << 20)), Content_Encoding="gzip")
        elif mood == "drop":
            self.close_connection = True
        elif mood == "garbage":
            self._send_bytes(200, b"<html>502</html>")
        elif mood == "list":
            self._send(200, [1, 2])
        elif isinstance(mood, bytes):
            self._send_bytes(200, mood)
        elif isinstance(mood, int):
            self._send_bytes(mood, b"told\x1b\x00")
        elif isinstance(mood, tuple):
            self._send(mood[0], {"error": "busy"}, **mood[1])
        else:
            if mood == "slow":
                self.server.released.wait(0.05)
            self._send(200, completion(body, mood))

    def _send(self, status: int, value: Any, **headers: str) -> None:
        self._send_bytes(status, json.dumps(value).encode(), **headers)

    def _send_bytes(self, status: int, data: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def completion(body: dict[str, Any], mood: Any) -> dict[str, Any]:
    """The answer to a request whose last image has some brightness b: yes b, no 1 - b, of .9 in all."""
    b = brightness(pictures(body)[-1])
    spread = {"yes": 0.5 * b, "Yes": 0.3 * b, " yes": 0.1 * b, "no": 0.7 * (1 - b), " No": 0.2 * (1 - b), "Well": 0.1}
    odd = {"silent": {"Maybe": 0.9, "The": 0.1}, "evasive": {"Maybe": 0.99, "yes": 0.003, "no": 0.001}}
    words = odd.get(mood, spread)
    top = [{"token": token, "logprob": math.log(max(p, 1e-9)), "bytes": None} for token, p in words.items()]
    first = {**max(top, key=lambda entry: entry["logprob"]), "top_logprobs": top[: body.get("top_logprobs", 0)]}
    message = {"role": "assistant", "content": "too\n\x07dark\x00 " if body["max_tokens"] > 1 else first["token"]}
    logprobs = None if mood == "no logprobs" else {"content": [first]}
    return {"choices": [{"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "length"}]}


def pictures(body: dict[str, Any]) -> list[np.ndarray]:
    """Every image of a request as (H, W, 3) uint8."""
    parts = [part for message in body["messages"] for part in message["content"] if not isinstance(part, str)]
    uris = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert all(uri.startswith("data:image/png;base64,") for uri in uris)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))) for uri in uris]


def brightness(image: np.ndarray) -> float:
    """The mean of the pixels, in [0, 1]."""
    return float(image.mean() / 255)
