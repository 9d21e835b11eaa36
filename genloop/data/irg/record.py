"""One trace of the refinement corpus: an instruction, rounds of measuring, diagnosing and acting, what came out.

A sample of a shard holds the record as KEY.json, its images as KEY.0.png, KEY.1.png, ... and the instruction as
KEY.txt. `Round.image` names the field of the image that a round looks at, `Round.result` that of the image which its
actions made. An action that makes the image worse is not accepted: the next round looks at the same image again. A
photograph cannot be made again: a round that advises so has no result, and is the last one.
Every number is measured on pixels and rounded to DECIMALS before it is used, so texts quote what is stored.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genloop.reading import parse_json

SCHEMA = 1
Intent = Literal["neutral", "dark", "bright"]  # the exposure that an instruction asks for
Issue = Literal[
    "underexposed",
    "overexposed",
    "low_contrast",
    "color_cast",
    "noise",
    "blur",
    "wrong_count",
    "wrong_color",
    "wrong_position",
]
Op = Literal["gamma", "exposure", "stretch", "grey_world", "denoise", "unsharp", "regenerate"]
INTENTS: tuple[Intent, ...] = get_args(Intent)
ISSUES: tuple[Issue, ...] = get_args(Issue)
CONTENT_ISSUES: tuple[Issue, ...] = ISSUES[6:]
OPS: tuple[Op, ...] = get_args(Op)
DECIMALS = {  # to which features are stored
    **dict.fromkeys(("brightness", "contrast", "p1", "p99", "clip_hi", "clip_lo", "saturation"), 4),
    **{"cast_a": 2, "cast_b": 2, "cast": 2, "sharpness": 2, "detail": 4, "noise": 2, "clip_similarity": 4},
}
Unit = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    """A part of a record: frozen, no unknown keys, finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Features(_Part):
    """What is measured on the pixels of an image; see genloop/data/irg/features.py."""

    brightness: Unit  # mean luma, Rec. 709
    contrast: Unit  # standard deviation of luma (RMS contrast)
    p1: Unit  # percentiles of luma
    p99: Unit
    clip_hi: Unit  # share of pixels with a channel >= 254
    clip_lo: Unit  # share of pixels with a channel <= 1
    saturation: Unit  # mean S of HSV
    cast_a: float  # mean a* and b* of CIE L*a*b*
    cast_b: float
    cast: float  # their length, the chroma of the mean colour
    sharpness: float  # variance of the Laplacian of luma in levels of 8 bits
    detail: float  # sharpness at 128 pixels without the share of noise, by the variance of luma
    noise: float  # standard deviation by Immerkaer (1996), in levels of 8 bits
    clip_similarity: float | None = None  # of image and instruction, by an encoder; None where none is asked


class SceneObject(_Part):
    """One object of a scene; `x` and `y` are its centre, in shares of the image, `depth` 0 (near) to 1 (far)."""

    shape: str
    color: str
    x: Unit
    y: Unit
    size: Unit  # its width, in shares of the image's
    depth: Unit
    material: Literal["matte", "glossy", "metal"] = "matte"


class SceneSpec(_Part):
    """What a renderer draws, and so the ground truth of a drawn image."""

    things: tuple[SceneObject, ...]
    relation: str | None = None  # of the second thing to the first: "left of", ...
    light_angle: float  # degrees that the light comes from: 0 the right, 90 above
    light_strength: Unit  # of the directed light; the rest is ambient
    exposure: float  # factor of all light
    focus: Unit  # depth that is sharp
    aperture: Unit  # blur by distance from `focus`
    backdrop: Unit  # grey level of wall and floor
    horizon: Unit = 0.6  # where the floor begins, from above
    panels: int = Field(6, ge=1, le=64)  # of the wall, side by side
    texture_seed: int = Field(ge=0)  # of the fine texture of surfaces


class Fault(_Part):
    """What was done to an image on purpose: the hidden label, which is in no text. `bin` is its severity, from 0."""

    kind: Issue
    severity: Unit
    bin: int = Field(ge=0)
    is_reversible: bool = True


