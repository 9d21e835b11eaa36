"""Traces of the refinement corpus, small and whole: measured images, diagnoses, executed actions, texts."""

import hashlib
from dataclasses import dataclass

import numpy as np

from genloop.data.images import encode_png
from genloop.data.irg.actions import execute, propose
from genloop.data.irg.diagnose import diagnose, diagnose_content
from genloop.data.irg.features import measure
from genloop.data.irg.record import Action, Effect, Generator, Record, Round, SceneObject, SceneSpec
from genloop.data.irg.text import write_texts
from genloop.data.shards import Sample

SCENE = SceneSpec(
    things=(
        SceneObject(shape="circle", color="red", x=0.2, y=0.5, size=0.2, depth=0.3),
        SceneObject(shape="square", color="blue", x=0.8, y=0.2, size=0.2, depth=0.6, material="metal"),
    ),
    light_angle=90.0,
    light_strength=0.625,
    exposure=1.0,
    focus=0.3,
    aperture=0.1,
    backdrop=0.5,
    texture_seed=3,
)


@dataclass(frozen=True)
class Trace:
    """A record and its images by field of the sample."""

    record: Record
    images: dict[str, bytes]

    @property
    def sample(self) -> Sample:
        """As it lies in a shard."""
        texts = {"json": self.record.to_json(), "txt": self.record.instruction.encode()}
        return Sample(self.record.id, {**texts, **self.images})


def clean_image(seed: int, side: int = 32) -> np.ndarray:
    """(H, W, 3) uint8: coloured blocks of full contrast with fine lines; the rules find nothing wrong."""
    random = np.random.default_rng([seed, 7])
    blocks = random.uniform(0.05, 0.95, (4, 4, 1)).repeat(3, axis=2) + random.uniform(-0.03, 0.03, (4, 4, 3))
    image = np.kron(blocks, np.ones((side // 4, side // 4, 1)))
    image *= 0.47 / image.mean()
    return np.rint(np.clip(image, 0.02, 0.97) * 255).astype(np.uint8)


def trace(kind: str = "dark", seed: int = 0, split: str = "train") -> Trace:
    """`kind`: clean, dark, undone (a wrong action, taken back, then the right one), content (a wrong colour)."""
    image = clean_image(seed)
    if kind in ("dark", "undone"):
        image = execute(image, Action(op="gamma", params={"gamma": 3.0}))
    rounds, images = [], {"0.png": encode_png(image)}
    if kind == "undone":
        worse = execute(image, Action(op="gamma", params={"gamma": 1.5}))
        images["1.png"] = encode_png(worse)
        rounds.append(_round(0, "0.png", image, images, (Action(op="gamma", params={"gamma": 1.5}),), worse, False))
    shown = SCENE
    if kind == "content":
        things = (SCENE.things[0].model_copy(update={"color": "green"}), SCENE.things[1])
        shown = SCENE.model_copy(update={"things": things})
    instruction = "a red circle and a blue square"
    found = (*diagnose(measure(image)), *diagnose_content(SCENE, shown))
    actions = propose(measure(image), found, "neutral", instruction)
    after = execute(image, actions[0], lambda *_: clean_image(seed + 1)) if actions else None
    if after is not None:
        images[f"{len(rounds) + 1}.png"] = encode_png(after)
    rounds.append(_round(len(rounds), "0.png", image, images, actions, after, True, shown, found))
    record = Record(
        id=f"{kind}-{seed:05d}",
        generator=Generator(name="scenes", seed=seed, params_sha="0" * 64),
        instruction=instruction,
        scene=SCENE,
        rounds=tuple(rounds),
        license="CC0-1.0",
    )
    return Trace(write_texts(record, np.random.default_rng([seed, 1]), split), images)


def _round(index, image, pixels, images, actions, after, accepted, shown=SCENE, found=None):
    def sha256(name):
        return hashlib.sha256(images[name]).hexdigest()

    features = measure(pixels)
    found = diagnose(features) if found is None else found
    keys = {}
    if after is not None:
        result = f"{len(images) - 1}.png"
        target = found[0].evidence[0].feature
        is_measured = ":" not in target
        moved = getattr(measure(after), target) - getattr(features, target) if is_measured else 1.0
        gain = Effect(target=target, target_delta=round(moved, 4))
        keys = {"result": result, "result_sha256": sha256(result), "result_features": measure(after), "gain": gain}
    return Round(
        index=index,
        image=image,
        image_sha256=sha256(image),
        shown=None if shown == SCENE else shown,
        features=features,
        diagnosis=found,
        actions=actions,
        accepted=accepted,
        **keys,
    )
