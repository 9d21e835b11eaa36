"""Prompt files: one prompt a line, beside it one line of GenEval metadata each; read, checked, written, worded.

The two-file format and the wording are those of GenEval (Ghosh et al. 2023): `generation_prompts.txt` holds the
texts, `evaluation_metadata.jsonl` the JSON objects {"tag", "include", ["exclude"], "prompt"}. Everything a file can
have wrong is refused here, before work starts, with one line that names the file and the line. A metadata object may
hold the prompt in other words too, as `detailed_caption`.
"""

import difflib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from genloop.reading import parse_json, read_utf8
from genloop.records import COLORS, RELATIONS, TAGS, Clause, Prompt
from genloop.rundir import write_atomic

PROMPTS_FILE = "generation_prompts.txt"
METADATA_FILE = "evaluation_metadata.jsonl"
REWRITTEN = "detailed_caption"  # the metadata key that holds a prompt in other words
Text = Literal["prompt", "detailed_caption"]  # which of the two a generator reads
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


# --- wording ---------------------------------------------------------------------------------------------------------


def caption(tag: str, include: Sequence[Clause]) -> str:
    """The text GenEval's generator gives to such clauses; in `position`, include[0] is the reference object."""
    build = _CAPTIONS.get(tag)
    if build is None:
        raise ValueError(f"unknown task {tag!r}{_suggest(tag, TAGS)}")
    return f"a photo of {build(include)}"


def with_article(text: str) -> str:
    """ "bench" -> "a bench", "apple" -> "an apple": by the first letter alone, as GenEval has it."""
    return f"{'an' if text[:1] in tuple('aeiou') else 'a'} {text}"


def plural(name: str) -> str:
    """ "bus" -> "buses", every other ending gets an "s" ("benchs" too: GenEval's spelling, kept for equal bytes)."""
    return f"{name}es" if name.endswith("s") else f"{name}s"


def _counted(clause: Clause) -> str:
    word = NUMBERS[clause.count] if clause.count < len(NUMBERS) else str(clause.count)
    return f"{word} {clause.class_name if clause.count == 1 else plural(clause.class_name)}"


def _colored(clause: Clause) -> str:
    return with_article(f"{clause.color} {clause.class_name}")


def _positioned(include: Sequence[Clause]) -> str:
    reference, subject = include[0], include[1]
    if subject.position is None:
        raise ValueError(f"the second clause of a position prompt needs a position: {subject}")
    return f"{with_article(subject.class_name)} {subject.position[0]} {with_article(reference.class_name)}"


_CAPTIONS: dict[str, Callable[[Sequence[Clause]], str]] = {
    "single_object": lambda include: with_article(include[0].class_name),
    "two_object": lambda include: " and ".join(with_article(clause.class_name) for clause in include),
    "counting": lambda include: _counted(include[0]),
    "colors": lambda include: _colored(include[0]),
    "position": _positioned,
    "color_attr": lambda include: " and ".join(_colored(clause) for clause in include),
}


# --- reading ---------------------------------------------------------------------------------------------------------


