"""The datasheet of a refinement corpus: what it holds, how it was labelled and split, what leaks, what it is for."""

from collections.abc import Mapping, Sequence
from typing import Any

from genloop.data.irg.dedupe import GRAM, MAX_BITS, THRESHOLD
from genloop.stats.intervals import Interval
from genloop.stats.markdown import percent, table_head, table_row

_COUNTS = {"split": "split", "kind": "kind", "intent": "intent", "rounds": "rounds of a trace", "ends": "end"}
_RATES = {
    "clean": "traces that begin with a clean image",
    "false_alarms": "clean images in which an issue is found",
    "taken_back": "actions that were taken back",
    "wrong_taken_back": "wrong first actions that were taken back",
}
_LEAKS = {
    "scenes": "scenes",
    "scenes_in_two_splits": "scenes in more than one split",
    "templates_in_two_splits": "templates outside of their splits",
    "duplicates_within": "traces with the text of another of their split",
    "duplicates_across": "traces with the text of one of another split",
    "near_duplicates_within": "near-duplicate texts within a split",
    "near_duplicates_across": "near-duplicate texts across splits",
    "alike_images_across": "traces whose first image is like one of another split",
}


def datasheet(summary: Mapping[str, Any], sections: Mapping[str, Sequence[str]]) -> str:
    """Markdown: the sections (heading -> lines), then tables of a run's summary; 95 % intervals are Wilson's."""
    parts = ["# Refinement traces", ""]
    for heading, lines in sections.items():
        parts += [f"## {heading}", *lines, ""]
    parts += ["## Counts", f"{summary['traces']} traces.", ""]
    for name, title in _COUNTS.items():
        parts += [*_row_of(title, summary[name]), ""]
    if summary["refused"]:
        parts += [*_row_of("refused", summary["refused"]), ""]
    parts += ["## Rates", *table_head(["rate", "n", "share"])]
    parts += [_rate_row([title], summary[name]) for name, title in _RATES.items() if summary[name]]
    parts += ["", "How often the first look finds a fault, by the bin of its severity:", ""]
    parts += table_head(["issue", "bin", "n", "share"])
    bins = ((issue, level, rate) for issue, rates in summary["found"].items() for level, rate in rates.items())
    parts += [_rate_row([issue, level], rate) for issue, level, rate in bins if rate]
    parts += ["", "How often rounds with an operation were kept:", "", *table_head(["operation", "n", "share"])]
    parts += [_rate_row([operation], rate) for operation, rate in summary["actions"].items()]
    parts += ["", "## Leakage", *_about_leakage(), "", *table_head(["what", "count"])]
    parts += [table_row([title, str(summary["leakage"][name])]) for name, title in _LEAKS.items()]
    return "\n".join(parts).rstrip() + "\n"


def about_source(source: str, resolution: int) -> tuple[str, str]:
    """Where images come from, and whether they show people."""
    if source == "scenes":
        drawn = f"Scenes of the embedded world, drawn with light, material and depth of field at {resolution} pixels."
        return drawn, "None: every image is drawn, and shows shapes alone."
    made = {"run": "Images of a run of `generate`", "folder": "A folder of images", "shards": "Shards of images"}
    return f"{made[source]}, at most {resolution} pixels a side.", "Whatever the images of the source show."


def about_corpus(source: str, license: str, seed: int, val_share: float, test_share: float) -> dict[str, list[str]]:
    """What stands above the tables: source, labels, texts, split, use."""
    return {
        "Source": [source, f"Licence: {license}."],
        "Labels": [
            "- Features are measured on the pixels of every image; nothing is simulated or imputed.",
            "- An issue is diagnosed where a feature passes its threshold, and each diagnosis stores its evidence.",
            "- Issues of content (count, colour, position) come from the scene that was drawn.",
            "- Actions are executed. One that makes an image worse is stored as not accepted and taken back.",
            "- The faults that were put in are stored as `injected`; no text tells them.",
        ],
        "Texts": [
            "- Sentences are made of templates from the stored numbers; no person and no model wrote any.",
            "- `genloop run verify` reads each sentence against its numbers, and each image against its sha256.",
        ],
        "Split": [
            f"- A hash of the scene (of the source image) and the seed {seed} decides: test below {test_share:g}, val "
            f"below {test_share + val_share:g}, else train. All traces of a scene are in one split.",
            "- Of every kind of sentence, test has templates of its own, which train and val never use.",
        ],
        "Use and limits": [
            "- For training and testing models that diagnose images and refine prompts.",
            "- Faults cover whole images and are synthetic; thresholds say what is wrong, not what people prefer.",
            "- Wording is that of a few templates, in test too.",
        ],
    }


def _about_leakage() -> list[str]:
    return [
        "Nothing is dropped: shards stay as their units wrote them. duplicates.jsonl lists the traces below, and "
        "`genloop run export_irg format=shards duplicates=false` writes a copy without them.",
        f"Near-duplicates: word {GRAM}-grams with an estimated Jaccard similarity (MinHash) of {THRESHOLD:g} or more. "
        f"Alike images: difference hashes of 64 bits that differ in {MAX_BITS} bits at most.",
    ]


def _row_of(title: str, counts: Mapping[str, int]) -> list[str]:
    return [*table_head([title, *counts]), table_row(["traces", *map(str, counts.values())])]


def _rate_row(cells: Sequence[str], rate: Mapping[str, Any]) -> str:
    share = Interval(rate["estimate"], rate["low"], rate["high"])
    return table_row([*cells, str(rate["n"]), percent(share)])
