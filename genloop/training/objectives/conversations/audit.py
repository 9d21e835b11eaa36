"""What a training will learn from, found before its first step: spans with a loss, shares of tokens, what was cut.

A document is read and tokenised as training will, so what cannot be read is refused here.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from genloop.training.objectives.conversations.documents import Document, Documents

_SHOWN = 3  # documents whose spans are written out
_NAMED = 10


@dataclass(frozen=True, eq=False)
class Audit:
    """kept (d,): numbers of documents to train on; lengths, weights: tokens of each, and those with a loss."""

    kept: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray
    report: dict[str, Any]


def audit(documents: Documents) -> Audit:
    """Read every document once; ValueError in one line for one that is too long, or when nothing or all is learned."""
    settings = documents.settings
    counts: Counter[str] = Counter()
    kept: list[tuple[int, int, int]] = []
    dropped, cut, spans = list[str](), list[str](), list[dict[str, Any]]()
    for number in range(len(documents)):
        document = documents[number]
        is_long = len(document) > settings.max_length
        if is_long and settings.too_long != "drop":
            raise ValueError(_too_long(document, settings.max_length, settings.too_long))
        if is_long:
            dropped.append(document.name)
            continue
        if document.lost_tokens:
            cut.append(document.name)
        kept.append((number, len(document), len(document.targets)))
        counts.update(_counts(document))
        if len(spans) < _SHOWN:
            spans.append({"document": document.name, "spans": spans_of(document, documents)})
    table = np.array(kept, dtype=np.int64).reshape(-1, 3)
    share = counts["loss_tokens"] / max(1, counts["tokens"])
    check_share(share, len(kept), len(documents))
    report = {
        "documents": len(documents),
        "kept": len(kept),
        "dropped": {"too_long": len(dropped), "first": dropped[:_NAMED]},
        "cut": {"documents": len(cut), "user_tokens": counts["lost_tokens"], "first": cut[:_NAMED]},
        "tokens": counts["tokens"],
        "loss_tokens": counts["loss_tokens"],
        "loss_share": share,
        "longest": int(table[:, 1].max()),
        "images": counts["images"],
        "image_tokens": counts["image_tokens"],
        "image_tokens_missing": counts["image_tokens_of_images"] - counts["image_tokens"],
        "images_not_taken": counts["left_out"],
        "spans": spans,
    }
    return Audit(table[:, 0], table[:, 1], table[:, 2], report)


def check_share(share: float, kept: int, documents: int) -> None:
    """ValueError when no token has a loss, or all have."""
    if not kept:
        raise ValueError(f"data: none of {documents} chats is left to train on; use a larger chat.max_length")
    if share in (0, 1):
        what = "no token has a loss" if share == 0 else "every token has a loss, prompts too"
        raise ValueError(f"data: {what} in {kept} chats; the chat template does not tell answers from prompts")


def spans_of(document: Document, documents: Documents) -> list[str]:
    """The texts with a loss, the tokens that close them included."""
    breaks = np.flatnonzero(np.diff(document.places) > 1) + 1
    return [documents.chat.tokenizer.decode_all(part.tolist()) for part in np.split(document.targets, breaks)]


def lines_of(report: dict[str, Any]) -> str:
    """A few lines for the terminal."""
    found = [
        f"supervision: {report['kept']} of {report['documents']} chats, {report['loss_tokens']} of {report['tokens']} "
        f"tokens with a loss ({report['loss_share']:.1%}), longest {report['longest']}",
        f"images: {report['images']} ({report['image_tokens']} tokens, {report['image_tokens_missing']} missing), "
        f"{report['images_not_taken']} not taken by this model",
        f"too long: {report['dropped']['too_long']} chats left out, {report['cut']['documents']} cut",
    ]
    found += [f"learns: {' | '.join(map(repr, one['spans']))}" for one in report["spans"][:1]]
    return "\n".join(found)


def _counts(document: Document) -> dict[str, int]:
    return {
        "tokens": len(document),
        "loss_tokens": len(document.targets),
        "images": len(document.images),
        "image_tokens": document.image_tokens,
        "image_tokens_of_images": sum(image.num_tokens for image in document.images),
        "lost_tokens": document.lost_tokens,
        "left_out": document.left_out,
    }


def _too_long(document: Document, most: int, way: str) -> str:
    if way == "cut":
        return (
            f"{document.name}: {len(document)} tokens although the user's text was cut, chat.max_length={most}; "
            "images and answers are not cut: use too_long=drop or a larger chat.max_length"
        )
    ways = "use a larger one, or chat.too_long=drop or cut"
    return f"{document.name}: {len(document)} tokens, chat.max_length={most}; {ways}"
