"""Rules of the house that a reader relies on: what a job looks like, its presets, the size of files, honest tests."""

import ast
import importlib
import inspect
import re
import shlex
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from genloop.bounds import Bounds
from genloop.config import Settings, load_config
from genloop.registry import load
from launch.catalog import key_rows
from tests.sources import ROOT, parsed, tree_of

SOURCES = sorted(
    file
    for top in ("launch", "jobs", "geneval", "ckpts", "genloop", "tests", "benchmarks")
    for file in (ROOT / top).rglob("*.py")
)
JOBS = sorted(file.stem for file in (ROOT / "jobs").glob("*.py") if file.stem != "__init__")
PRESETS = sorted(
    file.relative_to(ROOT / "configs").with_suffix("").as_posix()
    for job in JOBS
    for file in (ROOT / "configs" / job).glob("*.yaml")
)
ALL_PRESETS = sorted(
    file.relative_to(ROOT / "configs").with_suffix("").as_posix() for file in (ROOT / "configs").glob("*/*.yaml")
)
MAX_FILE, MAX_FUNCTION = 400, 60
MAX_SUMMARY, MAX_MANUAL, MAX_HEAD = 79, 115, 92  # of `genloop jobs` in 100 columns, `run JOB --help`, `jobs --presets`
PARTS = ("Config", "Checked", "check", "inputs", "work", "footprint", "main")  # of a job, in this order
SIDES = ({"height", "width"},)  # of one thing
KEYS_OF_THEIR_JOB = {  # keys that do not mean the same in all jobs that have them, and why
    "checkpoint": "the one that is used; edit may take it from CHECKPOINT_DIR",
    "data": "what a job learns from; each kind of data has its own keys",
    "data.NAME.images": "of conversations, or of chats",
    "data.NAME.shards": "of examples, or of messages",
    "data.NAME.val_share": "of conversations by prompt, or of a set without val",
    "draws": "of masks, or of states of an image",
    "drop_captions": "of rows, or of draws for both sides of a pair",
    "dtype": "of weights in memory: of all models, or of those beside adapters",
    "format": "of what is written: each job has its own",
    "guidance_scale": "of a model that is told it, or of log-probabilities",
    "image_tokens": "edit has one default with a prompt and one without",
    "images": "that are read: what the folder may be depends on what else is read",
    "judges": "of answers, or of images",
    "judges.NAME.kind": "of answers, or of images",
    "kind": "which of its ways a job takes",
    "license": "of images, or of traces",
    "limit": "of items; where they are no units of work, it says what they are",
    "lora.rank": "0 is refused where `weights` says whether there are adapters",
    "lora.targets": "of a UNet with a default, or of a transformer",
    "max_pairs": "of a prompt; for a judge of each question",
    "num_scenes": "to learn from, or to measure on",
    "objective": "what is learned",
    "parts": "of the network that learns",
    "prompts": "to draw, or of images that are there",
    "quantise": "each library has its own types",
    "questions": "to answer, or the wording of a judge's",
    "reference": "a term of both fields: of a distance between sets, and of DPO",
    "resolution": "how images get to it depends on what they are for",
    "rule": "what is right, or which images make a pair",
    "runs": "of the job whose rows are read",
    "sampling.guidance_scale": "the two kinds of generators define it differently, as published",
    "sampling.steps": "of decoding, or of denoising",
    "saved_dtype": "of what a training saves, and where it counts else",
    "source": "the run that is read: of generate, or of build_irg",
    "split": "one of them, or all where none is named",
    "start": "what null means: nothing to start from, or a variable",
    "tokenizer": "what null means, or what it encodes",
    "unit_size": "what an item is, and what a unit has of its own",
    "variant": "of an objective",
}
SHAPELESS = re.compile(r"utils?|misc|common|helpers?|manager|handlers?|processor|engine|wrapper")
SHARED_NAMES = {  # classes whose name several modules define, and why
    "Config": "every job has one",
    "Checked": "what `check` of a job returns; each job has its own",
    "ModelShape": "the sizes of the network that a training job builds; each job has its own",
    "BatchSettings": "the `batch` keys of a training; a judge's say how many rows each question gets",
    "LossSettings": "the `loss` keys of a training; a judge has losses of its own",
    "Chat": "the text of a judge's question, and the tree of questions about one image",
    "Features": "numbers that are measured on one image, and the activations of many that distances are made of",
    "Record": "of the canary of GenEval, and a trace of the refinement corpus",
    "Round": "of a group policy's training, and of a trace of refinement",
    "Outcome": "of a canary, and of a training step",
    "Sample": "an image of a GenEval folder, and an entry of a shard",
    "Source": "images with annotations, and where a tensor comes from",
}
PRINTING = {
    "genloop/terminal.py": "the one place",
    "ckpts/download.py": "a process that answers the one that has started it",
}
PRINTS = re.compile(r"print|(sys\.)?(stdout|stderr)\.write(lines)?|traceback\.print_\w+|logging\.Formatter")
LAZY = re.compile(r"(launch|jobs|geneval|ckpts|genloop)(\.\w+)*:\w+")


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, methods and inner ones included."""
    return [node for node in parsed(file) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("job", JOBS)
def test_a_job_is_a_kind_a_config_and_a_main(job: str) -> None:
    module = importlib.import_module(f"jobs.{job}")
    assert module.KIND in {"independent", "collective"}
    assert module.Config.model_config["frozen"] and module.Config.model_config["extra"] == "forbid"
    assert list(inspect.signature(module.main).parameters) == ["config", "world", "checked"]
    assert len(inspect.getsource(module.main).splitlines()) <= MAX_FUNCTION
    assert next(iter(module.Config.model_fields)) == "out", "keys of every job come first"
    names = [getattr(node, "name", "") for node in tree_of(ROOT / "jobs" / f"{job}.py").body]
    assert [name for name in names if name in PARTS] == [part for part in PARTS if part in names]


@pytest.mark.parametrize("job", JOBS)
def test_a_manual_has_the_same_sections_in_the_same_order(job: str) -> None:
    manual = inspect.getdoc(importlib.import_module(f"jobs.{job}")) or ""
    summary, commands, sections, *_ = manual.split("\n\n")
    assert len(summary) <= MAX_SUMMARY and summary.count("\n") == 0 and summary.endswith((".", "?"))
    assert all(line.startswith("    ") for line in commands.splitlines()) and f"genloop run {job}" in manual
    assert re.findall(r"^\S+", sections, re.M) == ["Reads", "Writes", "Resume"]
    assert re.search(r"^Resume  the same command", sections, re.M)
    assert [line for line in manual.splitlines() if len(line) > MAX_MANUAL] == []


def commands_of(manual: str) -> list[tuple[str, list[str]]]:
    """(job, words) of every command that starts a job."""
    lines = manual.split("\n\n")[1].replace("\\\n", "").splitlines()
    words = [shlex.split(part) for line in lines for part in line.split("&&")]
    runs = [found[found.index("run") + 1 :] for found in words if found[:2] == ["genloop", "run"]]
    ranks = [found[found.index("-m") + 1 :] for found in words if found[0] == "torchrun"]
    return [(found[0].removeprefix("jobs."), found[1:]) for found in [*runs, *ranks]]


@pytest.mark.parametrize("job", JOBS)
def test_the_commands_of_a_manual_name_presets_and_keys_that_are_there(job: str) -> None:
    commands = commands_of(inspect.getdoc(importlib.import_module(f"jobs.{job}")) or "")
    assert commands
    for name, words in commands:
        keys = importlib.import_module(f"jobs.{name}").Config.model_fields
        assert {word.partition("=")[0].partition(".")[0] for word in words if "=" in word} <= set(keys)
        named = [word for word in words if "=" not in word and re.match("[a-z]", word)]
        assert {f"{name}/{preset}" for preset in named} <= set(PRESETS)


@pytest.mark.parametrize("preset", ALL_PRESETS)
def test_the_first_line_of_a_preset_says_what_it_is(preset: str) -> None:
    head = (ROOT / "configs" / f"{preset}.yaml").read_text(encoding="utf-8").partition("\n")[0]
    assert head.startswith("# ") and head.endswith(".") and len(head) <= MAX_HEAD


def meanings() -> dict[str, dict[str, list[str]]]:
    """{key: {what it means: the jobs that say so}} of all jobs; sizes of networks are each network's own."""
    found: dict[str, dict[str, list[str]]] = {}
    for job in JOBS:
        for key, _, _, meaning in key_rows(importlib.import_module(f"jobs.{job}").Config):
            if not key.startswith("model."):
                found.setdefault(key, {}).setdefault(meaning, []).append(job)
    return found


