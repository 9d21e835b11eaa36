"""Who may import whom, and what must stay light: the tables here are the law, docs/architecture.md explains them."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.sources import ROOT, parsed

TOP = ("launch", "jobs", "geneval", "ckpts", "genloop")

ALLOWED = {
    "launch": {"core", "contracts"},  # jobs and reports are reached by name
    "jobs": {"geneval", "ckpts", "core", "contracts", "report", "runs", "stats"}
    | {"data", "models", "sampling", "rewards", "search", "training", "metrics", "shapes", "evals"},
    "api": {"jobs", "ckpts", "core", "contracts", "data", "rewards", "runs"},  # jobs as Python functions
    "evals": {"core", "contracts", "data", "rewards", "runs", "stats"},
    "geneval": {"core", "contracts", "data", "metrics", "models", "runs", "stats"},
    "ckpts": {"core", "contracts", "models"},
    "contracts": set(),
    "core": {"contracts"},
    "runs": {"core", "contracts", "data"},
    "data": {"core", "contracts"},
    "models": {"core", "contracts"},
    "sampling": {"core", "contracts", "data", "models"},
    "rewards": {"core", "contracts", "data", "models", "metrics"},
    "search": {"core", "contracts"},
    "training": {"core", "contracts", "data", "models", "sampling", "rewards", "stats"},  # rollouts, guards
    "stats": {"core", "contracts", "runs"},
    "metrics": {"core", "contracts", "data", "models", "runs", "stats"},
    "shapes": {"core", "contracts", "data"},
    "report": {"core", "contracts", "data", "metrics", "runs", "stats"},
}
# Tables of names may lead up: what stands behind a name is imported when somebody asks for it. Each that does is here.
TABLES = {
    "genloop": {"api"},
    "genloop.models.common.image_tokenizers": {"shapes"},
    "genloop.rewards": {"geneval"},
    "genloop.metrics.makers": {"geneval"},
    "geneval.detectors.tables": {"shapes"},
    "launch.commands.report": {"report"},
    "launch.planning.pace": {"stats"},
    "launch.planning.plan": {"ckpts"},
    "launch.commands.ckpts": {"ckpts"},
}
LAZY = re.compile(r"(launch|jobs|geneval|ckpts|genloop)(\.\w+)*:\w+")
HEAVY = {
    *("accelerate", "datasets", "deepspeed", "diffusers", "mmcv", "mmdet", "open_clip"),
    *("peft", "timm", "torchvision", "transformers", "webdataset"),
}
LIGHT = ["genloop.data.prompts", "geneval.prompts", "geneval.verdict", "geneval.summary"]


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file of every module of the project."""
    files = [file for top in TOP for file in (ROOT / top).rglob("*.py")]
    return {".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): f for f in files}


def layer(module: str) -> str:
    """The layer of a project module: its top folder, or the folder below genloop; modules directly there are core."""
    parts = module.split(".")
    if parts[0] != "genloop":
        return parts[0]
    if module in {"genloop.records", "genloop.protocols"}:
        return "contracts"
    if parts[1:2] == ["compat"]:
        return "core"
    is_folder = len(parts) > 1 and (ROOT / "genloop" / parts[1]).is_dir()
    return parts[1] if is_folder else "core"


@cache
def imports(file: Path) -> tuple[str, ...]:
    """Every module that a file imports, at any depth; `from a import b` gives a.b when that is a module."""
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[str]:
    known = modules()
    for node in parsed(file):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.relative_to(ROOT)}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in known else str(node.module) for name in names)


def test_every_folder_below_genloop_has_a_place_in_the_table() -> None:
    assert {layer(module) for module in modules()} <= set(ALLOWED)


@pytest.mark.parametrize("source", sorted(ALLOWED))
def test_a_layer_imports_only_the_layers_below_it(source: str) -> None:
    crossings = [
        f"{module} imports {target}"
        for module, file in modules().items()
        if layer(module) == source
        for target in imports(file)
        if target.split(".")[0] in (*TOP, "tests") and layer(target) not in {source, *ALLOWED[source]}
    ]
    assert crossings == []


def test_a_table_of_names_leads_only_where_it_is_known_to_lead() -> None:
    found: dict[str, set[str]] = {}
    for module, file in modules().items():
        for node in parsed(file):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and LAZY.fullmatch(node.value):
                target = layer(node.value.partition(":")[0])
                if target not in {layer(module), *ALLOWED[layer(module)]}:
                    found.setdefault(module, set()).add(target)
    assert found == TABLES


def test_no_job_imports_a_job() -> None:
    found = [(m, t) for m, file in modules().items() if m.startswith("jobs.") for t in imports(file)]
    assert [(module, target) for module, target in found if target.split(".")[0] == "jobs"] == []


def test_modules_import_each_other_in_one_direction() -> None:
    known = modules()
    graph = {module: {t for t in imports(file) if t in known and t != module} for module, file in known.items()}
    try:
        cycle: list[str] = []
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = error.args[1]
    assert cycle == []


def test_no_folder_has_families_of_files_that_share_a_prefix() -> None:
    stems = Counter(
        (file.parent.relative_to(ROOT).as_posix(), file.stem.partition("_")[0])
        for module, file in modules().items()
        if "_" in file.stem and layer(module) not in {"jobs", "search"}
    )
    assert {key: n for key, n in stems.items() if n > 2} == {}


def test_heavy_packages_are_imported_only_through_require() -> None:
    offenders = [
        f"{module} imports {target}"
        for module, file in modules().items()
        for target in imports(file)
        if target.split(".")[0] in HEAVY
    ]
    assert offenders == []


def test_core_launch_jobs_and_verdicts_are_imported_without_torch() -> None:
    light = [m for m in modules() if layer(m) in {"core", "contracts", "launch", "jobs"} and m != "launch.__main__"]
    names = sorted({*light, *(name for name in LIGHT if name in modules())})
    code = (
        "import importlib, sys\n"
        f"for name in {names!r}:\n"
        "    importlib.import_module(name)\n"
        f"    found = {sorted({'torch', *HEAVY})!r}\n"
        "    assert not sys.modules.keys() & set(found), f'{name} imports {sys.modules.keys() & set(found)}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
