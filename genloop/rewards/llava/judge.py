"""LLaVA-OneVision as a judge: P(yes) from the first token's logits, in one prefill that questions share.

B = rows, V = vocabulary. A chat is a chain of pieces (chat prefix, image, question, second turn). A piece that was
computed before, for whatever question, is not computed again: the prefix once, an image's keys and values once for
clarity, potential and outcome, the clarity question once for the potential that goes on from it.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genloop.data.images import to_uint8
from genloop.models.llava.flops import head_flops, image_flops, text_flops
from genloop.models.llava.model import Llava, llava_config
from genloop.models.llava.segments import Segment, continue_greedily, next_logits
from genloop.models.llava.text import LlavaTokenizer
from genloop.records import Prompt
from genloop.registry import require
from genloop.rewards.calibration import Calibration
from genloop.rewards.llava.pieces import Chain, ImagePiece, PieceRunner, SegmentCache, TextPiece, Tiling, image_piece
from genloop.rewards.questions import Questions, spellings

log = logging.getLogger(__name__)
Probability = Literal["raw", "two_way", "processed"]
_MAX_REASON_TOKENS = 32
_STOCK_TOP_K = 50  # of transformers, where a generation_config.json says nothing
_NAMED = 5  # prompts in one line of the log


class LlavaJudge:
    """Implements the Judge, Asker, Comparer and Critic protocols, the last two as far as it has questions for them.

    `generation` is the checkpoint's generation_config.json, which `processed` probabilities go by. Questions in
    `calibration` are answered by its a and b instead: sigmoid(a (logit(yes) - logit(no)) + b).
    """

    def __init__(
        self,
        model: Llava,
        tokenizer: LlavaTokenizer,
        questions: Questions,
        *,
        probability: Probability = "raw",
        tiling: Tiling = "pad",
        tokens_per_forward: int = 8192,
        cache_bytes: int = 2 * 10**9,
        generation: Mapping[str, Any] | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        self.tokenizer, self.questions, self.probability = tokenizer, questions, probability
        self.config = llava_config(model)
        self.yes, self.no = tokenizer.word_id("yes"), tokenizer.word_id("no")
        self.model = model.eval()
        self._runner = PieceRunner(self.model, self.config, tiling, tokens_per_forward, cache_bytes)
        self._warp = _warpers(generation or {})
        self._calibration = calibration or {}

    @property
    def segments(self) -> SegmentCache:
        """What it keeps of images and questions: up to `cache_bytes`."""
        return self._runner.cache

    def p_yes(self, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
        """One prompt per image (B, 3, H, W) in [0, 1] -> (B,) float32, NaN where the model gave no number.

        The images are judged as the 8-bit pixels that would be written.
        """
        seen = [[piece] for piece in self._images(images)]
        return self._answers(question, prompts, seen).to(images.device)

    def p_first(self, prompts: Sequence[Prompt], first: Tensor, second: Tensor) -> Tensor:
        """Pairs of images, each (B, 3, H, W) in [0, 1] -> (B,): P(the first is better), the mean of both orders."""
        ones, others = self._images(first), self._images(second)
        both = [*zip(ones, others), *zip(others, ones)]
        forth, back = self._answers("compare", [*prompts, *prompts], both).double().chunk(2)
        return (0.5 + (forth - back) / 2).float().to(first.device)

    def reasons(self, prompts: Sequence[Prompt], images: Tensor) -> list[str]:
        """One prompt per image (B, 3, H, W) in [0, 1] -> why it does not show it, "" where P(yes) is 1/2 or more."""
        seen = [[piece] for piece in self._images(images)]
        self.questions.need("reason")
        wrong = [row for row, p in enumerate(self._answers("outcome", prompts, seen).tolist()) if not p >= 0.5]
        chains = [self._chain("reason", prompts[row].text, seen[row]) for row in wrong]
        reasons = [""] * len(prompts)
        for row, words in zip(wrong, self._runner.run(chains, self._words)):
            reasons[row] = words
        return reasons

    def p_yes_to(self, texts: Sequence[str], images: Tensor) -> Tensor:
        """One yes/no question per image (B, 3, H, W) in [0, 1] -> (B,) float32; calibration knows no such questions."""
        yes = self.p_answer_to(texts, ["yes"] * len(texts), images)
        if self.probability != "two_way":
            return yes
        return yes / (yes + self.p_answer_to(texts, ["no"] * len(texts), images))

    def p_answer_to(self, texts: Sequence[str], answers: Sequence[str], images: Tensor) -> Tensor:
        """One question and one answer per image (B, 3, H, W) in [0, 1] -> (B,) float32: P(answer), all spellings."""
        for text in dict.fromkeys(texts):
            if strange := self.tokenizer.unknown(text):
                names = ", ".join(map(repr, dict.fromkeys(strange)))
                raise ValueError(f"question {text!r} has words that the judge's tokenizer does not know: {names}")
        pieces = self._images(images)
        ways = [self._ways(answer) for answer in answers]
        asked: dict[Chain, int] = {}  # every chain whose next token is asked for, once
        for text, piece, ids in zip(texts, pieces, ways, strict=True):
            for way in ids:
                for end in range(len(way)):
                    asked.setdefault(self._free_chain(text, piece, way[:end]), len(asked))
        needed = {token: place for place, token in enumerate(sorted({t for ids in ways for way in ids for t in way}))}
        shares = self._runner.run(list(asked), partial(self._shares, tokens=list(needed)))
        found = []
        for text, piece, ids in zip(texts, pieces, ways):
            products = []
            for way in ids:
                steps = [(self._free_chain(text, piece, way[:end]), token) for end, token in enumerate(way)]
                products.append(math.prod(shares[asked[chain]][needed[token]] for chain, token in steps))
            found.append(math.fsum(products))
        return torch.tensor(found, device=images.device)

    def flops(self, questions: Sequence[str], prompt: Prompt) -> float:
        """Of asking these questions in this order about one image of one tile, which is looked at once.

        The chat prefix is not counted: it is computed once a run.
        """
        total, known = 0.0, set()
        for question in questions:
            shown = [ImagePiece(bytes([place]), np.empty(0)) for place in range(2)]
            chain = self._chain(question, prompt.text, shown)
            before = 0
            for end, piece in enumerate(chain, start=1):
                is_text = isinstance(piece, TextPiece)
                length = len(piece.ids) if isinstance(piece, TextPiece) else self.config.num_image_positions
                if chain[:end] not in known and not (is_text and end == 1):
                    total += text_flops(self.config, length, before) + (0 if is_text else image_flops(self.config))
                if end < len(chain) or self._goes_on(question):
                    known.add(chain[:end])
                before += length
            total += head_flops(self.config)
        return total

    def _images(self, images: Tensor) -> list[ImagePiece]:
        return [image_piece(pixels) for pixels in to_uint8(images)]

    def _goes_on(self, question: str) -> bool:
        """Whether another question is a second turn behind this one."""
        wording = self.questions.wording
        return question == "clarity" and "potential" in wording and self.questions.base("potential") == "clarity"

    def _chain(self, question: str, prompt: str, shown: Sequence[ImagePiece]) -> Chain:
        """The pieces of one chat; a first piece without text is left out."""
        texts = self.questions.pieces(question, prompt)
        num_images = self.questions.num_images(question)
        chain: list[TextPiece | ImagePiece] = []
        for place, text in enumerate(texts[: num_images + 1]):
            chain += [TextPiece(ids)] if (ids := tuple(self.tokenizer.encode(text))) else []
            chain += [shown[place]] if place < num_images else []
        if len(texts) > num_images + 1:
            chain = self._second_turn(chain, texts[-2], texts[-1])
        return tuple(chain)

    def _free_chain(self, text: str, shown: ImagePiece, answered: Sequence[int] = ()) -> Chain:
        """A question of any wording, and the tokens of an answer that stand already."""
        before, behind = (tuple(self.tokenizer.encode(part)) for part in self.questions.free_pieces(text))
        chain: Chain = (*([TextPiece(before)] if before else []), shown, TextPiece(behind))
        return (*chain, TextPiece(tuple(answered))) if answered else chain

    def _ways(self, answer: str) -> list[tuple[int, ...]]:
        """The tokens of an answer in each spelling that the tokenizer knows."""
        known = [word for word in spellings(answer) if not self.tokenizer.unknown(word)]
        if not known:
            raise ValueError(f"the judge's tokenizer has no token for the answer {answer!r}; use another judge")
        return list(dict.fromkeys(tuple(self.tokenizer.encode(word)) for word in known))

    def _second_turn(
        self, chain: list[TextPiece | ImagePiece], first: str, second: str
    ) -> list[TextPiece | ImagePiece]:
        """Go on behind the first turn, or, where the tokenizer merges over the seam, behind the image."""
        whole, known = self.tokenizer.encode(first + second), self.tokenizer.encode(first)
        if whole[: len(known)] == known:
            return [*chain, TextPiece(tuple(whole[len(known) :]))]
        return [*chain[:-1], TextPiece(tuple(whole))]

    def _answers(self, question: str, prompts: Sequence[Prompt], shown: Sequence[Sequence[ImagePiece]]) -> Tensor:
        """(B,) float32: P(yes), NaN where it is not a number, with one line in the log."""
        chains = [self._chain(question, prompt.text, row) for prompt, row in zip(prompts, shown, strict=True)]
        finish = partial(self._probabilities, scale=self._calibration.get(question))
        answers = torch.tensor(self._runner.run(chains, finish, keep_last=self._goes_on(question)))
        if lost := torch.nonzero(answers.isnan()).flatten().tolist():
            names = ", ".join(f"{prompts[row].index} {prompts[row].text!r}" for row in lost[:_NAMED])
            more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
            log.warning(
                "%s: no number for %d of %d images: prompts %s%s", question, len(lost), len(chains), names, more
            )
        return answers

    def _probabilities(self, segments: list[Segment], *, scale: tuple[float, float] | None) -> list[float]:
        """P(yes) as the next token of each segment. Rows of the head that no token has do not count."""
        logits = next_logits(self.model, segments)[:, : self.tokenizer.num_tokens]
        broken = logits.isnan().any(dim=1)
        if scale is not None:
            a, b = scale
            p = (a * (logits[:, self.yes] - logits[:, self.no]).double() + b).sigmoid()
        elif self.probability == "two_way":
            p = (logits[:, self.yes] - logits[:, self.no]).sigmoid()
        elif self.probability == "processed":
            p = self._warp(logits).softmax(dim=-1)[:, self.yes]
        else:
            p = logits.softmax(dim=-1)[:, self.yes]
        return p.masked_fill(broken, float("nan")).tolist()

    def _shares(self, segments: list[Segment], *, tokens: list[int]) -> list[list[float]]:
        """P of each of the tokens behind each segment."""
        logits = next_logits(self.model, segments)[:, : self.tokenizer.num_tokens]
        if self.probability == "processed":
            logits = self._warp(logits)
        return logits.softmax(dim=-1)[:, tokens].tolist()

    def _words(self, segments: list[Segment]) -> list[str]:
        """The likeliest answer in words behind each segment."""
        closing = self.tokenizer.encode(self.questions.chat.end)
        groups: dict[tuple[int, ...], list[int]] = {}
        for row, segment in enumerate(segments):
            groups.setdefault(segment.lengths, []).append(row)
        words = [""] * len(segments)
        for rows in groups.values():
            written = continue_greedily(
                self.model,
                [segments[row] for row in rows],
                max_new_tokens=_MAX_REASON_TOKENS,
                num_tokens=self.tokenizer.num_tokens,
                end=closing[0] if closing else None,
            )
            for row, ids in zip(rows, written):
                words[row] = self.tokenizer.decode(ids).strip()
        return words


def _warpers(generation: Mapping[str, Any]) -> Callable[[Tensor], Tensor]:
    """What the released code's `generate` made of logits (B, V): temperature 1, which it set itself, top-k, top-p."""
    stock = require("transformers.generation.logits_process")
    top_k, top_p = generation.get("top_k", _STOCK_TOP_K), generation.get("top_p", 1.0)

    def warp(logits: Tensor) -> Tensor:
        unused = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
        if top_k:
            logits = stock.TopKLogitsWarper(top_k=top_k)(unused, logits)
        if top_p is not None and top_p < 1:
            logits = stock.TopPLogitsWarper(top_p=top_p)(unused, logits)
        return logits

    return warp