def test_every_key_says_what_it_means() -> None:
    silent = [
        f"{job}: {key}"
        for job in JOBS
        for key, _, _, meaning in key_rows(importlib.import_module(f"jobs.{job}").Config)
        if not meaning
    ]
    assert silent == []


def test_a_key_means_the_same_in_every_job() -> None:
    differing = {key: found for key, found in meanings().items() if len(found) > 1}
    assert {key: found for key, found in differing.items() if key not in KEYS_OF_THEIR_JOB} == {}
    assert set(KEYS_OF_THEIR_JOB) == set(differing), "a key that means the same everywhere needs no reason"


def test_what_means_the_same_has_one_name() -> None:
    names: dict[str, set[str]] = {}
    for key, found in meanings().items():
        for meaning in found:
            names.setdefault(meaning, set()).add(key.rpartition(".")[2])
    assert {meaning: keys for meaning, keys in names.items() if len(keys) > 1 and keys not in SIDES} == {}


@pytest.mark.parametrize("job", JOBS)
def test_a_job_has_a_tiny_preset(job: str) -> None:
    assert (ROOT / "configs" / job / "tiny.yaml").is_file()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fits_the_config_of_its_job(preset: str) -> None:
    model = importlib.import_module(f"jobs.{preset.split('/')[0]}").Config
    file = ROOT / "configs" / f"{preset}.yaml"
    keys = re.findall(r"^(\w+):", file.read_text(encoding="utf-8"), re.M)
    paths = [f"{key}=x" for key, field in model.model_fields.items() if field.is_required() and key not in keys]
    assert load_config(model, file, paths)


