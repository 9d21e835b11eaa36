"""The shape of a Mask2Former checkpoint (Cheng et al. 2022) with a Swin backbone, read from its folder. No torch.

The folder has the layout of transformers: config.json and weights under the names of the public files. One that
`genloop ckpts convert mask2former` wrote says in conversion.json which file it was made of and how its images are
prepared.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from genloop.checkpoint import Shape, compare_manifest, read_shapes
from genloop.models.common.dims import read_dims
from genloop.reading import read_json_object

Preprocess = Literal["mmdet3", "mmdet2"]

CONVERSION_FILE = "conversion.json"
CONVERT = "genloop ckpts convert mask2former"
ENCODER = "model.pixel_level_module.encoder"
PIXEL_DECODER = "model.pixel_level_module.decoder"
TRANSFORMER = "model.transformer_module"
NUM_LEVELS = 3  # feature maps that the pixel decoder attends to
NUM_POINTS = 4  # places a query looks at in each
_LEVELS = range(NUM_LEVELS)
_SWINS: dict[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "Swin-T",
    (96, (2, 2, 18, 2)): "Swin-S",
    (128, (2, 2, 18, 2)): "Swin-B",
}
_ONLY = {"activation_function": "relu", "pre_norm": False, "common_stride": 4, "feature_strides": [4, 8, 16, 32]}
_ONLY_SWIN = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "num_channels": 3,
    "use_absolute_embeddings": False,
    "out_features": ["stage1", "stage2", "stage3", "stage4"],
}
_UNUSED = (".relative_position_index", "criterion.empty_weight", ".swin.layernorm.weight", ".swin.layernorm.bias")


@dataclass(frozen=True, slots=True)
class SwinDims:
    """Sizes of the backbone; the defaults are Swin-S's."""

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 18, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window_size: int = 7
    patch_size: int = 4
    mlp_ratio: float = 4.0
    qkv_bias: bool = True

    @property
    def name(self) -> str:
        """Swin-S, or its sizes where it is none of those that have a name."""
        sizes = f"Swin of {self.embed_dim} channels and {'-'.join(map(str, self.depths))} blocks"
        return _SWINS.get((self.embed_dim, self.depths), sizes)


@dataclass(frozen=True, slots=True)
class HeadDims:
    """Sizes of pixel decoder and transformer; the defaults are those of the public COCO checkpoints."""

    feature_size: int = 256
    mask_feature_size: int = 256
    hidden_dim: int = 256
    encoder_layers: int = 6
    encoder_feedforward_dim: int = 1024
    decoder_layers: int = 10  # one more than there are: the first prediction needs none
    dim_feedforward: int = 2048
    num_attention_heads: int = 8
    num_queries: int = 100
    enforce_input_projection: bool = False

    @property
    def projects_features(self) -> bool:
        """Whether a convolution stands between pixel decoder and transformer."""
        return self.enforce_input_projection or self.feature_size != self.hidden_dim


@dataclass(frozen=True, slots=True)
class Mask2FormerConfig:
    """Sizes of one Mask2Former and the names of its classes."""

    swin: SwinDims
    head: HeadDims
    class_names: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """config.json in the layout of transformers; read by its versions 4 and 5."""
        swin = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self.swin).items()}
        stages = [f"stage{stage + 1}" for stage in range(len(self.swin.depths))]
        return {
            "architectures": ["Mask2FormerForUniversalSegmentation"],
            "model_type": "mask2former",
            **asdict(self.head),
            "backbone_config": {"model_type": "swin", **swin, "out_features": stages},
            "id2label": {str(index): name for index, name in enumerate(self.class_names)},
            "label2id": {name: index for index, name in enumerate(self.class_names)},
            "dtype": "float32",
        }


@dataclass(frozen=True, slots=True)
class Preparation:
    """How images become what the network sees: whose pixels, and the (long, short) side that an image has to fit."""

    preprocess: Preprocess = "mmdet3"
    scale: tuple[int, int] = (1333, 800)


