"""Several runs of `evaluate_judges` over the same pairs as one: their judges, rows and pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genloop.config import read_yaml
from genloop.data.responses.pair import ResponsePairs
from genloop.data.responses.read import ResponseData, open_pairs
from genloop.rewards.responses.settings import ResponseJudgeSettings
from genloop.rundir import read_run
from genloop.runs.judged import JudgedPair, is_judging, read_judged
from genloop.runs.lineage import locate

_DATA = "data"


@dataclass(frozen=True, eq=False)
class JudgedRuns:
    """Judges in the order of the runs, each with its rows; `pairs` are those of the first run."""

    judges: dict[str, ResponseJudgeSettings]
    rows: dict[str, list[JudgedPair]]
    pairs: ResponsePairs


def open_judged_runs(folders: Sequence[Path]) -> JudgedRuns:
    """FileNotFoundError or ValueError, which begins with `runs`, for no such run, other pairs, or one name twice."""
    judges: dict[str, ResponseJudgeSettings] = {}
    rows: dict[str, list[JudgedPair]] = {}
    digests = []
    for folder in folders:
        if not is_judging(folder):
            raise ValueError(f"runs: {folder} is no run of evaluate_judges")
        config = read_yaml(folder / "config.yaml")
        found = {name: _settings(folder, name, one) for name, one in config["judges"].items()}
        if twice := [name for name in found if name in judges]:
            raise ValueError(f"runs: a judge {twice[0]!r} is in several runs; give judges names of their own")
        own = list(read_judged(folder))
        for name in found:
            rows[name] = [row for row in own if row.judge == name]
            if not rows[name]:
                raise ValueError(f"runs: {folder} has no finished unit of judge {name} yet")
        judges |= found
        digests.append(_data_digests(folder))
    if other := [folder for folder, digest in zip(folders, digests) if digest != digests[0]]:
        raise ValueError(f"runs: {other[0]} judged other pairs than {folders[0]}; judge the same file")
    return JudgedRuns(judges, rows, _pairs(folders[0]))


def _settings(folder: Path, name: str, given: Any) -> ResponseJudgeSettings:
    try:
        return ResponseJudgeSettings.model_validate(given, strict=False)
    except ValidationError as error:
        raise ValueError(f"runs: {folder / 'config.yaml'}: judges.{name}: {error.errors()[0]['msg']}") from None


def _data_digests(folder: Path) -> dict[str, str]:
    """What run.json says of the pairs' file and images."""
    return {key: value for key, value in (read_run(folder) or {})["inputs"].items() if key.split(".")[0] == _DATA}


def _pairs(folder: Path) -> ResponsePairs:
    data = ResponseData.model_validate(read_yaml(folder / "config.yaml")[_DATA], strict=False)
    places = {"path": locate(data.path, folder), "images": data.images and locate(data.images, folder)}
    return open_pairs(data.model_copy(update=places))