def test_every_folder_of_presets_belongs_to_a_job() -> None:
    folders = {folder.name for folder in (ROOT / "configs").iterdir() if folder.is_dir()}
    assert folders - {"prompts", "data", "pipelines", "deepspeed", "cluster"} == set(JOBS)


def test_what_is_shipped_needs_no_tests_folder() -> None:
    texts = {file: file.read_text(encoding="utf-8") for file in (ROOT / "configs").rglob("*.*l")}  # yaml, jsonl
    assert [name_of(file) for file, text in texts.items() if "tests/" in text] == []


def test_there_is_one_place_that_prints() -> None:
    told = [
        f"{name_of(file)}:{node.lineno}"
        for file in SOURCES
        if file.relative_to(ROOT).parts[0] not in {"tests", "benchmarks"} and name_of(file) not in PRINTING
        for node in parsed(file)
        if isinstance(node, ast.Call) and PRINTS.fullmatch(ast.unparse(node.func))
    ]
    assert told == []


def test_no_file_is_longer_than_the_limit() -> None:
    lengths = {name_of(file): len(file.read_text(encoding="utf-8").splitlines()) for file in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > MAX_FILE} == {}


def test_no_function_is_longer_than_the_limit() -> None:
    long = [
        f"{name_of(file)}: {node.name}"
        for file in SOURCES
        for node in functions(file)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION
    ]
    assert long == []


def test_every_module_opens_with_a_docstring() -> None:
    trees = {name_of(file): tree_of(file) for file in SOURCES}
    bare = [name for name, tree in trees.items() if tree.body and not ast.get_docstring(tree)]
    assert bare == []


def test_no_module_is_named_after_nothing_in_particular() -> None:
    assert [name_of(file) for file in SOURCES if SHAPELESS.fullmatch(file.stem)] == []


def test_a_class_name_has_one_meaning() -> None:
    modules: dict[str, set[str]] = {}
    for file in SOURCES:
        if file.relative_to(ROOT).parts[0] not in {"tests", "benchmarks"}:
            for node in tree_of(file).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    modules.setdefault(node.name, set()).add(name_of(file))
    shared = {name: sorted(files) for name, files in modules.items() if len(files) > 1}
    assert {name: files for name, files in shared.items() if name not in SHARED_NAMES} == {}


def lazy_names() -> set[str]:
    """Every "module:attribute" of the project."""
    return {
        node.value
        for file in SOURCES
        if "tests" not in file.parts
        for node in parsed(file)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and LAZY.fullmatch(node.value)
    }


def test_every_lazy_name_leads_somewhere() -> None:
    assert all(load(name) is not None for name in lazy_names())


