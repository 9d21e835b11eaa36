"""A judge behind an OpenAI-compatible server (vLLM, SGLang, ...): P(yes) from the log-probabilities of one token.

Images travel as PNG in data URIs. For the answer's first token the server names the `top_logprobs` most probable ones;
those that read "yes" or "no", in any spelling, are added up. The chat around the question is the server's own.

    judge.kind=remote judge.options.url=http://node17:8000/v1 judge.options.model=Qwen/Qwen2.5-VL-7B-Instruct
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import Field

from genloop.bounds import Count, Share
from genloop.config import InputPath
from genloop.data.images import to_uint8
from genloop.factories import Resolve
from genloop.records import Prompt
from genloop.rewards.questions import IMAGE, PROMPT, Questions, read_questions, spellings
from genloop.rewards.remote.client import ChatServer, ServerFailed, printable
from genloop.rewards.remote.server import (
    ServerOptions,
    check_server,
    open_server,
    png_uri,
    read_answers,
    request_body,
)
from genloop.rewards.settings import JudgeMaker

if TYPE_CHECKING:
    from torch import Tensor

Probability = Literal["two_way", "raw"]
T = TypeVar("T")
_MAX_REASON_TOKENS = 32
_MAX_REASON = 1000  # characters that are kept of one
_GROUP = "judge.options"
_SPACES = " \t\r\n▁Ġ"  # as tokenizers write them


class RemoteOptions(ServerOptions):
    """Keys of `judge.kind=remote`."""

    questions: InputPath | None = Field(None, description="file of other wordings; null: the released ones")
    probability: Probability = Field("two_way", description="two_way: yes / (yes + no); raw: yes")
    top_logprobs: Count = Field(20, ge=2, description="alternatives that the server names")
    min_yes_no: Share = Field(0.01, description="no answer where yes and no together have a smaller probability")


class RemoteJudgeMaker(JudgeMaker):
    """Makes judges that ask a server."""

    Options = RemoteOptions
    asks_freely = True

    @classmethod
    def check(cls, options: RemoteOptions, resolve: Resolve) -> None:
        """The package, the questions, the key, and whether the server is there and serves the model."""
        read_questions(options.questions)
        check_server(options, _GROUP)

    @classmethod
    def questions(cls, options: RemoteOptions, resolve: Resolve) -> tuple[str, ...]:
        """Those of the questions file, or the released ones."""
        return read_questions(options.questions).names

    @classmethod
    def load(cls, options: RemoteOptions, resolve: Resolve, device: str) -> "RemoteJudge":
        """Answers come back to where the images are."""
        return RemoteJudge(options, open_server(options, _GROUP), read_questions(options.questions))


class RemoteJudge:
    """Implements the Judge, Asker, Comparer and Critic protocols, the last two as far as it has questions for them.

    Raises ServerFailed when the server refuses to answer at all and, with on_failure=error, for any image.
    """

    def __init__(self, options: RemoteOptions, server: ChatServer, questions: Questions) -> None:
        self.options, self.server, self.questions = options, server, questions

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: "Tensor") -> "Tensor":
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,); NaN, and a line in the log, where there is no answer."""
        import torch

        shown = [[uri] for uri in _uris(images)]
        return torch.tensor(self._probabilities(question, prompts, shown), device=images.device)

    def p_first(self, prompts: Sequence[Prompt], first: "Tensor", second: "Tensor") -> "Tensor":
        """Pairs of images, each (B, 3, H, W) in [0, 1] -> (B,): P(the first is better), the mean of both orders."""
        import torch

        ones, others = _uris(first), _uris(second)
        both = [*zip(ones, others), *zip(others, ones)]
        forth, back = torch.tensor(self._probabilities("compare", [*prompts, *prompts], both)).chunk(2)
        return (0.5 + (forth - back) / 2).to(first.device)

    def reasons(self, prompts: Sequence[Prompt], images: "Tensor") -> list[str | None]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> why it does not show it, "" where P(yes) is 1/2 or more.

        None where the server does not answer.
        """
        shown = [[uri] for uri in _uris(images)]
        outcomes = self._probabilities("outcome", prompts, shown)
        wrong = [row for row, p in enumerate(outcomes) if p < 0.5]
        asked = [self._body("reason", prompts[row], shown[row], max_tokens=_MAX_REASON_TOKENS) for row in wrong]
        reasons: list[str | None] = [None if math.isnan(p) else "" for p in outcomes]
        for row, answer in zip(wrong, self._answers(asked, _words)):
            reasons[row] = answer
        return reasons

    def p_yes_to(self, texts: Sequence[str], images: "Tensor") -> "Tensor":
        """One yes/no question per image (B, 3, H, W) in [0, 1] -> (B,)"""
        import torch

        asked = self._free_bodies(texts, images)
        return torch.tensor(self._numbers(asked, self._yes), device=images.device)

    def p_answer_to(self, texts: Sequence[str], answers: Sequence[str], images: "Tensor") -> "Tensor":
        """One question and one answer per image (B, 3, H, W) in [0, 1] -> (B,)

        Of answers the server names single tokens only: one that it cuts into several, or that is not among the
        `top_logprobs`, has 0.
        """
        import torch

        found = self._answers(self._free_bodies(texts, images), _alternatives)
        shares = [
            math.nan if alternatives is None else probability_of_answer(alternatives, answer)
            for alternatives, answer in zip(found, answers, strict=True)
        ]
        return torch.tensor(shares, device=images.device)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """Nobody knows."""
        return 0.0

    def _free_bodies(self, texts: Sequence[str], images: "Tensor") -> list[dict[str, Any]]:
        bodies = []
        for text, uri in zip(texts, _uris(images), strict=True):
            content = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": text}]
            bodies.append(self._request([{"role": "user", "content": content}], **self._one_token()))
        return bodies

    def _probabilities(self, question: str, prompts: Sequence[Prompt], shown: Sequence[Sequence[str]]) -> list[float]:
        """One prompt and one or two images a row -> P(yes) of each, NaN without an answer."""
        pairs = zip(prompts, shown, strict=True)
        asked = [self._body(question, prompt, uris, **self._one_token()) for prompt, uris in pairs]
        return self._numbers(asked, self._yes)

    def _yes(self, answer: dict[str, Any]) -> float:
        return probability_of_yes(_alternatives(answer), self.options.probability, self.options.min_yes_no)

    def _numbers(self, bodies: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], float]) -> list[float]:
        """As `_answers`, NaN without an answer."""
        return [math.nan if answer is None else answer for answer in self._answers(bodies, read)]

    def _answers(self, bodies: Sequence[dict[str, Any]], read: Callable[[dict[str, Any]], T]) -> list[T | None]:
        return read_answers(self.server, self.options, bodies, read)

    def _body(self, question: str, prompt: Prompt, uris: Sequence[str], **keys: Any) -> dict[str, Any]:
        return self._request(chat_messages(self.questions, question, prompt.text, uris), **keys)

    def _request(self, messages: list[dict[str, Any]], **keys: Any) -> dict[str, Any]:
        return request_body(self.options, messages, **keys)

    def _one_token(self) -> dict[str, Any]:
        return {"max_tokens": 1, "logprobs": True, "top_logprobs": self.options.top_logprobs}


def chat_messages(questions: Questions, question: str, prompt: str, uris: Sequence[str]) -> list[dict[str, Any]]:
    """A question about images in the protocol's form; a second turn follows a first that was answered with yes."""
    base = questions.base(question)
    content: list[dict[str, Any]] = []
    for place, text in enumerate(questions.need(base).split(IMAGE)):
        if place:
            content.append({"type": "image_url", "image_url": {"url": uris[place - 1]}})
        if text.strip():
            content.append({"type": "text", "text": text.replace(PROMPT, prompt).strip()})
    first: list[dict[str, Any]] = [{"role": "user", "content": content}]
    if base == question:
        return first
    second = questions.need(question).replace(PROMPT, prompt)
    return [*first, {"role": "assistant", "content": "yes"}, {"role": "user", "content": second}]