class Evidence(_Part):
    """What a diagnosis rests on: the value of a feature, and the threshold that it is below, above, or not equal to.

    Of an issue of content `feature` is "count:circle", "color:circle" or "position:circle", read by an oracle.
    """

    feature: str
    value: float | str
    threshold: float | str
    relation: Literal["below", "above", "differs"]

    @property
    def holds(self) -> bool:
        """Whether the value is where `relation` says."""
        if self.relation == "differs":
            return self.value != self.threshold
        if isinstance(self.value, str) or isinstance(self.threshold, str):
            return False
        return self.value < self.threshold if self.relation == "below" else self.value > self.threshold


class Diagnosis(_Part):
    """An issue of an image; `severity` is how far its first evidence is beyond the threshold."""

    issue: Issue
    severity: Unit
    evidence: tuple[Evidence, ...] = Field(min_length=1)


class Action(_Part):
    """An executable operation and its parameters; see genloop/data/irg/actions.py."""

    op: Op
    params: dict[str, float | str] = {}


class Effect(_Part):
    """What actions changed, result minus before. Those against a reference are None where there is no clean image.

    `target_delta` is how far the target feature came towards its threshold, in the feature's unit: > 0 is better.
    """

    psnr: float | None = None  # dB; equal images count as 100
    ssim: float | None = None
    delta_e: float | None = None  # mean CIEDE2000: < 0 is better
    target: str
    target_delta: float


class Round(_Part):
    """One look at an image and what is done about it; without actions where nothing is wrong (stop)."""

    index: int = Field(ge=0)
    image: str  # field of the sample: "0.png"
    image_sha256: str
    shown: SceneSpec | None = None  # what the image shows, where it is not the scene that was asked for
    features: Features
    injected: tuple[Fault, ...] = ()
    diagnosis: tuple[Diagnosis, ...] = ()
    actions: tuple[Action, ...] = ()
    result: str | None = None
    result_sha256: str | None = None
    result_features: Features | None = None
    gain: Effect | None = None
    accepted: bool = True
    reasoning_text: str = ""
    diagnosis_text: str = ""


class Message(_Part):
    """A turn of the conversation; `images` are fields of the sample, in the order of the text."""

    role: Literal["system", "user", "assistant"]
    content: str
    images: tuple[str, ...] = ()


class Generator(_Part):
    """Where the images come from: `name` is scenes, folder, shards or run; `params_sha` hashes its settings."""

    name: str
    seed: int
    params_sha: str


class Record(_Part):
    """A whole trace."""

    id: str = Field(min_length=1)
    schema_version: int = SCHEMA
    split: str = "train"
    generator: Generator
    instruction: str = Field(min_length=1)
    intent: Intent = "neutral"
    scene: SceneSpec | None = None  # what was asked for; None of photographs
    reasoning_text: str = ""  # composition and lighting
    rounds: tuple[Round, ...] = Field(min_length=1)
    final_prompt: str = ""
    messages: tuple[Message, ...] = ()
    license: str
    provenance: dict[str, str] = {}

    def to_json(self) -> bytes:
        """One line; the same record gives the same bytes."""
        return self.model_dump_json().encode()

    @property
    def final(self) -> str:
        """The field of the image that the trace ends with."""
        last = self.rounds[-1]
        return last.result if last.accepted and last.result else last.image


def parse_record(data: bytes | Mapping[str, Any], where: str = "") -> Record:
    """KEY.json -> the record; ValueError in one line that `where` opens: another schema, a key that does not fit."""
    row = parse_json(data, where) if isinstance(data, bytes) else data
    opening = f"{where}: " if where else ""
    if not isinstance(row, Mapping) or "rounds" not in row:
        raise ValueError(f"{opening}no trace of build_irg: expected an object with `rounds`")
    if row.get("schema_version") != SCHEMA:
        raise ValueError(f"{opening}schema_version {row.get('schema_version')!r}, this version reads {SCHEMA}")
    try:
        return Record.model_validate(row)
    except ValidationError as error:
        raise ValueError(f"{opening}{in_one_line(error)}") from None


def in_one_line(error: ValidationError) -> str:
    """The first key that does not fit, and why."""
    first = error.errors(include_url=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'object'}: {first['msg']}"
