"""A client for chat servers that speak OpenAI's protocol (vLLM, SGLang, ...), on openai's package, with own retries.

Transient failures (no connection, a time-out, a server that is busy or restarts) are retried with exponential backoff,
or after what the server asks for in Retry-After, until no request has been answered for `patience` seconds. openai's
own retries are off: they count attempts and draw jitter from the global random state. Here it is keyed by the request.

A server is not trusted: a request goes to no other address than its own (redirects are refused), ends at its time-out
whatever arrives until then, and reads no answer that is compressed or too large. A stop ends the wait at once.
"""

import asyncio
import errno
import hashlib
import json
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from genloop.distributed import StopRequested, stop_requested
from genloop.reading import TooLarge, parse_json
from genloop.registry import require
from genloop.rundir import RunFailed

TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504}  # HTTP status codes that are worth another attempt
REFUSING = {401, 403, 404, 405}  # HTTP status codes that every request would get
_MAX_PAUSE = 60.0
_MAX_ANSWER = 16 << 20  # bytes
_MAX_MODELS = 10_000
_MAX_TOLD = 200  # characters of a server's words in a message
_LOOK = 0.1  # seconds between two looks at whether to stop
Method = Callable[..., AbstractAsyncContextManager[Any]]  # of openai's client, with its streamed response
T = TypeVar("T")


class ServerFailed(RunFailed):
    """A request was not answered; the message is one line."""


class ServerRefused(ServerFailed):
    """No request will be answered: the address, the model or the key is wrong."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class TransientError(Exception):
    """A failure that is worth another attempt; `retry_after`: the seconds that the server asks to wait."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """Times in seconds."""

    timeout: float = 60.0  # of one attempt, from the connection to the last byte
    patience: float = 120.0  # without any answer until requests are given up
    pause: float = 0.5  # before the second attempt; doubles
    concurrency: int = 8  # requests in flight


class ChatServer:
    """One server, by the address that ends in /v1."""

    def __init__(self, url: str, key: str | None = None, config: ClientConfig | None = None) -> None:
        self._openai = require("openai", "remote")
        self.url, self.config = url.rstrip("/"), config or ClientConfig()
        self._key = key or "none"
        self._headers = {"Accept-Encoding": "identity"} | ({} if key else {"Authorization": self._openai.Omit()})

    def models(self) -> list[str]:
        """The names of the models that it serves, in one attempt."""
        try:
            answer = asyncio.run(_unless_stopped(self._list()))
            return [printable(str(model["id"])) for model in answer["data"][:_MAX_MODELS]]
        except TransientError as error:
            raise ServerFailed(str(error)) from None
        except (KeyError, TypeError):
            raise ServerFailed(f"{self.url}/models did not answer with a list of models") from None

    def complete(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | ServerFailed]:
        """POST /chat/completions, a body being the arguments of openai's `create` -> answers, or why there is none."""
        return asyncio.run(_unless_stopped(self._complete(bodies)))

    def _client(self) -> Any:
        """A client for one event loop; it closes its connections."""
        http = self._openai.DefaultAsyncHttpxClient(
            timeout=None, follow_redirects=False, event_hooks={"response": [_check_response]}
        )
        return self._openai.AsyncOpenAI(base_url=self.url, api_key=self._key, max_retries=0, http_client=http)

    async def _list(self) -> dict[str, Any]:
        async with self._client() as client:
            return await self._request("models", client.models.with_streaming_response.list)

    async def _complete(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | ServerFailed]:
        deadline, slots = Deadline(self.config.patience), asyncio.Semaphore(self.config.concurrency)
        async with self._client() as client:
            create = client.chat.completions.with_streaming_response.create
            tasks = [asyncio.ensure_future(self._retry(create, body, deadline, slots)) for body in bodies]
            try:
                return await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _retry(
        self, create: Method, body: Mapping[str, Any], deadline: "Deadline", slots: asyncio.Semaphore
    ) -> dict[str, Any] | ServerFailed:
        async with slots:
            attempt = 0
            while not deadline.is_refused:
                try:
                    answer = await self._request("chat/completions", create, **body)
                    deadline.renew()
                    return answer
                except TransientError as error:
                    backoff = min(_MAX_PAUSE, self.config.pause * 2**attempt) * (0.5 + _fraction(body, attempt))
                    pause, attempt = max(error.retry_after, backoff), attempt + 1
                    if deadline.is_over(pause):
                        return ServerFailed(f"{error}; gave up after attempt {attempt}")
                    await asyncio.sleep(pause)
                except ServerRefused:
                    deadline.is_refused = True
                    raise
                except ServerFailed as error:
                    deadline.renew()
                    return error
            return ServerFailed(f"{self.url}: not asked any more")

    async def _request(self, path: str, method: Method, **keys: Any) -> dict[str, Any]:
        """One attempt. Raises TransientError, ServerFailed or ServerRefused."""
        url = f"{self.url}/{path}"
        try:
            async with asyncio.timeout(self.config.timeout):  # of the whole request: a read time-out renews every byte
                async with method(**keys, extra_headers=self._headers) as response:
                    content = await _read(response.iter_bytes(), _MAX_ANSWER + 1)
        except (self._openai.APIConnectionError, TimeoutError, OSError) as error:
            raise TransientError(f"{url}: {_reason(error)}") from None
        if len(content) > _MAX_ANSWER:
            raise ServerFailed(f"{url}: the answer is larger than {_MAX_ANSWER >> 20} MiB")
        return _parse(url, content)