def probability_of_yes(
    alternatives: Sequence[tuple[str, float]], probability: Probability, min_yes_no: float = 0.0
) -> float:
    """(token, log-probability) pairs of one position -> P(yes).

    ServerFailed when none of them reads yes or no, or when those that do have less than `min_yes_no` together.
    """
    found = dict(alternatives)  # some servers name the chosen token twice
    yes, no = (
        math.fsum(math.exp(min(value, 0.0)) for token, value in found.items() if token.strip(_SPACES).lower() == word)
        for word in ("yes", "no")
    )
    if not yes + no > 0:
        told = printable(", ".join(map(repr, found)))
        raise ServerFailed(f"neither yes nor no among the answer's first tokens: {told}")
    if yes + no < min_yes_no:
        raise ServerFailed(
            f"yes and no together have a probability of {yes + no:.2g}, judge.options.min_yes_no is {min_yes_no}"
        )
    return yes / (yes + no) if probability == "two_way" else min(yes, 1.0)


def probability_of_answer(alternatives: Sequence[tuple[str, float]], answer: str) -> float:
    """(token, log-probability) pairs of one position -> P(answer) in any spelling; 0 when none of them reads so."""
    words = {word.lower() for word in spellings(answer)}
    found = dict(alternatives)
    return min(1.0, math.fsum(math.exp(min(p, 0.0)) for t, p in found.items() if t.strip(_SPACES).lower() in words))


def _alternatives(answer: dict[str, Any]) -> list[tuple[str, float]]:
    """The first token's (token, log-probability) pairs."""
    try:
        entries = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
        if any(math.isnan(log_p) for _, log_p in found):
            raise ValueError("a probability that is no number")
        return found
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        raise ServerFailed("the answer has no top_logprobs; use a server that gives log-probabilities") from None


def _words(answer: dict[str, Any]) -> str:
    """What the answer says, on one line."""
    try:
        return printable(str(answer["choices"][0]["message"]["content"]), _MAX_REASON)
    except (KeyError, IndexError, TypeError):
        raise ServerFailed("the answer has no text") from None


def _uris(images: "Tensor") -> list[str]:
    """(B, 3, H, W) in [0, 1] -> the PNG of each"""
    return [png_uri(image) for image in to_uint8(images)]
