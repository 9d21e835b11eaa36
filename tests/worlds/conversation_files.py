"""Conversation files in the published form and wording, about drawn scenes of the embedded world."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from genloop.records import Prompt
from genloop.rewards.questions import RELEASED
from genloop.shapes.prompts import pool
from genloop.shapes.render import render
from genloop.shapes.scenes import scene_for

IN_WORDS = ("<image>\nDescribe the image.", "A star, I think.")
UNKNOWN = ("<image>\nIs this nice?", "yes")


def asked(question: str, prompt: str = "") -> str:
    """A released question, in the place where LLaVA has its image."""
    text = RELEASED[question].replace("{prompt}", prompt)
    return text.replace("<image> ", "<image>\n") if question == "outcome" else text


def entry(name: str, *turns: tuple[str, str]) -> dict[str, Any]:
    """One conversation: (what the human says, what the model answers) by turns."""
    said = [{"from": who, "value": text} for turn in turns for who, text in zip(("human", "gpt"), turn, strict=True)]
    return {"id": name, "image": name, "conversations": said}


def sentences(count: int) -> list[Prompt]:
    """Prompts with one object of a colour."""
    return pool("train", "colors")[:count]


def draw(path: Path, prompt: Prompt, number: int) -> None:
    """A scene that shows the prompt; its number keys the place, its file name says the format."""
    pixels = render([scene_for(prompt, np.random.default_rng([11, number]))])[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def published(folder: Path, *, num_sentences: int = 6, more: Sequence[dict[str, Any]] = ()) -> list[str]:
    """FOLDER/orm.json and FOLDER/images -> the job's words for them. Of each sentence: two outcomes, two previews.

    The first image of a sentence shows it, the others show the next one. Then come the entries `more`.
    """
    entries = []
    prompts = sentences(num_sentences)
    for place, prompt in enumerate(prompts):
        other = prompts[(place + 1) % num_sentences]
        for number, (shown, suffix) in enumerate([(prompt, "png"), (other, "jpg"), (other, "png"), (other, "png")]):
            name = f"{place}/{number}.{suffix}"
            draw(folder / "images" / name, shown, number)
            said = "no" if number else "yes"
            if number < 2:
                turns = [(asked("outcome", prompt.text), said)]
            elif number == 2:
                turns = [(asked("clarity", prompt.text), "yes"), (asked("potential"), "no" if place % 2 else "yes")]
            else:
                turns = [(asked("clarity", prompt.text), "no")]
            entries.append(entry(name, *turns))
    for one in more:
        draw(folder / "images" / one["image"], prompts[0], 9)
    (folder / "orm.json").write_text(json.dumps([*entries, *more]))
    return [f"conversations={folder / 'orm.json'}", f"conversation_images={folder / 'images'}"]
