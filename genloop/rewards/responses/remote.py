"""A chat server as a judge of answers: it writes verdicts. The chat around the question is the server's own.

judges.qwen.kind=remote judges.qwen.options.url=http://node17:8000/v1 judges.qwen.options.model=Qwen/Qwen2.5-VL-7B
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from genloop.factories import Resolve
from genloop.records import Writing
from genloop.rewards.remote.client import ChatServer, ServerFailed
from genloop.rewards.remote.server import (
    ServerOptions,
    check_server,
    open_server,
    png_uri,
    read_answers,
    request_body,
)
from genloop.rewards.responses.settings import ResponseMaker

_GROUP = "options"
_SEEDS = 1 << 31  # that every server takes


class RemoteMaker(ResponseMaker):
    """The maker behind `remote`."""

    Options = ServerOptions
    readings = ("generated",)

    @classmethod
    def check(cls, options: ServerOptions, resolve: Resolve) -> None:
        check_server(options, _GROUP)

    @classmethod
    def facts(cls, options: ServerOptions, resolve: Resolve) -> dict[str, Any]:
        """The served name: what stands behind it is not known."""
        return {"model": options.model}

    @classmethod
    def load(cls, options: ServerOptions, resolve: Resolve, device: str) -> "RemoteWriter":
        return RemoteWriter(options, open_server(options, _GROUP))


class RemoteWriter:
    """Implements `genloop.protocols.ResponseWriter`, as far as the server keeps to its seeds."""

    def __init__(self, options: ServerOptions, server: ChatServer) -> None:
        self.options, self.server = options, server

    def write(
        self, queries: Sequence[str], images: Sequence[np.ndarray | None], seeds: Sequence[int], writing: Writing
    ) -> list[str | None]:
        """All questions together; None, and a line in the log, where there is no answer."""
        bodies = [
            self._body(query, image, seed, writing) for query, image, seed in zip(queries, images, seeds, strict=True)
        ]
        return read_answers(self.server, self.options, bodies, _text)

    def _body(self, query: str, image: np.ndarray | None, seed: int, writing: Writing) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": query}]
        if image is not None:
            content.insert(0, {"type": "image_url", "image_url": {"url": png_uri(image)}})
        keys: dict[str, Any] = {"max_tokens": writing.max_new_tokens, "seed": seed % _SEEDS}
        if writing.temperature:
            keys |= {"temperature": writing.temperature, "top_p": writing.top_p}
        return request_body(self.options, [{"role": "user", "content": content}], **keys)


def _text(answer: dict[str, Any]) -> str:
    try:
        text = str(answer["choices"][0]["message"]["content"])
        return text.encode("utf-8", "replace").decode()  # JSON may hold halves of surrogate pairs, files may not
    except (KeyError, IndexError, TypeError):
        raise ServerFailed("the answer has no text") from None
