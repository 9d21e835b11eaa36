"""VL-RewardBench (Li et al. 2025): 1,250 pairs, as the hub (MMInstruction/VL-RewardBench) or its repository has them.

`human_ranking` is the rank of each answer, 0 for the better one. The group follows from the data set that a question is
from: `query_source` on the hub; in the repository's file that key names where that data set has its questions from, so
the folder of the image and the beginning of the id decide there. POVID's ids begin with "hallucination": scripts that
count every unknown id as general put 448 hallucination pairs there.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from genloop.data.responses.layout import Row, responses_of, text_of
from genloop.data.responses.pair import ResponsePair

SIZES = {"general": 183, "hallucination": 749, "reasoning": 318}
_GROUPS = {"vlfeedback": "general", "wildvision": "general", "povid": "hallucination"} | {
    **{"rlaif-v": "hallucination", "rlhf-v": "hallucination", "mathverse": "reasoning", "mmmu": "reasoning"}
}
_OPENINGS = {name: name for name in _GROUPS} | {  # of ids -> data set
    **{"hallucination": "povid", "lrvinstruction": "vlfeedback", "jailbreak": "vlfeedback"},
    **{"politics": "vlfeedback", "svit": "vlfeedback"},
}
_PLACE_OF_IMAGE = "<image>\n"  # in front of POVID's questions; every model has its own way to say where an image is


def read_row(row: Row, where: str) -> tuple[ResponsePair, Any]:
    """-> a pair, and what the row says of its image; ValueError names `where` and the key."""
    source = source_of(row, where)
    ranking = row.get("human_ranking")
    if ranking not in ([0, 1], [1, 0]):
        raise ValueError(f"{where}: human_ranking: needs [0, 1] or [1, 0], found {ranking!r}")
    query = text_of(row, "query", where).removeprefix(_PLACE_OF_IMAGE)
    responses = responses_of(row.get("response"), f"{where}: response")
    pair = ResponsePair(text_of(row, "id", where), query, responses, ranking.index(0), _GROUPS[source], source)
    return pair, row.get("image_path") if row.get("image") is None else row["image"]


def source_of(row: Row, where: str) -> str:
    """The data set that a row is from; ValueError for one that nobody knows."""
    path = str(row.get("image_path") or "").split("/")
    told = [row.get("query_source"), *path[-2:-1], row.get("id")]
    for name in told:
        plain = str(name or "").lower().replace("_", "-")
        found = next((source for opening, source in _OPENINGS.items() if plain.startswith(opening)), None)
        if found is not None:
            return found
    raise ValueError(
        f"{where}: query_source {row.get('query_source')!r} and id {row.get('id')!r} are of no data set of "
        f"VL-RewardBench ({', '.join(_GROUPS)}); use data.layout=columns for another set"
    )


def check_sizes(pairs: Sequence[ResponsePair], where: str) -> None:
    """Refuse a set that is not the whole one."""
    found = Counter(pair.group for pair in pairs)
    if dict(found) != SIZES:
        told = ", ".join(f"{name} {found[name]} of {size}" for name, size in SIZES.items())
        raise ValueError(f"{where}: not the whole VL-RewardBench: {told}; set data.full=false for a part")
