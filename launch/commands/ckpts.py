"""`genloop ckpts`: which checkpoints are known and there, fetching them, whether their files are as registered."""

import argparse
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from genloop import terminal
from genloop.checkpoint import MANIFEST_FILE, verify_folder
from genloop.config import find_preset, preset_roots, read_yaml
from genloop.reading import read_json_object
from genloop.registry import load, lookup
from launch.pipelines.drafts import pipeline_data


def run(options: argparse.Namespace) -> int:
    """Do what was asked and print it -> exit code; ValueError, OSError or ImportError in one line otherwise."""
    logging.basicConfig(format="genloop: %(message)s", level=logging.WARNING)
    actions: dict[str, Callable[[argparse.Namespace], None]]
    actions = {"list": _list, "fetch": _fetch, "verify": _verify, "convert": _convert}
    actions[options.action](options)
    return 0


def _list(options: argparse.Namespace) -> None:
    known, state = load("ckpts.resolve:registry")(), load("ckpts.resolve:state")
    rows = []
    for name, entry in known.items():
        rows += [(name, f"{state(entry)}; licence: {entry.licence}")]
        rows += [("", f"{entry.made_by}, {entry.source}" if entry.made_by else entry.source)]
    terminal.out("\n".join(terminal.aligned(rows)))


def _fetch(options: argparse.Namespace) -> None:
    known = load("ckpts.resolve:registry")()
    names = list(options.names)
    if options.preset is not None:
        job, _, preset = options.preset.partition("/")
        is_pipeline = job == "pipelines"
        data = pipeline_data(preset) if is_pipeline else read_yaml(find_preset(job, preset, preset_roots()))
        named = [name for name in dict.fromkeys(_texts(data)) if name in known and (known[name].hub or known[name].url)]
        if not named:
            terminal.out(f"{options.preset} names no checkpoint that has to be fetched")
        names += named
    elif not names:
        raise ValueError("fetch: which? names of `genloop ckpts list`, or --for JOB/PRESET")
    for name in names:
        load("ckpts.resolve:known")(name)  # an unknown one is refused before the first is fetched
    for name in names:
        load("ckpts.fetch:fetch")(name, terminal.err)


def _texts(value: Any) -> Iterator[str]:
    """Every text among the values of a preset, or of a pipeline and of the presets that its stages name."""
    if isinstance(value, dict) and isinstance(value.get("job"), str) and isinstance(value.get("preset"), str):
        yield from _texts(read_yaml(find_preset(value["job"], value["preset"], preset_roots())))
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)
    elif isinstance(value, str):
        yield value


def _verify(options: argparse.Namespace) -> None:
    known = load("ckpts.resolve:registry")()
    folder = Path(options.name)
    if folder.suffix == ".safetensors" and folder.is_file():
        load("ckpts.convert.lora:verify")(folder)
        terminal.out_lines([f"{folder}: tensors as its hashes say"])
        return
    if options.name not in known and (folder / MANIFEST_FILE).is_file():
        verify_folder(folder)
        terminal.out_lines([f"{folder}: {len(read_json_object(folder / MANIFEST_FILE))} files as they were written"])
        return
    load("ckpts.resolve:verify")(options.name)
    load("ckpts.resolve:resolve")(options.name)
    entry = known[options.name]
    if load("ckpts.resolve:missing_files")(entry):
        raise ValueError(f"{options.name}: {load('ckpts.resolve:state')(entry)}")
    registered = sum(digest is not None for digest in entry.files.values())
    found = [f"{registered} files as registered"] if registered else []
    fetched = len(load("ckpts.resolve:fetched_files")(entry))
    found += [f"{fetched} files as they were fetched"] if fetched else []
    if (entry.folder / MANIFEST_FILE).is_file():
        verify_folder(entry.folder)
        found.append(f"{len(read_json_object(entry.folder / MANIFEST_FILE))} files as they were written")
    if not found:
        found = ["all files there, their content is not known"]
    terminal.out_lines([f"{options.name}: {', '.join(found)}: {entry.folder}"])


def _convert(options: argparse.Namespace) -> None:
    convert = lookup(load("ckpts.convert:CONVERTERS"), options.kind, "kind of checkpoint")
    known = load("ckpts.convert:OPTIONS")
    names = sorted({name for names in known.values() for name in names})
    words = {name: value for name in names if (value := getattr(options, name))}
    if strange := [name for name in words if name not in known[options.kind]]:
        raise ValueError(f"convert {options.kind}: has no --{strange[0].replace('_', '-')}")
    folder = load("ckpts.resolve:place")(options.folder)
    done = convert(options.file, folder, backbone=load("ckpts.resolve:backbone")(options.folder), **words)
    terminal.out(f"{options.file}: {done.lines[0]}")
    for line in done.lines[1:]:
        terminal.out(line)
