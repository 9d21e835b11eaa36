"""What a state of the code weighs: lines, files, modules, tests, told by git alone, for one commit beside another.

python benchmarks/refactoring.py 8962111 HEAD
"""

import argparse
import ast
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("genloop/", "geneval/", "jobs/", "launch/", "ckpts/")
PIN = re.compile(r"\bmatch=")


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def weigh(commit: str) -> dict[str, int | float]:
    """{what: how much} of one commit."""
    names = [name for name in git("ls-tree", "-r", "--name-only", commit).splitlines() if name.endswith(".py")]
    texts = {name: git("show", f"{commit}:{name}") for name in names}
    product = {name: text for name, text in texts.items() if name.startswith(PRODUCT)}
    tests = {name: text for name, text in texts.items() if name.startswith("tests/")}
    lengths = [len(text.splitlines()) for text in product.values()]
    trees = {name: ast.parse(text) for name, text in product.items()}
    functions = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {
        "product, lines": sum(lengths),
        "product, files": len(product),
        "product, folders": len({Path(name).parent for name in product}),
        "product, lines of a file, median": median(lengths),
        "product, lines of a file, most": max(lengths),
        "product, functions": len(functions),
        "tests, lines": sum(len(text.splitlines()) for text in tests.values()),
        "tests, files": len(tests),
        "tests, functions": sum(len(re.findall(r"^ *def test_", text, re.M)) for text in tests.values()),
        "tests, sentences pinned by match=": sum(len(PIN.findall(text)) for text in tests.values()),
    }


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("before")
    options.add_argument("after")
    given = options.parse_args()
    before, after = weigh(given.before), weigh(given.after)
    print(f"| what | {given.before} | {given.after} |\n|---|---|---|")
    for what in before:
        print(f"| {what} | {before[what]:,} | {after[what]:,} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
