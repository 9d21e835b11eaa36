"""The closed loop of a trace: measure, diagnose, act, measure again; what makes the image worse is taken back.

Actions are executed, never imagined: operations on the pixels, or a new image from `redraw`. What they gained is
measured against the clean image where there is one, and on the feature that the first diagnosis rests on.
H, W = pixels.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from genloop.data.images import encode_png
from genloop.data.irg.actions import execute, propose
from genloop.data.irg.diagnose import diagnose, diagnose_content
from genloop.data.irg.features import measure
from genloop.data.irg.record import (
    DECIMALS,
    Action,
    Diagnosis,
    Effect,
    Evidence,
    Fault,
    Features,
    Intent,
    Issue,
    Op,
    Round,
    SceneSpec,
)

SSIM_SLACK = 0.02  # by which SSIM may fall: a balance of colours changes luma a little
_WRONG: Mapping[Issue, tuple[Op, dict[str, float | str]]] = {  # what does the opposite, or nothing, about an issue
    "underexposed": ("exposure", {"gain": 0.7}),
    "overexposed": ("gamma", {"gamma": 0.6}),
    "low_contrast": ("stretch", {"low": -0.4, "high": 1.4}),
    "color_cast": ("unsharp", {"radius": 1.0, "amount": 1.0}),
    "noise": ("unsharp", {"radius": 1.0, "amount": 1.5}),
    "blur": ("denoise", {"sigma": 12.0}),
}
_WRONG_CONTENT: tuple[Op, dict[str, float | str]] = ("exposure", {"gain": 1.15})
Compare = Callable[[np.ndarray, np.ndarray], tuple[float, float, float]]  # image, reference -> PSNR, SSIM, delta E
Similarity = Callable[[np.ndarray, str], float]  # image, instruction


@dataclass(frozen=True)
class Drawn:
    """An image (H, W, 3) uint8 and what it shows; None for what was asked for, or where nobody knows."""

    image: np.ndarray
    shown: SceneSpec | None = None


@dataclass(frozen=True)
class Beginning:
    """What a trace begins with; `reference` is the clean image, `redraw` makes a new one from (prompt, attempt)."""

    first: Drawn
    instruction: str
    intent: Intent = "neutral"
    scene: SceneSpec | None = None
    injected: tuple[Fault, ...] = ()
    reference: np.ndarray | None = None
    redraw: Callable[[str, int], Drawn] | None = None
    begins_wrong: bool = False  # the first action is a wrong one


@dataclass
class Trace:
    """The rounds, and the images by field of the sample, as PNG."""

    rounds: list[Round] = field(default_factory=list)
    images: dict[str, bytes] = field(default_factory=dict)

    def keep(self, image: np.ndarray) -> tuple[str, str]:
        """-> the name and sha256 of an image that now belongs to the trace."""
        name, data = f"{len(self.images)}.png", encode_png(image)
        self.images[name] = data
        return name, hashlib.sha256(data).hexdigest()


@dataclass(frozen=True)
class Loop:
    """How traces are made: what measures a gain, how many rounds may act, and an encoder's similarity if asked for."""

    compare: Compare
    max_rounds: int = 4
    similarity: Similarity | None = None

    def run(self, start: Beginning) -> Trace:
        """Rounds until nothing is wrong any more, nothing helps, or `max_rounds` have acted."""
        trace, now, rejected = Trace(), start.first, 0
        name, sha256 = trace.keep(now.image)
        features = self.features(now.image, start.instruction)
        for index in range(self.max_rounds + 1):
            found = find(features, now, start)
            actions = self._actions(start, features, found, index, rejected)
            look = Round(
                index=index,
                image=name,
                image_sha256=sha256,
                shown=now.shown,
                features=features,
                injected=start.injected,
                diagnosis=found,
                actions=actions,
            )
            if index == self.max_rounds and actions:
                break
            if not actions:
                trace.rounds += [look] if not found else []
                break
            if actions[0].op == "regenerate" and start.redraw is None:
                trace.rounds.append(look)  # nothing here can execute it: it has no result
                break
            made = _act(now, actions, start, index)
            result, result_sha = trace.keep(made.image)
            after = self.features(made.image, start.instruction)
            gain = self._gain(found[0].evidence[0], (now, made), (features, after), start)
            accepted = is_gain(gain)
            told = {"result": result, "result_sha256": result_sha, "result_features": after, "gain": gain}
            trace.rounds.append(look.model_copy(update=told | {"accepted": accepted}))
            if accepted:
                now, name, sha256, features, rejected = made, result, result_sha, after, 0
            elif not (start.begins_wrong and index == 0):
                rejected += 1
        return trace

    def features(self, image: np.ndarray, instruction: str) -> Features:
        """What is measured on an image, with the similarity to the instruction where an encoder is there."""
        return measure(image, self.similarity(image, instruction) if self.similarity else None)

    def _actions(
        self, start: Beginning, features: Features, found: Sequence[Diagnosis], index: int, rejected: int
    ) -> tuple[Action, ...]:
        """Those of the rules; after one of them was taken back a new image, after that none."""
        if not found:
            return ()
        if start.begins_wrong and index == 0:
            op, params = _WRONG.get(found[0].issue, _WRONG_CONTENT)
            return (Action(op=op, params=params),)
        proposed = propose(features, found, start.intent, start.instruction)
        if not rejected:
            return proposed
        if rejected > 1 or proposed[0].op == "regenerate":
            return ()
        return propose(features, found, start.intent, start.instruction, again=True)

    def _gain(
        self, evidence: Evidence, drawn: tuple[Drawn, Drawn], features: tuple[Features, Features], start: Beginning
    ) -> Effect:
        before, after = (
            _shortfall(evidence, one, seen, start.scene) for one, seen in zip(features, drawn, strict=True)
        )
        moved = round(before - after, DECIMALS.get(evidence.feature, 2)) + 0.0
        if start.reference is None:
            return Effect(target=evidence.feature, target_delta=moved)
        scores = [self.compare(one.image, start.reference) for one in drawn]
        psnr, ssim, delta_e = (round(a - b, digits) + 0.0 for b, a, digits in zip(*scores, (2, 4, 2), strict=True))
        return Effect(psnr=psnr, ssim=ssim, delta_e=delta_e, target=evidence.feature, target_delta=moved)


