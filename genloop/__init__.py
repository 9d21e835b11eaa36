"""genloop: generate, judge, keep, learn, evaluate, go again: batch jobs for text-to-image generation.

`genloop.generate`, `genloop.evaluate` and `genloop.load_judge` are those of genloop.api.calls, imported when they are
asked for; their types stand in __init__.pyi.
"""

from typing import Any

__version__ = "0.1.0"
_CALLS = {
    "generate": "genloop.api.calls:generate",
    "evaluate": "genloop.api.calls:evaluate",
    "load_judge": "genloop.api.calls:load_judge",
}


def __getattr__(name: str) -> Any:
    if name not in _CALLS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from genloop.registry import load

    return load(_CALLS[name])


def __dir__() -> list[str]:
    return [*globals(), *_CALLS]