def test_generators_of_named_devices_are_forked_alone() -> None:
    """Without `devices`, fork_rng takes up memory on every GPU that there is."""
    found = [
        f"{name_of(file)}:{node.lineno}"
        for file in SOURCES
        for node in parsed(file)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fork_rng"
        if "devices" not in {keyword.arg for keyword in node.keywords}
    ]
    assert found == []


def test_image_files_are_opened_in_one_place() -> None:
    """Upright, in 8 bits, and in three formats alone: whoever opens them elsewhere sees other pixels."""
    opening = re.compile(r"(\bImage\W*|\bpillow)\.open\(|from PIL\.Image import .*\bopen\b|imread\(")
    found = {
        name_of(file)
        for file in SOURCES
        if not name_of(file).startswith(("tests", "benchmarks")) and opening.search(file.read_text(encoding="utf-8"))
    }
    assert found == {"genloop/data/images.py"}


def models_of_keys(model: type[Settings] = Settings) -> set[type[Settings]]:
    """All models of config keys that jobs, or parts that they name, define."""
    return {model}.union(*(models_of_keys(child) for child in model.__subclasses__()))


def is_bounded(annotation: Any, marks: Sequence[Any] = ()) -> bool:
    """Whether every number that a type takes has a lower and an upper bound."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        inner = [mark for part in parts[1:] for mark in (part.metadata if isinstance(part, FieldInfo) else [part])]
        return is_bounded(parts[0], [*marks, *inner])
    if annotation in (int, float):
        if any(isinstance(mark, Bounds) for mark in marks):
            return True
        return any(isinstance(mark, Ge | Gt) for mark in marks) and any(isinstance(mark, Le | Lt) for mark in marks)
    if origin is typing.Literal:
        return True
    return all(is_bounded(part, marks if origin in {typing.Union, types.UnionType} else ()) for part in parts)


def test_every_number_in_a_config_has_a_lower_and_an_upper_bound() -> None:
    for module in (*(f"jobs.{job}" for job in JOBS), "launch.cluster", "launch.pipelines.stages"):
        importlib.import_module(module)
    for name in lazy_names():
        load(name)
    models = [model for model in models_of_keys() if not model.__module__.startswith("tests")]
    free = {
        f"{model.__module__}.{model.__qualname__}.{key}"
        for model in models
        for key, field in model.model_fields.items()
        if not is_bounded(field.annotation, field.metadata)
    }
    assert len(models) > 50 and free == set()


def test_json_and_yaml_are_read_in_one_place() -> None:
    parsers = {"load", "loads", "load_all", "safe_load"}
    found = {
        name_of(file)
        for file in SOURCES
        if file.relative_to(ROOT).parts[0] not in {"tests", "benchmarks"}
        for node in parsed(file)
        if (
            isinstance(node, ast.Attribute)
            and node.attr in parsers
            and getattr(node.value, "id", "") in {"json", "yaml"}
        )
        or (isinstance(node, ast.ImportFrom) and node.module in {"json", "yaml"})
    }
    assert found == {"genloop/reading.py"}


def test_files_are_read_whole_in_one_place() -> None:
    """It refuses pipes, devices and what is too large; whoever else reads does so with what the suite itself wrote."""
    reading = re.compile(r"\.read_(bytes|text)\(")
    found = {
        name_of(file)
        for file in SOURCES
        if not name_of(file).startswith(("tests", "benchmarks", "launch")) and reading.search(file.read_text("utf-8"))
    }
    assert found == {"genloop/reading.py", "genloop/environment.py", "genloop/lease.py"}  # code, /proc


def test_no_test_steps_aside() -> None:
    banned = {"skip", "skipif", "importorskip", "xfail"}
    found = [
        f"{name_of(file)}:{node.lineno}"
        for file in SOURCES
        for node in parsed(file)
        if isinstance(node, ast.Attribute) and node.attr in banned and "tests" in file.parts
    ]
    assert found == []


def test_every_test_asserts_something() -> None:
    def checks(node: ast.AST) -> bool:
        if isinstance(node, ast.Assert):
            return True
        called = node.func if isinstance(node, ast.Call) else None
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        return name == "raises" or name.startswith("assert_")

    idle = [
        f"{name_of(file)}: {node.name}"
        for file in SOURCES
        if file.stem.startswith("test_")
        for node in functions(file)
        if node.name.startswith("test_") and not any(checks(inner) for inner in ast.walk(node))
    ]
    assert idle == []
