"""Packaging: what is installed, the extras, and the `genloop` command."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "genloop" / "__init__.py").read_text(encoding="utf-8"), re.M)
README = HERE / "README.md"

assert VERSION is not None, "genloop/__init__.py holds no __version__"

setup(
    name="genloop",
    version=VERSION[1],
    description="Generate, judge, keep, learn, evaluate, go again: batch jobs for text-to-image generation",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"": "."},
    packages=[
        *find_packages(include=["genloop", "genloop.*", "geneval", "geneval.*", "jobs", "launch*", "ckpts*"]),
        "configs",
    ],
    package_data={
        "": ["*.txt", "*.json", "*.jsonl", "*.html", "*.css", "*.js", "*.pyi", "py.typed", "templates/*"],
        "configs": ["**/*.yaml", "**/*.json", "prompts/*/*", "data/**/*"],
        "geneval.canary": ["canary.yaml"],
        "ckpts": ["registry.yaml", "shapes/**/*", "tiny/**/*"],
    },
    install_requires=[
        "torch==2.13.0",
        "transformers>=5",
        "numpy>=2",
        "scipy",
        "pillow",
        "safetensors",
        "pydantic>=2",
        "ruamel.yaml>=0.18",
        "rich",
        "markdown-it-py",
        "jinja2",
        "matplotlib",
        "webdataset>=1",
    ],
    extras_require={
        "train": ["accelerate", "deepspeed", "peft"],  # how: genloop.registry.INSTALL
        "diffusion": ["accelerate", "diffusers", "peft"],
        "corpus": ["datasets", "datasketch", "mlcroissant", "scikit-image"],
        "editing": ["scikit-image", "torchao", "gguf"],
        "qlora": ["accelerate", "bitsandbytes", "peft", "torchao"],
        "clip": ["open_clip_torch>=3"],
        "remote": ["openai"],
        "sinks": ["tensorboard", "trackio", "wandb"],
        "mmdet": ["mmcv-lite==2.1.*", "mmdet==3.3.0", "mmengine>=0.10.7,<1"],
        "dev": ["hypothesis", "imagehash", "mypy", "openai", "pytest", "pytest-xdist", "ruff"],
    },
    entry_points={"console_scripts": ["genloop = launch.cli:main"]},
)
