"""The embedded world as photographs: shapes with material, light, shadow and depth of field, at any resolution.

A scene is drawn from a prompt (`draw_scene`) and everything visible follows from it (`render_scene`): the same scene
gives the same bytes. H = W = side in pixels; levels are shares of full scale as displayed.
"""

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter, zoom

from genloop.data.irg.record import Intent, SceneObject, SceneSpec
from genloop.data.pixels import luminance
from genloop.data.prompts import with_article
from genloop.records import PALETTE, TAGS, Prompt
from genloop.shapes.prompts import pool
from genloop.shapes.render import TEMPLATES
from genloop.shapes.scenes import GRID, SHAPES, scene_for

MATERIALS = ("matte", "glossy", "metal")
BRIGHTNESS: dict[Intent, tuple[float, float]] = {"neutral": (0.42, 0.52), "dark": (0.14, 0.22), "bright": (0.68, 0.76)}
INTENT_WORDS: dict[Intent, str] = {
    "neutral": "",
    "dark": ", dark low-key lighting",
    "bright": ", bright high-key lighting",
}
_BACKDROPS: dict[Intent, tuple[float, float]] = {"neutral": (0.5, 0.72), "dark": (0.35, 0.6), "bright": (0.75, 0.9)}
_TEXTURE = 0.012  # amplitude of the fine texture of surfaces
_BLUR = 5.0  # sigma at aperture 1, a whole depth from focus, in pixels of an image of 128


def draw_scene(
    rng: np.random.Generator, intent: Intent = "neutral", *, tag: str | None = None, side: int = 128
) -> tuple[Prompt, SceneSpec]:
    """A prompt of the world and a scene that shows it, exposed as the intent asks; `tag` names one of the six tasks."""
    choices = pool("train", tag or TAGS[rng.integers(len(TAGS))])
    prompt = choices[rng.integers(len(choices))]
    relation = next((clause.position[0] for clause in prompt.include if clause.position), None)
    things = tuple(_place(thing.shape, thing.color, thing.row, thing.column, rng) for thing in scene_for(prompt, rng))
    depths = [thing.depth for thing in things]
    spec = SceneSpec(
        things=things,
        relation=relation,
        light_angle=round(float(rng.uniform(20, 160)), 1),
        light_strength=round(float(rng.uniform(0.45, 0.8)), 3),
        exposure=1.0,
        focus=round(float(np.mean(depths)), 3),
        aperture=round(float(rng.uniform(0.0, 0.5)), 3),
        backdrop=round(float(rng.uniform(*_BACKDROPS[intent])), 3),
        horizon=round(float(rng.uniform(0.45, 0.75)), 3),
        panels=int(rng.integers(4, 9)),
        texture_seed=int(rng.integers(1 << 31)),
    )
    return prompt, _exposed(spec, float(rng.uniform(*BRIGHTNESS[intent])), side)


def instruction_of(prompt: Prompt, spec: SceneSpec, intent: Intent) -> str:
    """The prompt, the material of its first object and the light that it asks for."""
    material = spec.things[0].material
    surface = "" if material == "matte" else f", {with_article(material)} surface"
    side = "from the right" if spec.light_angle < 70 else "from the left" if spec.light_angle > 110 else "from above"
    return f"{prompt.text}{surface}, lit {side}{INTENT_WORDS[intent]}"


def render_scene(spec: SceneSpec, side: int = 128) -> np.ndarray:
    """(side, side, 3) uint8"""
    return np.rint(np.clip(_levels(spec, side) * spec.exposure, 0, 1) * 255).astype(np.uint8)


def _place(shape: str, color: str, row: int, column: int, rng: np.random.Generator) -> SceneObject:
    """An object about the middle of its 2 x 2 cells; what is higher in the image is farther away and smaller."""
    x, y = ((at + 1) / GRID + rng.uniform(-0.02, 0.02) for at in (column, row))
    depth = min(1.0, max(0.0, 1 - y + rng.uniform(-0.1, 0.1)))
    size = 0.33 - 0.07 * depth + rng.uniform(-0.015, 0.015)
    material = MATERIALS[rng.choice(3, p=[0.5, 0.3, 0.2])]
    values = {name: round(float(value), 3) for name, value in zip(("x", "y", "size", "depth"), (x, y, size, depth))}
    return SceneObject.model_validate({"shape": shape, "color": color, "material": material, **values})


def _exposed(spec: SceneSpec, brightness: float, side: int) -> SceneSpec:
    """The scene with the exposure at which its mean luma is `brightness`, highlights clipped."""
    levels, exposure = _levels(spec, side), 1.0
    for _ in range(4):
        exposure *= brightness / float(luminance(np.clip(levels * exposure, 0, 1)).mean())
    return spec.model_copy(update={"exposure": round(exposure, 4)})