def is_gain(effect: Effect) -> bool:
    """Whether actions made the image better: the target comes closer, PSNR rises, delta E falls, SSIM does not fall."""
    is_nearer = effect.psnr is None or effect.psnr > 0
    is_like = effect.ssim is None or effect.ssim >= -SSIM_SLACK
    is_true = effect.delta_e is None or effect.delta_e < 0
    return effect.target_delta > 0 and is_nearer and is_like and is_true


def find(features: Features, seen: Drawn, start: Beginning) -> tuple[Diagnosis, ...]:
    """What is wrong with an image: its content, where the scene is known, and its pixels."""
    content = diagnose_content(start.scene, seen.shown) if start.scene and seen.shown else ()
    return (*content, *diagnose(features, start.intent))


def _act(now: Drawn, actions: Sequence[Action], start: Beginning, attempt: int) -> Drawn:
    """Execute actions, one after the other."""
    made = now

    def redraw(image: np.ndarray, prompt: str, strength: float) -> np.ndarray:
        nonlocal made
        assert start.redraw is not None
        made = start.redraw(prompt, attempt)
        return made.image

    image = now.image
    for action in actions:
        image = execute(image, action, redraw)
    return Drawn(image, made.shown)


def _shortfall(evidence: Evidence, features: Features, seen: Drawn, scene: SceneSpec | None) -> float:
    """How far a feature is beyond the threshold of the evidence, in its unit; of content how much is wrong."""
    what, _, shape = evidence.feature.partition(":")
    if shape:
        assert scene is not None
        wrong = diagnose_content(scene, seen.shown or scene)
        same = [one for diagnosis in wrong for one in diagnosis.evidence if one.feature == evidence.feature]
        if what == "count":
            return sum(abs(float(one.value) - float(one.threshold)) for one in same)
        return float(len(same))
    value, threshold = getattr(features, evidence.feature), float(evidence.threshold)
    return max(0.0, threshold - value if evidence.relation == "below" else value - threshold)