def read_mask2former_config(folder: Path) -> Mask2FormerConfig:
    """config.json of a folder; ValueError when it is another family's or a file of mmdet."""
    files = [folder] if folder.is_file() else sorted(folder.glob("*.pth"))
    if files and not (folder / "config.json").is_file():
        raise ValueError(
            f"{files[0]} is not in the layout of transformers; convert it first: {CONVERT} {files[0]} FOLDER"
        )
    path = folder / "config.json"
    data = read_json_object(path)
    if data.get("model_type") != "mask2former":
        raise ValueError(f"{path}: model_type is {data.get('model_type')!r}, another family; expected 'mask2former'")
    swin = data.get("backbone_config")
    if not isinstance(swin, Mapping) or swin.get("model_type", "swin") != "swin":
        raise ValueError(f"{path}: no backbone_config of a Swin transformer, the only backbone that is known")
    for place, known in ((data, _ONLY), (swin, _ONLY_SWIN)):
        for key, value in known.items():
            if place.get(key, value) != value:
                raise ValueError(f"{path}: {key} is {place[key]!r}; only {value!r} is known")
    head: HeadDims = read_dims(HeadDims(), data, path)
    dims: SwinDims = read_dims(SwinDims(), swin, path)
    if not len(dims.depths) == len(dims.num_heads) == 4:
        raise ValueError(f"{path}: depths {dims.depths} and num_heads {dims.num_heads} need four stages")
    if head.feature_size % 32 or head.hidden_dim % head.num_attention_heads:
        raise ValueError(
            f"{path}: feature_size {head.feature_size} must be a multiple of 32 and hidden_dim {head.hidden_dim} of "
            f"num_attention_heads {head.num_attention_heads}"
        )
    return Mask2FormerConfig(dims, head, _class_names(data, path))


def check_mask2former_folder(folder: Path) -> Mask2FormerConfig:
    """Refuse a folder of another family, or whose files are torn or do not fit its config.json; reads headers only."""
    config = read_mask2former_config(folder)
    found = {key: shape for key, shape in read_shapes(folder).items() if not key.endswith(_UNUSED)}
    compare_manifest(mask2former_manifest(config), found, folder)
    read_preparation(folder)
    read_source(folder)
    return config


def read_preparation(folder: Path) -> Preparation:
    """What conversion.json says about pixels, the defaults where there is none."""
    path = folder / CONVERSION_FILE
    if not path.is_file():
        return Preparation()
    data = read_json_object(path)
    scale = data.get("scale")
    preprocess: Any = data.get("preprocess")
    if preprocess not in get_args(Preprocess):
        raise ValueError(f"{path}: preprocess is {preprocess!r}, expected one of {', '.join(get_args(Preprocess))}")
    if not isinstance(scale, list) or len(scale) != 2 or not all(type(side) is int and side > 0 for side in scale):
        raise ValueError(f"{path}: scale is {scale!r}, expected two whole numbers above 0")
    return Preparation(preprocess, (max(scale), min(scale)))


def read_source(folder: Path) -> dict[str, str]:
    """What conversion.json says about the file that the folder was made of: its name, sha256 and version of mmdet."""
    path = folder / CONVERSION_FILE
    source = read_json_object(path).get("source", {}) if path.is_file() else {}
    if not isinstance(source, dict) or not all(isinstance(value, str) for value in source.values()):
        raise ValueError(f"{path}: source is {source!r}, expected names and their values; convert the file again")
    return source


def mask2former_manifest(config: Mask2FormerConfig) -> dict[str, Shape]:
    """{key: shape} of every tensor that decides an answer, under the names of the public files."""
    head = config.head
    transformer = f"{TRANSFORMER}.decoder"
    return dict(
        [
            *_swin(config.swin),
            *_pixel_decoder(config),
            *_embedding(f"{TRANSFORMER}.queries_features", head.num_queries, head.hidden_dim),
            *_embedding(f"{TRANSFORMER}.queries_embedder", head.num_queries, head.hidden_dim),
            *_embedding(f"{TRANSFORMER}.level_embed", NUM_LEVELS, head.hidden_dim),
            *(
                pair
                for level in _LEVELS
                if head.projects_features
                for pair in _linear(
                    f"{TRANSFORMER}.input_projections.{level}", head.hidden_dim, head.feature_size, 1, 1
                )
            ),
            *(
                pair
                for i in range(head.decoder_layers - 1)
                for pair in _decoder_layer(f"{transformer}.layers.{i}", head)
            ),
            *_norm(f"{transformer}.layernorm", head.hidden_dim),
            *_linear(f"{transformer}.mask_predictor.mask_embedder.0.0", head.hidden_dim, head.hidden_dim),
            *_linear(f"{transformer}.mask_predictor.mask_embedder.1.0", head.hidden_dim, head.hidden_dim),
            *_linear(f"{transformer}.mask_predictor.mask_embedder.2.0", head.mask_feature_size, head.hidden_dim),
            *_linear("class_predictor", len(config.class_names) + 1, head.hidden_dim),
        ]
    )


Pairs = Iterator[tuple[str, Shape]]


