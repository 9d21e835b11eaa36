"""Where a chat server is and how long it is waited for: what every part that asks one shares.

Errors of the user name the config key, which `group` opens, such as "judge.options".
"""

import base64
import logging
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from pydantic import Field

from genloop.bounds import Seconds, SecondsOrNone, Threads
from genloop.config import LAUNCH, Settings
from genloop.data.images import encode_png
from genloop.registry import check_installed, did_you_mean
from genloop.rewards.remote.client import ChatServer, ClientConfig, ServerFailed, ServerRefused

log = logging.getLogger(__name__)
T = TypeVar("T")
_MAX_NAMES = 20  # models that a message lists


class ServerOptions(Settings):
    """Where the server is, and how long it is waited for."""

    url: Annotated[str, LAUNCH] = Field(pattern=r"^https?://\S+$", description="the server's address, up to /v1")
    model: str = Field(min_length=1, description="the name under which it serves the model")
    extra: dict[str, Any] = Field({}, description="further keys of the request's body")
    on_failure: Literal["nan", "error"] = Field("nan", description="nan: an image without an answer is not judged")
    api_key_env: Annotated[str | None, LAUNCH] = Field(None, description="environment variable that holds the key")
    timeout: Annotated[Seconds, LAUNCH] = Field(60.0, description="seconds of one attempt, to the last byte")
    patience: Annotated[SecondsOrNone, LAUNCH] = Field(120.0, description="seconds without any answer to give up after")
    pause: Annotated[SecondsOrNone, LAUNCH] = Field(0.5, description="seconds before the second attempt; doubles")
    concurrency: Annotated[Threads, LAUNCH] = Field(8, description="requests of a worker in flight")


def check_server(options: ServerOptions, group: str) -> None:
    """The package, the key, and whether the server is there and serves the model."""
    check_installed("openai", "remote")
    try:
        names = open_server(options, group, timeout=min(options.timeout, 10.0)).models()
    except ServerRefused as error:
        if error.status in {401, 403}:
            raise ValueError(f"{error}; name the variable with the key in {group}.api_key_env") from None
        if error.status < 400:
            raise ValueError(f"{group}.url: {error}") from None
        return  # a server that does not list its models
    except ServerFailed as error:
        raise ValueError(f"{group}.url: {error}; start the server, or give its address") from None
    if options.model not in names:
        hint = did_you_mean(options.model, names)
        raise ValueError(
            f"{group}.model: {options.url} does not serve {options.model!r}{hint} "
            f"({', '.join(names[:_MAX_NAMES])}{', ...' if len(names) > _MAX_NAMES else ''})"
        )


def open_server(options: ServerOptions, group: str, *, timeout: float | None = None) -> ChatServer:
    """A client; ValueError when the variable with the key is not set."""
    key = None
    if options.api_key_env is not None:
        key = os.environ.get(options.api_key_env)
        if not key:
            raise ValueError(f"{group}.api_key_env: the variable {options.api_key_env} is not set; export it")
    seconds = options.timeout if timeout is None else timeout
    return ChatServer(options.url, key, ClientConfig(seconds, options.patience, options.pause, options.concurrency))


def request_body(options: ServerOptions, messages: Sequence[dict[str, Any]], **keys: Any) -> dict[str, Any]:
    """A request for the most probable answer, unless `keys` say otherwise."""
    whole = {"model": options.model, "messages": list(messages), "temperature": 0, **keys}
    return {**whole, "extra_body": options.extra}


def read_answers(
    server: ChatServer, options: ServerOptions, bodies: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], T]
) -> list[T | None]:
    """What `read` finds in the server's answers; None where there is none, and why in one line of the log.

    ServerFailed with on_failure=error.
    """
    found: list[T | None] = []
    failures = []
    for answer in server.complete(bodies):
        try:
            if isinstance(answer, ServerFailed):
                raise answer
            found.append(read(answer))
        except ServerFailed as error:
            failures.append(str(error))
            found.append(None)
    if failures:
        line = f"{len(failures)} of {len(bodies)} images were not judged: {failures[0]}"
        if options.on_failure == "error":
            raise ServerFailed(line)
        log.warning(line)
    return found


def png_uri(image: np.ndarray) -> str:
    """(H, W, 3) uint8 -> a PNG that travels in the request"""
    return f"data:image/png;base64,{base64.b64encode(encode_png(image)).decode()}"
