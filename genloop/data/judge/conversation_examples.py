"""Published conversations as a judge's examples: what their yes/no answers say about an image and its prompt.

Files of ORM ask for the outcome of a finished image, those of PARM for the clarity of a preview and, in a second turn,
for its potential. What is asked, and about which prompt, is told by the wording; the step of a preview is not told, so
that it stays unknown. An answer in words, or to another question, gives no label and is counted.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.data.judge.conversations import Conversation, check_images, read_conversations, says_yes
from genloop.data.judge.examples import UNKNOWN_STEP, JudgeExample
from genloop.records import Prompt

SOURCE = "conversations"
WORDS, WORDING = "answered in words", "asked with unknown wording"  # why an answer gives no label
Recognize = Callable[[str], tuple[str, str] | None]  # text -> what is asked, about which prompt ("": it does not say)
_LABELS = {"outcome": "outcome", "dpo_reward": "outcome", "clarity": "clarity", "potential": "potential"}


@dataclass(frozen=True, slots=True)
class Labelled:
    """One conversation and the examples that its answers give: mostly one, of one or two questions."""

    said: Conversation
    examples: tuple[JudgeExample, ...]


@dataclass(frozen=True, slots=True)
class LabelledFile:
    """What a file of conversations gives: those with labels, and why answers and whole conversations gave none."""

    conversations: tuple[Labelled, ...]
    num_conversations: int
    answers: dict[str, int]  # reason -> answers that give no label
    left_out: dict[str, int]  # reason of the first answer -> conversations that give no label at all

    def image_sizes(self) -> str:
        """A sha256 of the sizes of all images in order, cheap where there are many."""
        sizes = [one.said.image.stat().st_size for one in self.conversations]
        return hashlib.sha256(json.dumps(sizes).encode()).hexdigest()

    def check(self) -> None:
        """FileNotFoundError when an image is missing."""
        check_images([one.said for one in self.conversations], "conversation_images")

    def plain(self) -> dict[str, Any]:
        """The counts, for summary.json."""
        asked = Counter(q for one in self.conversations for example in one.examples for q in example.questions)
        return {
            "conversations": self.num_conversations,
            "used": len(self.conversations),
            "labels": dict(asked),
            "left_out": dict(self.left_out),
            "answers_left_out": dict(self.answers),
        }

    def about(self) -> dict[str, list[str]]:
        """The section of the datasheet."""
        counts = self.plain()
        return {
            "Published conversations": [
                f"{counts['conversations']} conversations about an image each, of which {counts['used']} answer a",
                "judge's question with yes or no. These answers, by whoever made the file, are the labels; the licence",
                "is that of the file. At which steps previews were made is not known, so they are in no ranking pair;",
                "pairs of finished images are balanced apart from those of other sources.",
                *(f"- {question}: {n} labels" for question, n in counts["labels"].items()),
                *(f"- conversations left out, {why}: {n}" for why, n in counts["left_out"].items()),
                *(f"- answers left out, {why}: {n}" for why, n in counts["answers_left_out"].items()),
            ]
        }


def read_labelled(path: Path, images: Path, recognize: Recognize) -> LabelledFile:
    """The examples of a conversation file. FileNotFoundError or ValueError, one line each."""
    conversations = read_conversations(path, images)
    labelled = []
    answers, left_out = dict.fromkeys((WORDS, WORDING), 0), dict.fromkeys((WORDS, WORDING), 0)
    for number, said in enumerate(conversations):
        examples, reasons = _examples(number, said, recognize)
        for why in reasons:
            answers[why] += 1
        if examples:
            labelled.append(Labelled(said, tuple(examples)))
        else:
            left_out[reasons[0]] += 1
    if not labelled:
        counts = ", ".join(f"{n} {why}" for why, n in answers.items())
        raise ValueError(
            f"conversations: no answer in {path} gives a label ({counts}); name the file with the wording of its "
            "questions in `questions`"
        )
    return LabelledFile(tuple(labelled), len(conversations), answers, left_out)


def _examples(number: int, said: Conversation, recognize: Recognize) -> tuple[list[JudgeExample], list[str]]:
    """Examples, one for all that is asked about a preview; for each answer without a label, why."""
    found: list[tuple[str, int, dict[str, float]]] = []  # prompt, step, labels
    reasons = []
    prompt = ""  # a later turn may go on about that of the turn before
    for text, answer in said.turns:
        name, about = recognize(text) or ("", "")
        prompt, question = about or prompt, _LABELS.get(name)
        is_yes = says_yes(answer)
        if is_yes is None:
            reasons.append(WORDS)
        elif question is None or not prompt:
            reasons.append(WORDING)
        else:
            step = 0 if question == "outcome" else UNKNOWN_STEP
            if not found or found[-1][:2] != (prompt, step) or question in found[-1][2]:
                found.append((prompt, step, {}))
            found[-1][2][question] = float(is_yes)
    return [_example(number, place, *one) for place, one in enumerate(found)], reasons


def _example(number: int, place: int, prompt: str, step: int, labels: dict[str, float]) -> JudgeExample:
    key = f"conversation-{number:07d}-{place}"
    return JudgeExample(key, SOURCE, Prompt(number, prompt), 0, place, step, 0, labels)