def _levels(spec: SceneSpec, side: int) -> np.ndarray:
    """(side, side, 3) before exposure, from back to front"""
    angle = np.deg2rad(spec.light_angle)
    light = np.array([np.cos(angle), -np.sin(angle)])  # towards the light; y points down
    image = _backdrop(spec, light, side)
    for thing in sorted(spec.things, key=lambda thing: -thing.depth):
        alpha, local = _mask(thing, side)
        sigma = spec.aperture * abs(thing.depth - spec.focus) * _BLUR * side / 128
        if sigma > 0.2:
            alpha = gaussian_filter(alpha, sigma)
        image = image * (1 - spec.light_strength * _shadow(alpha, light, side))[..., None]
        surface = _surface(thing, local, light, spec.light_strength)
        image = image * (1 - alpha[..., None]) + surface * alpha[..., None]
    texture = np.random.default_rng(spec.texture_seed).standard_normal((side, side))
    return image * (1 + _TEXTURE * gaussian_filter(texture, 0.7) * 2)[..., None]


def _backdrop(spec: SceneSpec, light: np.ndarray, side: int) -> np.ndarray:
    """A panelled wall above a lighter tiled floor, both brighter towards the light; the wall is as far as can be."""
    at = (np.arange(side) + 0.5) / side
    towards = light[0] * (at[None, :] - 0.5) + light[1] * (at[:, None] - 0.5)
    floor = np.clip((at - spec.horizon) * side / 3, 0, 1)[:, None]
    seams = np.maximum(
        *np.broadcast_arrays(_seams(at, spec.panels, side)[None, :], _seams(at, 1.5 * spec.panels, side)[:, None])
    )
    sigma = spec.aperture * (1 - spec.focus) * _BLUR * side / 256
    if sigma > 0.2:
        seams = seams * floor + gaussian_filter(seams, sigma) * (1 - floor)
    level = spec.backdrop * (0.76 + 0.3 * floor) * (1 + spec.light_strength * 1.1 * towards) * (1 - 0.3 * seams)
    return np.repeat(level[..., None], 3, axis=2)


def _seams(at: np.ndarray, number: float, side: int) -> np.ndarray:
    """(side,) in [0, 1]: dark lines between so many panels, 1/128 of the image wide"""
    distance = np.abs((at * number + 0.5) % 1 - 0.5) / number * side
    return np.clip(1.0 - distance * 128 / side + 0.5, 0, 1)


def _mask(thing: SceneObject, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (side, side), and place inside of the object (2, side, side) in [-1, 1] along x and y"""
    width = max(7, round(thing.size * side))
    shape = _outline(thing.shape, width)
    left, top = round(thing.x * side - width / 2), round(thing.y * side - width / 2)
    coverage = np.zeros((side, side))
    rows = slice(max(top, 0), min(top + width, side))
    columns = slice(max(left, 0), min(left + width, side))
    coverage[rows, columns] = shape[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    across = (np.arange(side) + 0.5 - left - width / 2) / (width / 2)
    down = (np.arange(side) + 0.5 - top - width / 2) / (width / 2)
    return coverage, np.stack(np.broadcast_arrays(across[None, :], down[:, None])).clip(-1, 1)


@cache
def _outline(shape: str, width: int) -> np.ndarray:
    """(width, width) coverage: the bitmap of the world, enlarged, with edges one pixel wide"""
    bitmap = TEMPLATES[SHAPES.index(shape)].astype(np.float64)
    factor = width / len(bitmap)
    soft = zoom(np.pad(bitmap, 1), factor, order=1, grid_mode=True, mode="grid-constant")
    margin = (soft.shape[0] - width) // 2
    cut = soft[margin : margin + width, margin : margin + width]
    return np.clip((cut - 0.5) * factor + 0.5, 0, 1)


def _shadow(alpha: np.ndarray, light: np.ndarray, side: int) -> np.ndarray:
    """(side, side) in [0, 1]: the soft shadow that an object casts away from the light"""
    right, down = (round(-step * side * 0.04) for step in light)
    cast = np.zeros_like(alpha)
    to = [slice(max(step, 0), side + min(step, 0)) for step in (down, right)]
    of = [slice(max(-step, 0), side + min(-step, 0)) for step in (down, right)]
    cast[to[0], to[1]] = alpha[of[0], of[1]]
    return 0.8 * gaussian_filter(cast, side / 64)


def _surface(thing: SceneObject, local: np.ndarray, light: np.ndarray, strength: float) -> np.ndarray:
    """(side, side, 3): the object's colour under the light, as its material reflects it"""
    color = np.array(PALETTE[thing.color]) / 255
    towards = local[0] * light[0] + local[1] * light[1]  # (side, side)
    shade = 1 + strength * {"matte": 0.3, "glossy": 0.4, "metal": 0.5}[thing.material] * towards
    if thing.material == "metal":
        shade = shade * (1 + 0.15 * np.sin(6 * towards))
    surface = color * shade[..., None]
    if thing.material == "glossy":
        distance = ((local - 0.45 * light[:, None, None]) ** 2).sum(axis=0)
        surface = surface + (0.6 * strength * np.exp(-distance / 0.05))[..., None]
    return surface
