"""What a search came to, as the row of its image."""

import math
from dataclasses import asdict
from typing import Any

from genloop.protocols import Sampler
from genloop.records import Candidate, Choice, Prompt
from genloop.runs.rows import Answer, CritiqueRow, GeneratedRow, GenerationCost, RecordedCandidate, RedrawingRow


def generated_row(
    prompt: Prompt, sample: int, choice: Choice, sampler: Sampler[Any], strategy: str, image: str
) -> GeneratedRow:
    """The row of a choice, without the sha256 of its PNG; `image`: where that lies, below the run folder."""
    best, cost = choice.candidates[choice.chosen], choice.cost
    steps = int(cost.generator_steps) if cost.generator_steps == int(cost.generator_steps) else cost.generator_steps
    rewritten: dict[str, Any] = {} if prompt.detailed_caption is None else {"rewritten_prompt": prompt.detailed_caption}
    return GeneratedRow(
        prompt_index=prompt.index,
        sample=sample,
        prompt=prompt.text,
        **rewritten,
        tag=prompt.tag,
        image=image,
        sha256="",  # known once the image is encoded
        grid=sampler.grid,
        strategy=strategy,
        chosen=best.index,
        **sampler.pack(best.content, best.history),
        num_steps=best.num_steps,  # more than the sampler's when it was corrected
        cost=GenerationCost(
            generator_steps=steps,
            judge_calls=cost.judge_calls,
            flops=cost.flops,
            flops_without_search=getattr(sampler, "flops_to_begin", 0.0)
            + sampler.num_steps * sampler.flops_per_step
            + sampler.flops_per_decode,
        ),
        candidates=tuple(_candidate(candidate, sampler) for candidate in choice.candidates),
    )


def _candidate(candidate: Candidate, sampler: Sampler[Any]) -> RecordedCandidate:
    more: dict[str, Any] = {"parent": candidate.parent, "reason": candidate.reason}
    if found := candidate.critique:
        lists = {name: tuple(getattr(found, name)) for name in ("diagnosis", "actions", "problems")}
        more["critique"] = CritiqueRow.model_validate(asdict(found) | lists)
    if candidate.redrawn:
        more["redrawn"] = RedrawingRow.model_validate(asdict(candidate.redrawn))
    return RecordedCandidate(
        candidate=candidate.index,
        **sampler.pack(candidate.content),
        p_yes={question: _known(p) for question, p in candidate.p_yes.items()},
        trace=tuple(Answer(seen.step, seen.question, _known(seen.p_yes)) for seen in candidate.trace),
        cut_at=candidate.cut_at,
        **{key: value for key, value in more.items() if value not in (None, "")},
    )


def _known(p_yes: float) -> float | None:
    """JSON has no NaN: an answer that the judge did not give is null."""
    return None if math.isnan(p_yes) else p_yes