def _swin(dims: SwinDims) -> Pairs:
    width, patch = dims.embed_dim, dims.patch_size
    yield from _linear(f"{ENCODER}.embeddings.patch_embeddings.projection", width, 3, patch, patch)
    yield from _norm(f"{ENCODER}.embeddings.norm", width)
    for stage, (depth, heads) in enumerate(zip(dims.depths, dims.num_heads, strict=True)):
        width, inner = dims.embed_dim * 2**stage, int(dims.mlp_ratio * dims.embed_dim * 2**stage)
        layer = f"{ENCODER}.encoder.layers.{stage}"
        for block in (f"{layer}.blocks.{i}" for i in range(depth)):
            yield from _norm(f"{block}.layernorm_before", width)
            for name in ("query", "key", "value"):
                yield from list(_linear(f"{block}.attention.self.{name}", width, width))[: 1 + dims.qkv_bias]
            yield f"{block}.attention.self.relative_position_bias_table", ((2 * dims.window_size - 1) ** 2, heads)
            yield from _linear(f"{block}.attention.output.dense", width, width)
            yield from _norm(f"{block}.layernorm_after", width)
            yield from _linear(f"{block}.intermediate.dense", inner, width)
            yield from _linear(f"{block}.output.dense", width, inner)
        if stage + 1 < len(dims.depths):
            yield from _norm(f"{layer}.downsample.norm", 4 * width)
            yield f"{layer}.downsample.reduction.weight", (2 * width, 4 * width)
        yield from _norm(f"{ENCODER}.hidden_states_norms.stage{stage + 1}", width)


def _pixel_decoder(config: Mask2FormerConfig) -> Pairs:
    head, wide = config.head, config.head.feature_size
    widths = [config.swin.embed_dim * 2**stage for stage in range(len(config.swin.depths))]
    for level, width in zip(_LEVELS, reversed(widths)):
        yield from _linear(f"{PIXEL_DECODER}.input_projections.{level}.0", wide, width, 1, 1)
        yield from _norm(f"{PIXEL_DECODER}.input_projections.{level}.1", wide)
    yield f"{PIXEL_DECODER}.level_embed", (NUM_LEVELS, wide)
    for i in range(head.encoder_layers):
        layer, places = f"{PIXEL_DECODER}.encoder.layers.{i}", head.num_attention_heads * NUM_LEVELS * NUM_POINTS
        yield from _linear(f"{layer}.self_attn.sampling_offsets", 2 * places, wide)
        yield from _linear(f"{layer}.self_attn.attention_weights", places, wide)
        yield from _linear(f"{layer}.self_attn.value_proj", wide, wide)
        yield from _linear(f"{layer}.self_attn.output_proj", wide, wide)
        yield from _norm(f"{layer}.self_attn_layer_norm", wide)
        yield from _linear(f"{layer}.fc1", head.encoder_feedforward_dim, wide)
        yield from _linear(f"{layer}.fc2", wide, head.encoder_feedforward_dim)
        yield from _norm(f"{layer}.final_layer_norm", wide)
    yield f"{PIXEL_DECODER}.adapter_1.0.weight", (wide, config.swin.embed_dim, 1, 1)
    yield from _norm(f"{PIXEL_DECODER}.adapter_1.1", wide)
    yield f"{PIXEL_DECODER}.layer_1.0.weight", (wide, wide, 3, 3)
    yield from _norm(f"{PIXEL_DECODER}.layer_1.1", wide)
    yield from _linear(f"{PIXEL_DECODER}.mask_projection", head.mask_feature_size, wide, 1, 1)


def _decoder_layer(layer: str, head: HeadDims) -> Pairs:
    wide = head.hidden_dim
    yield f"{layer}.cross_attn.in_proj_weight", (3 * wide, wide)
    yield f"{layer}.cross_attn.in_proj_bias", (3 * wide,)
    yield from _linear(f"{layer}.cross_attn.out_proj", wide, wide)
    yield from _norm(f"{layer}.cross_attn_layer_norm", wide)
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        yield from _linear(f"{layer}.self_attn.{name}", wide, wide)
    yield from _norm(f"{layer}.self_attn_layer_norm", wide)
    yield from _linear(f"{layer}.fc1", head.dim_feedforward, wide)
    yield from _linear(f"{layer}.fc2", wide, head.dim_feedforward)
    yield from _norm(f"{layer}.final_layer_norm", wide)


def _linear(name: str, *shape: int) -> Pairs:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _norm(name: str, width: int) -> Pairs:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _embedding(name: str, rows: int, width: int) -> Pairs:
    yield f"{name}.weight", (rows, width)


def _class_names(data: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    """The names in id2label by number; LABEL_0, ... where only their number is known."""
    names = data.get("id2label")
    if names is None and type(data.get("num_labels")) is int:
        return tuple(f"LABEL_{index}" for index in range(data["num_labels"]))
    if not isinstance(names, Mapping) or sorted(names) != sorted(map(str, range(len(names)))):
        raise ValueError(f"{path}: id2label is missing, or does not number its classes from 0")
    return tuple(str(names[str(index)]) for index in range(len(names)))
