"""Drawn scenes as a source of traces: trace i is a function of (seed, i) and the shares alone."""

from dataclasses import dataclass

import numpy as np

from genloop.data.irg.loop import Beginning, Drawn
from genloop.data.irg.plan import FaultShares, draw_plan
from genloop.shapes.misdrawn import content_faults, misdraw
from genloop.shapes.studio import draw_scene, instruction_of, render_scene


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
        prompt, spec = draw_scene(rng, plan.intent, side=self.side)
        clean, shown = render_scene(spec, self.side), None
        first, labels = plan.spoil(clean, rng)
        if plan.kind == "content":
            kinds = content_faults(prompt, spec)
            shown, fault = misdraw(prompt, spec, kinds[rng.integers(len(kinds))], rng)
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
