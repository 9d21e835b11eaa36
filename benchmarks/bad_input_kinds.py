"""The bad inputs of benchmarks/bad_inputs.py: good input with one thing wrong, drawn by a seed, and a list by hand.

A generator gets a folder of its own and random numbers, and returns the words of a command and what its refusal has to
name: one of `names`. What is drawn is wrong whatever the numbers say; nothing here is only unusual.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genloop.config import computing_keys, dump_yaml, read_yaml
from genloop.job import parse
from launch.catalog import import_job
from tests.runs import ROOT

SET = ROOT / "configs" / "prompts" / "shapes_tiny"
SHAPES = ROOT / "ckpts" / "shapes"
DATA = ROOT / "configs" / "data" / "shapes"
PICTURES = ROOT / "configs" / "prompts" / "shapes_images"
JOBS = [
    file.stem for file in sorted((ROOT / "jobs").glob("*.py")) if file.stem not in {"__init__", "agreement", "report"}
]


@dataclass(frozen=True)
class Case:
    """A command that has to be refused; `words` start with `run` JOB or another command."""

    words: Sequence[str]
    names: Sequence[str]


def job(name: str, *words: str, names: Sequence[str], preset: str = "tiny") -> Case:
    """`genloop run NAME PRESET words`."""
    return Case(["run", name, preset, *words], names)


def configs(place: Path, chance: random.Random) -> Case:
    """A key of some job with a value of another kind, or a key that there is not."""
    name = chance.choice(JOBS)
    keys = computing_keys(parse(import_job(name), ["tiny", "out=x"]))
    key = chance.choice([key for key, value in keys.items() if type(value) in {int, float, bool}])
    if chance.random() < 0.25:
        return job(name, f"{key}z=1", names=[f"{key}z"])
    wrong = ["{a: 1}", "[1, [2]]", "1e400", ".nan", "-.inf", "soon", '"1"', "-7", "", "10000000000000000000000"]
    wrong = [text for text in wrong if not (text == "" and keys[key] is None)]
    wrong = [text for text in wrong if not (text == "-7" and key.endswith("object_bonus"))]  # may be negative
    return job(name, f"{key}={chance.choice(wrong)}", names=[key, key.partition(".")[0]])


def presets(place: Path, chance: random.Random) -> Case:
    """A preset file that is torn, of another kind, or holds what no preset holds."""
    name = chance.choice(JOBS)
    good = dump_yaml(read_yaml(ROOT / "configs" / name / "tiny.yaml")).encode()
    path = place / "preset.yaml"
    cut = chance.randrange(1, len(good))
    bad = {
        "bytes": good[:cut] + b"\xff\xfe" + good[cut:],
        "a NUL": good[:cut] + b"\0" + good[cut:],
        "an open list": good + b"more: [1, 2\n",
        "an open string": good + b'more: "x\n',
        "a key twice": good + good.splitlines(keepends=True)[0].replace(b"\n", b"x\n") + b"\n",
        "a tab": good + b"more:\n\t- x\n",
        "a list": b"- a\n- b\n",
        "a number": b"17\n",
        "a type": good + b"more: !!python/object:os.system x\n",
        "an unknown anchor": good + b"more: *nowhere\n",
        "an unknown key": good + b"moreover: 1\n",
        "a bomb": b"a: &a [1,1,1,1,1,1,1,1,1]\n"
        + b"".join(
            f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n".encode() for i in range(8)
        ),
        "depth": b"a: " + b"[" * 3000 + b"]" * 3000,
    }
    path.write_bytes(bad[chance.choice(sorted(bad))])
    return job(name, names=["preset.yaml", "moreover"], preset=str(path))


def prompt_files(place: Path, chance: random.Random) -> Case:
    """Texts that do not fit their metadata, are no text, or are not there."""
    lines = (SET / "generation_prompts.txt").read_text().splitlines()
    index = chance.randrange(len(lines))
    other = [*lines]
    kind = chance.choice(
        ["a line less", "a line more", "another text", "bytes", "NUL", "empty", "gap", "folder", "pipe"]
    )
    path = place / "prompts.txt"
    if kind == "a line less":
        del other[index]
    elif kind == "a line more":
        other.insert(index, "a photo of a circle and a hat")
    elif kind == "another text":
        other[index] = other[index][: chance.randrange(1, len(other[index]))]
    elif kind == "gap":
        other.insert(index, "")
    text = "\n".join(other).encode()
    if kind == "bytes":
        text = text[:index] + chance.choice([b"\xff", b"\xc3", b"\xed\xa0\x80"]) + text[index:]
    elif kind == "NUL":
        text = text[:index] + b"\0" + text[index:]
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"" if kind == "empty" else text + b"\n")
    return job("generate", f"prompts={path}", names=["prompts.txt"])


def metadata(place: Path, chance: random.Random) -> Case:
    """One row of metadata with one thing wrong."""
    rows = [json.loads(line) for line in (SET / "evaluation_metadata.jsonl").read_text().splitlines()]
    index = chance.randrange(len(rows))
    row, clause = rows[index], rows[index]["include"][0]
    changes: list[Callable[[], Any]] = [
        lambda: row.pop("prompt"),
        lambda: row.pop("include"),
        lambda: row.update(tag=chance.choice(["countin", "", 7, None, ["colors"], {"a": 1}])),
        lambda: row.update(include=chance.choice([[], {}, "circle", [[]], [None], 3])),
        lambda: row.update(prompt=chance.choice(["", 7, None, [], "a\nb", " "])),
        lambda: row.update(exclude=chance.choice(["x", [3], [{"class": "circle"}], {"count": 1}])),
        lambda: clause.update(count=chance.choice([-1, 0, 1.5, "two", None, True, 10**400, float("nan")])),
        lambda: clause.update({"class": chance.choice(["hat", "", 3, None, ["circle"], "Circle"])}),
        lambda: clause.update(color=chance.choice(["gray", 3, ["red"], ""])),
        lambda: clause.update(
            position=chance.choice([["above", 9], ["over", 0], "above", [], [0, "above"], ["above", -1]])
        ),
        lambda: clause.pop(chance.choice(["class", "count"])),
    ]
    chance.choice(changes)()
    lines = [json.dumps(one) for one in rows]
    if chance.random() < 0.2:
        whole = (SET / "evaluation_metadata.jsonl").read_text().splitlines()
        lines = [*whole[:index], whole[index][: chance.randrange(1, len(whole[index]))], *whole[index + 1 :]]
    path = place / "metadata.jsonl"
    path.write_text("\n".join(lines) + "\n")
    search = ("search.strategy=best_of_n", "search.n=2")
    return job("generate", f"metadata={path}", *search, names=[f"metadata.jsonl:{index + 1}", "metadata.jsonl"])


def checkpoints(place: Path, chance: random.Random) -> Case:
    """A checkpoint folder with a file that is torn, missing, or says what does not fit."""
    of = {
        "showo": ("generate", "generator.options.showo", ()),
        "tokenizer": ("generate", "generator.options.tokenizer", ()),
        "judge": (
            "generate",
            "judge.options.checkpoint",
            ("search.strategy=best_of_n", "search.n=2", "judge.kind=llava"),
        ),
    }
    name = chance.choice(sorted(of))
    which, key, words = of[name]
    folder = place / name
    shutil.copytree(SHAPES / name, folder)
    needed = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in _SPARE]
    path = chance.choice(needed)
    data = path.read_bytes()
    path.unlink()
    kind = chance.choice(["gone", "cut", "noise", "folder", "changed"])
    if kind == "folder":
        path.mkdir()
    elif kind == "noise":
        path.write_bytes(chance.randbytes(200))
    elif kind == "cut" or (kind == "changed" and path.name not in {"config.json"}):
        path.write_bytes(data[: chance.randrange(len(data) - 2)])
    elif kind == "changed":
        path.write_text(json.dumps(_changed(json.loads(data), chance)))
    return job(which, *words, f"{key}={folder}", names=[path.name, str(folder), key])


_SPARE = {"manifest.json", "tokenizer_config.json", "calibration.json", "chat_template.jinja"}  # no answer needs them


def _changed(config: dict[str, Any], chance: random.Random) -> Any:
    """A config with one size that does not fit the weights, or of another kind."""
    sizes = [key for key, value in config.items() if type(value) is int and key.endswith(("size", "tokens", "layers"))]
    if not sizes:
        return chance.choice([[], 3, None, "x"])
    key = chance.choice(sizes)
    return config | {key: chance.choice([0, -1, 1e9, "x", None, [3], config[key] + 1, 10**30])}


def shards(place: Path, chance: random.Random) -> Case:
    """A shard that is cut, packed, of noise, or of samples that are none."""
    name, source, key = chance.choice(
        [
            ("train_showo", "shards", "shards"),
            ("train_tokenizer", "shards", "shards"),
            ("train_judge", "judge", _SCENES),
            ("train_dpo", "pairs", "pairs"),
        ]
    )
    folder = place / "shards"
    shutil.copytree(DATA / source, folder)
    path = chance.choice(sorted(folder.rglob("*.tar")))
    data = path.read_bytes()
    kind = chance.choice(["cut", "noise", "zeros", "empty", "folder", "none", "gzip", "member"])
    if kind == "none":
        for one in folder.rglob("*.tar"):
            one.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "member":  # a header of another size: what follows is read at a wrong place
        at = 512 * chance.randrange(0, 4)
        path.write_bytes(data[:at] + chance.randbytes(512) + data[at + 512 :])
    else:
        packed = b"\x1f\x8b" + chance.randbytes(500)
        bad = {"cut": data[: chance.randrange(len(data) - 1024)], "noise": chance.randbytes(3000), "gzip": packed}
        path.write_bytes(bad.get(kind, b"" if kind == "empty" else bytes(10240)))
    return job(name, f"{key}={folder}", names=[path.name, str(folder)])


_SCENES = "data.scenes.shards"


def images(place: Path, chance: random.Random) -> Case:
    """A folder of images with one that does not decode, is missing, or is none."""
    folder = place / "images"
    shutil.copytree(PICTURES, folder)
    path = chance.choice(sorted(folder.glob("*.png")))
    data = path.read_bytes()
    bad = {
        "cut": data[: chance.randrange(len(data) // 2)],
        "noise": chance.randbytes(300),
        "text": b"<svg/>",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "empty": b"",
        "bomb": data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:],
    }
    kind = chance.choice([*bad, "gone", "folder"])
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind in bad:
        path.write_bytes(bad[kind])
    return Case(["run", "generate", "inpaint_tiny", f"mode.options.images={folder}"], ["images", path.name])


def image_folders(place: Path, chance: random.Random) -> Case:
    """A folder of generated images for `evaluate` that is incomplete or has other metadata."""
    folder = place / "generated"
    for index, line in enumerate((SET / "evaluation_metadata.jsonl").read_text().splitlines()):
        samples = folder / f"{index:05d}" / "samples"
        samples.mkdir(parents=True)
        (samples.parent / "metadata.jsonl").write_text(line + "\n")
        shutil.copy(PICTURES / "0.png", samples / "0000.png")
    at = folder / f"{chance.randrange(12):05d}"
    kind = chance.choice(["no image", "no metadata", "torn metadata", "two lines", "class", "no folder", "file"])
    if kind == "no image":
        (at / "samples" / "0000.png").unlink()
    elif kind == "no metadata":
        (at / "metadata.jsonl").unlink()
    elif kind == "torn metadata":
        text = (at / "metadata.jsonl").read_text()
        (at / "metadata.jsonl").write_text(text[: chance.randrange(len(text) - 2)])
    elif kind == "two lines":
        (at / "metadata.jsonl").write_text((at / "metadata.jsonl").read_text() * 2)
    elif kind == "class":
        row = {"tag": "single_object", "include": [{"class": "hat", "count": 1}], "prompt": "a photo of a hat"}
        (at / "metadata.jsonl").write_text(json.dumps(row))
    else:
        shutil.rmtree(folder)
        if kind == "file":
            folder.write_text("x")
    return job("evaluate", f"images={folder}", names=["generated", at.name])


def pipelines(place: Path, chance: random.Random) -> Case:
    """A pipeline with a cycle, a missing stage, an unknown job, preset or key."""
    stages: dict[str, Any] = {
        "generate": {"job": "generate", "preset": "tiny", "set": {"limit": 1}},
        "evaluate": {"job": "evaluate", "preset": "tiny", "set": {"images": "${stages.generate}"}},
    }
    which = chance.choice(["generate", "evaluate"])
    changes: list[tuple[Callable[[], Any], str]] = [
        (lambda: stages["generate"]["set"].update(prompts="${stages.evaluate}/x"), "generate"),
        (lambda: stages["evaluate"]["set"].update(images="${stages.generat}"), "generat"),
        (lambda: stages["evaluate"]["set"].update(images="${vars.nothing}"), "nothing"),
        (lambda: stages["evaluate"]["set"].update(images="${previous.generate}"), "previous"),
        (lambda: stages[which].update(job="paint"), "paint"),
        (lambda: stages[which].update(preset="huge"), "huge"),
        (lambda: stages[which].update(procs=chance.choice([0, -1, "many", 1.5])), "procs"),
        (lambda: stages[which]["set"].update(sede=3), "sede"),
        (lambda: stages[which]["set"].update(unit_size=chance.choice([0, "x", []])), "unit_size"),
        (lambda: stages[which].update(cluster=3), "cluster"),
        (lambda: stages.update({"a b": stages.pop("generate")}), "a b"),
        (lambda: stages.update(loop={"repeat": chance.choice([0, -1, 1e9, "x"]), "stages": {}}), "loop"),
        (lambda: stages.clear(), "stages"),
        (lambda: stages.update(evaluate=chance.choice([3, [], None, "x"])), "evaluate"),
    ]
    change, name = chance.choice(changes)
    change()
    path = place / "mine.yaml"
    path.write_text(dump_yaml({"out": str(place / "out"), "stages": stages}))
    return Case(["pipeline", str(path)], [name])


def arguments(place: Path, chance: random.Random) -> Case:
    """A command line with a letter too few, or an option with a value that it cannot have."""
    wrong = chance.choice(["-1", "0", "x", "1.5", "1e3", "", "99999999999999999999"])
    run = ["run", "generate", "tiny", f"out={place / 'out'}"]
    name = chance.choice(["generate", "evaluate", "train_showo"])
    cut = chance.randrange(len(name))
    return chance.choice(
        [
            Case([*run, "--procs", wrong], ["--procs", "procs"]),
            Case([*run, "--procs", "1", "--nodes", chance.choice(["-1", "0", "x", ""])], ["--nodes"]),
            Case([*run, "--nodes", "2", "--node-rank", chance.choice(["2", "-1", "x"])], ["--node-rank"]),
            Case(["run", name[:cut] + name[cut + 1 :], "tiny"], [name[:cut] + name[cut + 1 :], "which job"]),
            Case(["run", name, "tny"], ["tny"]),
            Case(["run", name, "tiny", chance.choice(["out", "=3", "out=", "seed=", "a.b.c=1", "seed.x=1"])], ["o"]),
            Case([chance.choice(["statu", "log", "resum", "cancle", "rnu"])], ["unknown command"]),
            Case([chance.choice(["status", "logs", "resume", "cancel"]), str(place / "nowhere")], ["nowhere"]),
            Case([chance.choice(["status", "logs", "resume", "cancel"])], ["RUN"]),
            Case(
                [*run, chance.choice(["--proc=2x", "--nodes=", "--verbose", "-v", "--hang-timeout=soon"])], ["--", "-v"]
            ),
            Case(["ckpts", chance.choice(["fetch", "verify"]), "nowhere"], ["nowhere"]),
            Case(["ckpts", "convert", "mask2former", str(place / "no.pth"), str(place / "new")], ["no.pth"]),
            Case(["report", str(place / "nowhere")], ["nowhere"]),
            Case(["pipeline", "nowhere"], ["nowhere"]),
        ]
    )


def run_folders(place: Path, chance: random.Random) -> Case:
    """A run folder that is none, of another job or config, or whose records are torn."""
    run = place / "run"
    kind = chance.choice(["file", "torn", "other", "rows", "root", "empty name", "link"])
    if kind == "file":
        run.write_text("x")
    elif kind == "link":
        run.symlink_to(place / "file")
        (place / "file").write_text("x")
    elif kind in {"torn", "other", "rows"}:
        (run / "rows").mkdir(parents=True)
        record = {"job": "evaluate", "keys": {}, "inputs": {}, "digest": "0"}
        text = json.dumps(record)
        if kind != "rows":
            (run / "run.json").write_text(text if kind == "other" else text[: chance.randrange(len(text))])
    out = {"root": "/", "empty name": ""}.get(kind, str(run))
    reader = chance.choice(["generate", "verify", "scaling_curve"]) if kind in {"file", "torn"} else "generate"
    if reader == "generate":
        return job("generate", "limit=1", f"out={out}", names=["out", "run"])
    return job(reader, f"run={run}", names=[str(run), "run"])


def cluster_files(place: Path, chance: random.Random) -> Case:
    """A cluster file with one thing wrong, or words that do not fit it."""
    good = {"kind": "slurm", "procs": 2, "time": "1h", "lead": "2m"}
    changes: list[dict[str, Any]] = [
        {"kind": chance.choice(["slrum", "", 3, None])},
        {"procs": chance.choice([0, -1, "many", 1.5, 10**9])},
        {"time": chance.choice(["soon", "-1h", 0, "1x", [], "1m"])},  # 1m: less than the lead
        {"lead": chance.choice(["2h", "never", -5])},
        {"partition": chance.choice(["a b", "", 7, ["a"]])},
        {"requeue_limit": chance.choice([-1, "often", 10**9])},
        {f"{chance.choice(['tme', 'parttion', 'nodes', 'gpu'])}": 1},
    ]
    change = chance.choice(changes)
    path = place / "cluster.yaml"
    path.write_text(json.dumps(good | change))
    words = ["submit", "generate", "tiny", f"out={place / 'out'}", "--cluster", str(path), "--dry-run"]
    return Case(words, [f"{key}" for key in change])


Kind = Callable[[Path, random.Random], Case]
KINDS: dict[str, Kind] = {
    "configs": configs,
    "preset files": presets,
    "prompt files": prompt_files,
    "metadata": metadata,
    "checkpoints": checkpoints,
    "shards": shards,
    "images": images,
    "image folders": image_folders,
    "pipeline files": pipelines,
    "cluster files": cluster_files,
    "arguments": arguments,
    "run folders": run_folders,
}


def cases(
    number: int, seed: int, root: Path, kinds: Mapping[str, Kind] = KINDS
) -> Iterator[tuple[int, str, Path, Case]]:
    """(number, kind, folder, case): the kinds in turn, each in a folder of its own."""
    for index in range(number):
        kind = list(kinds)[index % len(kinds)]
        place = root / f"case-{index}"
        place.mkdir()
        yield index, kind, place, kinds[kind](place, random.Random(f"{seed} {index}"))