def read_prompts(
    prompts: Path | None,
    metadata: Path | None = None,
    *,
    limit: int | None = None,
    classes: Collection[str] | None = None,
    text: Text = "prompt",
) -> list[Prompt]:
    """The checked prompts of a text file, of a metadata file, or of both together (then line by line the same texts).

    A `prompts` file that ends in .jsonl or .json counts as metadata. The whole files are checked, then cut to `limit`;
    `classes` are the names that metadata may use (default: any); with `text` "detailed_caption" every line of metadata
    has to have one. Raises FileNotFoundError or ValueError, one line each.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, found {limit}")
    for path in (prompts, metadata):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path}: no such file; `genloop run make_prompts geneval` writes GenEval's")
    if metadata is None and prompts is not None and prompts.suffix in (".jsonl", ".json"):
        prompts, metadata = None, prompts
    if metadata is None:
        if prompts is None:
            raise ValueError("no prompts: give `prompts`, `metadata` or both")
        if text == REWRITTEN:
            raise ValueError(f"text: {REWRITTEN} stands in metadata, {prompts} comes without; give `metadata` too")
        return [Prompt(index, text) for index, text in enumerate(read_texts(prompts))][:limit]
    found = read_metadata(metadata, classes=classes, text=text)
    if prompts is not None:
        _check_same(prompts, read_texts(prompts), metadata, [prompt.text for prompt in found])
    return found[:limit]


def read_texts(path: Path) -> list[str]:
    """The lines of a prompt file without surrounding blanks; empty lines are allowed at the end only."""
    texts = [line.strip() for line in read_utf8(path).split("\n")]
    while texts and not texts[-1]:
        texts.pop()
    if not texts:
        raise ValueError(f"{path}: no prompts in this file; write one prompt a line")
    for number, text in enumerate(texts, 1):
        if not text:
            raise ValueError(f"{path}:{number}: empty line; write one prompt a line")
        if not _is_one_line(text):
            raise ValueError(f"{path}:{number}: carriage return in a prompt; end every line with LF or CR LF")
    return texts


def read_metadata(path: Path, *, classes: Collection[str] | None = None, text: Text = "prompt") -> list[Prompt]:
    """The prompts of a metadata file: JSON lines, or one JSON list."""
    content = read_utf8(path)
    if content.lstrip().startswith("["):
        entries = [
            (f"{path}: entry {number}", row) for number, row in enumerate(parse_json(content, f"{path}", once=True), 1)
        ]
    else:
        lines = content.rstrip().split("\n")
        entries = [
            (f"{path}:{n}", _parse_line(line, f"{path}:{n}")) for n, line in enumerate(lines, 1) if lines != [""]
        ]
    if not entries:
        raise ValueError(f"{path}: no prompts in this file; write one JSON object a line")
    options: dict[str, Any] = {"classes": classes, "text": text}
    found = [parse_metadata(row, index, where=where, **options) for index, (where, row) in enumerate(entries)]
    for prompt, (where, _) in zip(found, entries):
        if not _is_one_line(prompt.text):
            raise ValueError(f"{where}: prompt must be one line of text, found {prompt.text!r}")
    return found


def check_held_out(prompts: Iterable[Prompt], files: Iterable[Path]) -> None:
    """ValueError when a prompt is in one of these prompt or metadata files too: nothing is learned from it then."""
    for path in files:
        texts = {_plain(prompt.text): number for number, prompt in enumerate(read_prompts(path), 1)}
        for prompt in prompts:
            if number := texts.get(_plain(prompt.text)):
                raise ValueError(
                    f"{path}:{number}: {prompt.text!r} is held out for evaluation and is prompt {prompt.index} of "
                    "those to learn from; take it out of these"
                )


def left_out(prompts: Sequence[Prompt], files: Iterable[Path]) -> list[Prompt]:
    """The prompts that are in none of these prompt or metadata files, numbered anew; ValueError when none is left."""
    texts = {_plain(prompt.text) for path in files for prompt in read_prompts(path)}
    kept = [prompt for prompt in prompts if _plain(prompt.text) not in texts]
    if not kept:
        raise ValueError("without: these files hold every prompt; draw more (num_prompts) or others (seed)")
    return [replace(prompt, index=number) for number, prompt in enumerate(kept)]


def _plain(text: str) -> str:
    """A text without what makes no other prompt of it: case, blanks, a full stop."""
    return " ".join(text.casefold().split()).rstrip(".")


def _check_same(prompts: Path, texts: Sequence[str], metadata: Path, expected: Sequence[str]) -> None:
    for number, (text, other) in enumerate(zip(texts, expected), 1):
        if text != other:
            raise ValueError(
                f"{prompts}:{number}: prompt {text!r} is {other!r} on line {number} of {metadata}; "
                "give the `metadata` of these prompts, or metadata=null for none"
            )
    if len(texts) != len(expected):
        raise ValueError(
            f"{metadata}: has {len(expected)} lines, {prompts} has {len(texts)} prompts; they must match line by line"
        )


def _parse_line(line: str, where: str) -> Any:
    if not line.strip():
        raise ValueError(f"{where}: empty line; write one JSON object a line")
    return parse_json(line, where, once=True)


def _is_one_line(text: str) -> bool:
    """Whether a line of a file can hold it."""
    return bool(text) and not text.startswith("\ufeff") and not any(mark in text for mark in "\n\r\0")


# --- metadata --------------------------------------------------------------------------------------------------------


def parse_metadata(
    row: object, index: int, *, where: str, classes: Collection[str] | None = None, text: Text = "prompt"
) -> Prompt:
    """One metadata object -> Prompt, whose text may have several lines. `where` opens every error: "file:line".

    Keys that GenEval does not know are ignored, unless they look like one that is missing; inside a clause every
    unknown key is refused.
    """
    if not isinstance(row, Mapping):
        raise ValueError(f"{where}: expected a JSON object, found {_shown(row)}")
    for key in row:
        if not isinstance(key, str):
            raise ValueError(f"{where}: keys must be texts, found {key!r}")
        if key not in _KEYS and not row.keys() >= set(difflib.get_close_matches(key, _KEYS, 1, 0.8)):
            raise ValueError(f"{where}: unknown key {key!r}{_suggest(key, _KEYS)}")
    prompt, tag = (_string(row, key, where) for key in ("prompt", "tag"))
    if not prompt.strip():
        raise ValueError(f"{where}: prompt must be a text, found blanks only")
    if tag not in TAGS:
        raise ValueError(f"{where}: unknown task {tag!r}{_suggest(tag, TAGS)}")
    include = _clauses(row, "include", where, classes)
    exclude = _clauses(row, "exclude", where, classes) if row.get("exclude") not in (None, []) else ()
    return Prompt(index, prompt.strip(), tag, include, exclude, _rewritten(row, where) if text == REWRITTEN else None)


def _rewritten(row: Mapping[str, Any], where: str) -> str:
    if row.get(REWRITTEN) is None:
        raise ValueError(f"{where}: {REWRITTEN} is missing; text={REWRITTEN} needs one for every prompt")
    found = _string(row, REWRITTEN, where).strip()
    if not found:
        raise ValueError(f"{where}: {REWRITTEN} must be a text, found blanks only")
    return found


_KEYS = ("tag", "include", "exclude", "prompt")
_CLAUSE_KEYS = {"include": ("class", "count", "color", "position"), "exclude": ("class", "count")}


def _clauses(row: Mapping[str, Any], key: str, where: str, classes: Collection[str] | None) -> tuple[Clause, ...]:
    if key not in row:
        raise ValueError(f"{where}: {key} is missing")
    clauses = row[key]
    if not isinstance(clauses, list) or not clauses:
        raise ValueError(f"{where}: {key} must be a list of clauses, found {_shown(clauses)}")
    return tuple(_clause(clause, number, key, where, classes) for number, clause in enumerate(clauses))


def _clause(clause: object, number: int, key: str, where: str, classes: Collection[str] | None) -> Clause:
    where = f"{where}: {key}[{number}]"
    if not isinstance(clause, Mapping):
        raise ValueError(f"{where}: expected a JSON object, found {_shown(clause)}")
    for name in clause:
        if name not in _CLAUSE_KEYS[key]:
            raise ValueError(f"{where}: unknown key {name!r}{_suggest(name, _CLAUSE_KEYS[key])}")
    class_name = _string(clause, "class", where)
    if classes is not None and class_name not in classes:
        raise ValueError(f"{where}.class: unknown class {class_name!r}{_suggest(class_name, classes)}")
    if "count" not in clause:
        raise ValueError(f"{where}: count is missing")
    count = clause["count"]
    if not _is_integer(count) or count < 1:
        raise ValueError(f"{where}.count: must be an integer of at least 1, found {_shown(count)}")
    color = None if clause.get("color") is None else _string(clause, "color", where)
    if color is not None and color not in COLORS:
        raise ValueError(f"{where}.color: unknown colour {color!r}{_suggest(color, COLORS)}")
    position = None if clause.get("position") is None else _position(clause["position"], number, f"{where}.position")
    return Clause(class_name, count, color, position)


def _position(value: object, number: int, where: str) -> tuple[str, int]:
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], str) or not _is_integer(value[1]):
        raise ValueError(f"{where}: must be [relation, index of an earlier clause], found {_shown(value)}")
    relation, target = value
    if relation not in RELATIONS:
        raise ValueError(f"{where}: unknown relation {relation!r}{_suggest(relation, RELATIONS)}")
    if not 0 <= target < number:
        allowed = f"0..{number - 1}" if number > 1 else "0" if number else "none, it is the first clause"
        raise ValueError(f"{where}: target {target} is out of range; it must be an earlier include clause ({allowed})")
    return relation, target


def _string(row: Mapping[str, Any], key: str, where: str) -> str:
    if key not in row:
        raise ValueError(f"{where}: {key} is missing")
    value = row[key]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: {key} must be a text, found {_shown(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):  # good JSON, but no text
        raise ValueError(f"{where}: {key} holds half of a character: {_shown(value)}")
    return value


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _shown(value: object) -> str:
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _suggest(found: str, allowed: Collection[str]) -> str:
    close = difflib.get_close_matches(found, allowed, 1)
    known = ", ".join(allowed) if len(allowed) <= 12 else f"{len(allowed)} names are known"
    return f"; did you mean {close[0]!r}? ({known})" if close else f" ({known})"


# --- writing ---------------------------------------------------------------------------------------------------------


def encode_prompts(prompts: Iterable[Prompt]) -> tuple[bytes, bytes]:
    """The bytes of the two files: texts, metadata; LF after every line, `json.dumps` with its defaults."""
    chosen = list(prompts)
    for prompt in chosen:
        if prompt.text != prompt.text.strip() or not _is_one_line(prompt.text):
            raise ValueError(f"prompt {prompt.index}: must be one line without surrounding blanks: {prompt.text!r}")
    texts = "".join(f"{prompt.text}\n" for prompt in chosen)
    rows = "".join(f"{json.dumps(prompt.metadata())}\n" for prompt in chosen)
    return texts.encode(), rows.encode()


def write_prompts(folder: Path, prompts: Iterable[Prompt]) -> tuple[Path, Path]:
    """Write generation_prompts.txt and evaluation_metadata.jsonl into a folder, each by an atomic rename."""
    texts, rows = encode_prompts(prompts)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / PROMPTS_FILE, folder / METADATA_FILE
    for path, data in zip(paths, (texts, rows)):
        write_atomic(path, data)
    return paths
