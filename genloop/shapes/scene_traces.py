"""Drawn scenes as a source of traces: trace i is a function of (seed, i) and the shares alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genloop.data.irg.diagnose import diagnose
from genloop.data.irg.features import measure
from genloop.data.irg.loop import Beginning, Drawn
from genloop.data.irg.plan import FaultShares, draw_plan
from genloop.data.irg.record import Intent, SceneSpec
from genloop.records import TAGS, Prompt
from genloop.shapes.misdrawn import TASKS, misdraw
from genloop.shapes.studio import draw_scene, instruction_of, render_scene

_ATTEMPTS = 200  # at a scene in which the rules find nothing; one in twenty fails


@dataclass(frozen=True, slots=True)
class SceneTraces:
    """Scenes of the embedded world with faults; the renderer is the oracle and makes images again."""

    seed: int
    shares: FaultShares
    side: int  # pixels of an image

    name = "scenes"

    def start(self, index: int) -> tuple[Beginning, dict[str, str]]:
        """What trace `index` begins with, and where it comes from."""
        rng = np.random.default_rng([self.seed, index])
        plan = draw_plan(rng, self.shares, is_scene=True)
        fault_kinds = tuple(TASKS)
        wrong = fault_kinds[rng.integers(len(fault_kinds))] if plan.kind == "content" else None
        prompt, spec, clean = self._clean(rng, plan.intent, TASKS[wrong] if wrong else TAGS)
        shown = None
        first, labels = plan.spoil(clean, rng)
        if wrong:
            shown, fault = misdraw(prompt, spec, wrong, rng)
            first, labels = render_scene(shown, self.side), (fault,)

        def redraw(words: str, attempt: int) -> Drawn:
            """The renderer draws what was asked for, with other textures, whatever the words add."""
            again = spec.model_copy(update={"texture_seed": spec.texture_seed + attempt + 1})
            return Drawn(render_scene(again, self.side), again)

        start = Beginning(
            first=Drawn(first, shown),
            instruction=instruction_of(prompt, spec, plan.intent),
            intent=plan.intent,
            scene=spec,
            injected=labels,
            reference=clean,
            redraw=redraw,
            begins_wrong=plan.begins_wrong,
        )
        return start, {"source": "scenes", "prompt": prompt.text, "task": str(prompt.tag), "kind": plan.kind}

    def _clean(
        self, rng: np.random.Generator, intent: Intent, tasks: Sequence[str]
    ) -> tuple[Prompt, SceneSpec, np.ndarray]:
        """A prompt of one of the tasks, a scene of it in which the rules find nothing, and its image (H, W, 3)."""
        for _ in range(_ATTEMPTS):
            prompt, spec = draw_scene(rng, intent, tag=tasks[int(rng.integers(len(tasks)))], side=self.side)
            image = render_scene(spec, self.side)
            if not diagnose(measure(image), intent):
                return prompt, spec, image
        raise RuntimeError(f"no scene of {self.side} pixels passes the rules in {_ATTEMPTS} attempts")
