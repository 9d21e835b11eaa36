"""From settings to a judge: what it needs is checked before anything is written, what it reads is fingerprinted."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from genloop.protocols import Judge
from genloop.records import Prompt
from genloop.rewards.settings import JudgeSettings, Resolve, judge_maker


def check_judge(settings: JudgeSettings, resolve: Resolve, needed: Sequence[str] = ()) -> None:
    """Refuse bad options, and a judge that does not answer one of the `needed` questions. Loads nothing."""
    maker = judge_maker(settings.kind)
    maker.check(settings.options, resolve)
    answers = maker.questions(settings.options)
    if missing := [question for question in needed if question not in answers]:
        raise ValueError(
            f"judge.kind: judge {settings.kind!r} answers {', '.join(answers) or 'nothing'}, not "
            f"{', '.join(missing)}; use a judge that does, or a strategy that does not ask"
        )


def check_prompts(settings: JudgeSettings, prompts: Iterable[Prompt]) -> None:
    """Refuse prompts without the metadata that the judge goes by."""
    if needs_metadata(settings) and any(prompt.tag is None for prompt in prompts):
        raise ValueError(f"metadata: judge {settings.kind!r} needs GenEval metadata beside the prompts")


def judge_inputs(settings: JudgeSettings, resolve: Resolve, group: str = "judge") -> dict[str, Path]:
    """{dotted key: file or folder} whose content enters the fingerprint; `group`: the settings' key in the config."""
    inputs = judge_maker(settings.kind).inputs(settings.options, resolve)
    return {f"{group}.options.{key}": path for key, path in inputs.items()}


def judge_classes(settings: JudgeSettings) -> Sequence[str] | None:
    """The object classes that the judge knows; None: any."""
    return judge_maker(settings.kind).classes(settings.options)


def needs_metadata(settings: JudgeSettings) -> bool:
    """Whether the judge, or one that it asks in turn, goes by GenEval metadata."""
    members = getattr(settings.options, "members", ())
    return judge_maker(settings.kind).needs_metadata or any(needs_metadata(member) for member in members)


def build_judge(settings: JudgeSettings, resolve: Resolve, device: str = "cpu") -> Judge:
    """The judge on `device`."""
    return judge_maker(settings.kind).load(settings.options, resolve, device)