class Deadline:
    """When to stop retrying: so many seconds after the last answer to any request of a batch."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.is_refused = seconds, False
        self.renew()

    def renew(self) -> None:
        """The server has just answered a request."""
        self.until = time.monotonic() + self.seconds

    def is_over(self, pause: float) -> bool:
        """Whether it is over after a pause. Then it is over for all requests, unless this server asked for too much."""
        is_late = time.monotonic() + pause > self.until
        if is_late and pause <= self.seconds:
            self.until = -math.inf
        return is_late


def printable(text: str, most: int = _MAX_TOLD) -> str:
    """Text of a server on one line, without control characters, at most so many characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:most]


async def _unless_stopped(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of some work; StopRequested, and the work is given up, when the job is asked to stop before."""
    task = asyncio.ensure_future(work)
    while not task.done():
        if stop_requested():
            task.cancel()
            raise StopRequested
        await asyncio.wait({task}, timeout=_LOOK)
    return task.result()


async def _read(parts: AsyncIterator[bytes], most: int) -> bytes:
    """The first `most` bytes."""
    found = bytearray()
    async for part in parts:
        found += part
        if len(found) >= most:
            break
    return bytes(found[:most])


def _parse(url: str, content: bytes) -> dict[str, Any]:
    try:
        answer = parse_json(content)
    except TooLarge:
        raise ServerFailed(f"{url}: the answer is JSON that is too large to read") from None
    except ValueError:
        raise TransientError(f"{url}: the answer is not JSON") from None
    if not isinstance(answer, dict):
        raise ServerFailed(f"{url}: the answer is not a JSON object")
    return answer


async def _check_response(response: Any) -> None:
    """A hook of the HTTP client, called before it reads the body: raises unless an answer follows."""
    url, status, headers = response.request.url, response.status_code, response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise ServerFailed(f"{url}: the answer is compressed, which was not asked for")
    if 200 <= status < 300:
        return
    line = f"{url}: HTTP {status} {printable(response.reason_phrase)}"
    if 300 <= status < 400:
        place = printable(headers.get("Location", "nowhere"))
        raise ServerRefused(
            f"{line}: sends on to {place}, which is not followed; give the address that answers", status
        )
    said = printable((await _read(response.aiter_bytes(), 2000)).decode(errors="replace"))
    line += f": {said}" if said else ""
    if status in TRANSIENT:
        raise TransientError(line, _seconds(headers.get("Retry-After")))
    raise ServerRefused(line, status) if status in REFUSING else ServerFailed(line)


def _seconds(retry_after: str | None) -> float:
    """A Retry-After header, seconds or a date -> seconds from now on; 0 for none or nonsense."""
    if retry_after is None:
        return 0.0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # not a date, or one without a time zone
        return 0.0


def _fraction(body: Mapping[str, Any], attempt: int) -> float:
    """A number in [0, 1) that request and attempt decide."""
    digest = hashlib.sha256(json.dumps(body).encode() + attempt.to_bytes(4, "big")).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _reason(error: BaseException) -> str:
    """Why there was no answer: the operating system's words where it has any."""
    for cause in _causes(error):
        if isinstance(cause, TimeoutError) or (isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT):
            return "timed out"
        if isinstance(cause, OSError) and cause.errno:
            words = os.strerror(cause.errno)
            return words[0].lower() + words[1:]
    innermost = list(_causes(error))[-1]
    return printable(str(innermost)) or type(innermost).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on; of a group the first."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        else:
            error = error.__cause__ or error.__context__
