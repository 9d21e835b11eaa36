"""A client for chat servers that speak OpenAI's protocol (vLLM, SGLang, ...): requests, retries, patience.

What may pass (no connection, a time-out, a server that is busy or restarts) is tried again with exponentially growing
pauses, or after what the server asks for in Retry-After, as long as the server has answered anything in the last
`patience` seconds. The jitter of the pauses is keyed by the request: no random state is touched.
"""

import hashlib
import http.client
import json
import math
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

PASSING = {408, 409, 425, 429, 500, 502, 503, 504}  # HTTP states that may be another one later
REFUSING = {401, 403, 404, 405}  # HTTP states that say that no request will ever be answered
_LONGEST_PAUSE = 60.0


class ServerFailed(RuntimeError):
    """A request was not answered; the message is one line."""


class ServerRefused(ServerFailed):
    """No request will be answered: the address, the model or the key is not right."""

    def __init__(self, line: str, status: int) -> None:
        super().__init__(line)
        self.status = status


class _Passing(Exception):
    """A failure that may not happen again; `pause`: what the server asks for, in seconds."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


@dataclass(frozen=True, slots=True)
class Manners:
    """How a client behaves. Times in seconds."""

    timeout: float = 60.0  # of one attempt
    patience: float = 120.0  # without any answer
    pause: float = 0.5  # before the second attempt; doubles
    concurrency: int = 8  # requests under way


class ChatServer:
    """One server, by the address that ends in /v1."""

    def __init__(self, url: str, key: str | None = None, manners: Manners | None = None) -> None:
        self.url, self.manners = url.rstrip("/"), manners or Manners()
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def models(self) -> list[str]:
        """The names of the models that it serves, in one attempt."""
        try:
            answer = self._request("models", None)
            return [str(model["id"]) for model in answer["data"]]
        except _Passing as error:
            raise ServerFailed(str(error)) from None
        except (KeyError, TypeError):
            raise ServerFailed(f"{self.url}/models did not answer with a list of models") from None

    def complete(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any] | ServerFailed]:
        """POST /chat/completions for every body -> the answers in order; where there is none, why."""
        stop, patience = threading.Event(), _Patience(self.manners.patience)
        with ThreadPoolExecutor(self.manners.concurrency) as pool:
            futures = [pool.submit(self._persist, body, patience, stop) for body in bodies]
            try:
                return [future.result() for future in futures]
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _persist(
        self, body: Mapping[str, Any], patience: "_Patience", stop: threading.Event
    ) -> dict[str, Any] | ServerFailed:
        data, attempt = json.dumps(body).encode(), 0
        while not stop.is_set():
            try:
                answer = self._request("chat/completions", data)
                patience.renew()
                return answer
            except _Passing as error:
                grown = min(_LONGEST_PAUSE, self.manners.pause * 2**attempt) * (0.5 + _fraction(data, attempt))
                pause, attempt = max(error.pause, grown), attempt + 1
                if patience.is_over(pause) or stop.wait(pause):
                    return ServerFailed(f"{error}; gave up after attempt {attempt}")
            except ServerRefused:
                stop.set()
                raise
            except ServerFailed as error:
                patience.renew()
                return error
        return ServerFailed(f"{self.url}: not asked any more")

    def _request(self, path: str, data: bytes | None) -> dict[str, Any]:
        """One attempt. Raises _Passing, ServerFailed or ServerRefused."""
        url = f"{self.url}/{path}"
        request = urllib.request.Request(url, data=data, headers=self._headers)
        try:
            with urllib.request.urlopen(request, timeout=self.manners.timeout) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            raise _http_failure(url, error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _Passing(f"{url}: {_words(reason)}") from None
        except ValueError:
            raise _Passing(f"{url}: the answer is not JSON") from None
        if not isinstance(answer, dict):
            raise ServerFailed(f"{url}: the answer is not a JSON object")
        return answer


class _Patience:
    """How long to go on trying: until so many seconds after the last answer that any request got."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.renew()

    def renew(self) -> None:
        self.until = time.monotonic() + self.seconds

    def is_over(self, pause: float) -> bool:
        """Whether it is over when a pause from now on is; then nobody else waits for this server either."""
        is_late = time.monotonic() + pause > self.until
        if is_late and pause <= self.seconds:
            self.until = -math.inf
        return is_late


def _http_failure(url: str, error: urllib.error.HTTPError) -> Exception:
    with error:
        said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:200]
    line = f"{url}: HTTP {error.code} {error.reason}" + (f": {said}" if said else "")
    if error.code in PASSING:
        return _Passing(line, _seconds(error.headers.get("Retry-After")))
    return ServerRefused(line, error.code) if error.code in REFUSING else ServerFailed(line)


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


def _fraction(data: bytes, attempt: int) -> float:
    """A number in [0, 1) that request and attempt decide."""
    digest = hashlib.sha256(data + attempt.to_bytes(4, "big")).digest()
    return int.from_bytes(digest[:4], "big") / 2**32


def _words(reason: object) -> str:
    if isinstance(reason, TimeoutError):
        return "timed out"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror[0].lower() + reason.strerror[1:]
    return " ".join(str(reason).split()) or type(reason).__name__
