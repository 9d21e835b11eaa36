"""From settings to a judge: what it needs is checked before anything is written, what it reads is fingerprinted."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

from genloop import __version__
from genloop.factories import Resolve
from genloop.protocols import Judge
from genloop.records import Prompt
from genloop.rewards import JUDGES
from genloop.rewards.cache import CachedJudge, ScoreStore
from genloop.rewards.settings import JudgeSettings
from genloop.rundir import check_cache

ABILITIES = {"compare": "p_first", "reason": "reasons", "refine": "critiques"}  # question -> the method that asks it


def check_judge(settings: JudgeSettings, resolve: Resolve, needed: Sequence[str] = ()) -> None:
    """Refuse bad options, and a judge that does not answer one of the `needed` questions. Loads nothing."""
    check_cache(settings.cache, "judge.cache")
    settings.check(resolve)
    answers = settings.maker.questions(settings.options, resolve)
    if missing := [question for question in needed if question not in answers]:
        file = getattr(settings.options, "questions", None)
        ways = f"add it to {file}" if file else "use a judge that does, or a strategy that does not ask"
        raise ValueError(
            f"judge.kind: judge {settings.kind!r} answers {', '.join(answers) or 'nothing'}, not "
            f"{', '.join(missing)}; {ways}"
        )


def check_asker(settings: JudgeSettings, resolve: Resolve) -> None:
    """Refuse bad options, and a judge that only answers questions that it has a wording for. Loads nothing."""
    check_judge(settings, resolve)
    if not getattr(settings.maker, "asks_freely", False):
        able = [name for name in JUDGES if getattr(settings.maker_of(name), "asks_freely", False)]
        raise ValueError(
            f"judge.kind: judge {settings.kind!r} does not take questions of any wording; use {' or '.join(able)}"
        )


def check_prompts(settings: JudgeSettings, prompts: Iterable[Prompt]) -> None:
    """Refuse prompts without the metadata that the judge goes by, or of classes that it does not know."""
    known = judge_classes(settings)
    for prompt in prompts:
        if needs_metadata(settings) and prompt.tag is None:
            raise ValueError(f"metadata: judge {settings.kind!r} needs GenEval metadata beside the prompts")
        named = [clause.class_name for clause in (*prompt.include, *prompt.exclude)]
        if strange := [name for name in named if known is not None and name not in known]:
            raise ValueError(f"metadata: {prompt.text!r} is about {strange[0]!r}, unknown to judge {settings.kind!r}")


def judge_classes(settings: JudgeSettings) -> Sequence[str] | None:
    """The object classes that the judge knows; None: any."""
    return settings.maker.classes(settings.options)


def needs_metadata(settings: JudgeSettings) -> bool:
    """Whether the judge, or one that it asks in turn, goes by GenEval metadata."""
    return settings.maker.needs_metadata or any(map(needs_metadata, members(settings)))


def members(settings: JudgeSettings) -> tuple[JudgeSettings, ...]:
    """The judges that a judge asks in turn."""
    return getattr(settings.options, "members", ())


def build_judge(settings: JudgeSettings, resolve: Resolve, device: str = "cpu") -> Judge:
    """The judge on `device`; with `settings.cache` it remembers its answers there.

    Of a judge that asks others, the others' answers are kept: other weights then cost nothing.
    """
    settings = _cache_of_members(settings)
    answers = settings.maker.questions(settings.options, resolve)
    judge = _with_abilities(settings.maker.load(settings.options, resolve, device), answers)
    if settings.cache is None:
        return judge
    fingerprint = judge_fingerprint(settings, resolve, device)
    return CachedJudge(judge, ScoreStore(settings.cache), fingerprint, by_metadata=needs_metadata(settings))


def judge_fingerprint(settings: JudgeSettings, resolve: Resolve, device: str) -> str:
    """Hex digest of what a judge's answers depend on: kind, options, the content of its files, kind of device."""
    body = [__version__, *settings.identity(resolve), device.partition(":")[0]]
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class _Limited:
    """A judge without what it has no questions for, so that a strategy sees what can be asked."""

    def __init__(self, judge: Judge, lacks: frozenset[str]) -> None:
        self._judge, self._lacks = judge, lacks
        self.p_yes, self.flops = judge.p_yes, judge.flops

    def __getattr__(self, name: str) -> Any:
        if name in self._lacks:
            raise AttributeError(f"{type(self._judge).__name__} has no question for {name}")
        return getattr(self._judge, name)


def _with_abilities(judge: Judge, questions: Sequence[str]) -> Judge:
    lacks = frozenset(method for question, method in ABILITIES.items() if question not in questions)
    return _Limited(judge, lacks) if any(hasattr(judge, method) for method in lacks) else judge


def _cache_of_members(settings: JudgeSettings) -> JudgeSettings:
    inner = members(settings)
    if settings.cache is None or "members" not in type(settings.options).model_fields:
        return settings
    placed = tuple(m if m.cache else m.model_copy(update={"cache": settings.cache}) for m in inner)
    options = settings.options.model_copy(update={"members": placed})
    return settings.model_copy(update={"cache": None, "options": options})
