"""Configs of models that contradict themselves or are not known: refused in one line that names key and value."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from genloop.models.llava.config import read_llava_config
from genloop.models.magvit2.config import read_magvit2_config
from genloop.models.showo.config import ShowOConfig, read_showo_config
from tests.worlds.llava_configs import HF, ORIGINAL, config_folder

MAGVIT = {
    "_class_name": "MAGVITv2",
    "num_bits": 5,
    "width": 8,
    "encoder_mult": [1, 2, 2],
    "encoder_blocks": [1, 2, 1],
    "decoder_mult": [1, 1, 2],
    "decoder_blocks": [2, 1, 1],
    "num_groups": 4,
    "resolution": 16,
}
SHOWO = ShowOConfig().to_json()


@pytest.mark.parametrize(
    ("read", "config", "changes", "message"),
    [
        (read_llava_config, ORIGINAL, {"hidden_size": "3584"}, "hidden_size is '3584'"),
        (read_llava_config, ORIGINAL, {"rms_norm_eps": None}, "rms_norm_eps is None"),
        (read_llava_config, ORIGINAL, {"rope_theta": [1]}, r"rope_theta is \[1\]"),
        (read_llava_config, ORIGINAL, {"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
        (read_llava_config, ORIGINAL, {"hidden_act": "swish7"}, "hidden_act is 'swish7', .*gelu"),
        (read_llava_config, ORIGINAL, {"image_aspect_ratio": None}, "image_aspect_ratio is None"),
        (read_llava_config, ORIGINAL, {"vision_config": [1]}, r"vision_config is \[1\]"),
        (read_llava_config, HF, {"text_config": "qwen2"}, "text_config is 'qwen2'"),
        (read_llava_config, HF, {"image_token_index": "<image>"}, "image_token_index is '<image>'"),
        (read_llava_config, ORIGINAL, {"num_attention_heads": 27}, "3584 .*27 attention heads"),
        (read_llava_config, ORIGINAL, {"mm_projector_type": "linear"}, "mm_projector_type is 'linear', .*'mlp2x_gelu'"),
        (read_llava_config, ORIGINAL, {"rope_scaling": {"type": "yarn"}}, "rope_type is 'yarn', .*'default'"),
        (read_llava_config, ORIGINAL, {"use_sliding_window": True}, "use_sliding_window is true"),
        (read_llava_config, ORIGINAL, {"image_grid_pinpoints": "6x6"}, "image_grid_pinpoints is '6x6'"),
        (read_llava_config, HF, {"image_grid_pinpoints": [384]}, r"image_grid_pinpoints is \[384\]"),
        (
            read_llava_config,
            HF,
            {"text_config": {"model_type": "llama"}},
            r"text_config\.model_type is 'llama', .*'qwen2'",
        ),
        (read_llava_config, HF, {"vision_config": {"model_type": "clip"}}, r"vision_config\.model_type is 'clip'"),
        (
            read_llava_config,
            HF,
            {"vision_feature_select_strategy": "default"},
            "select_strategy is 'default', .*'full'",
        ),
        (read_llava_config, HF, {"vision_feature_layer": [-2, -1]}, r"vision_feature_layer is \[-2, -1\]"),
        (read_llava_config, HF, {"vision_feature_layer": -30}, "vision_feature_layer is -30, .*26"),
        (read_llava_config, HF, {"multimodal_projector_bias": False}, "multimodal_projector_bias is False"),
        (read_magvit2_config, MAGVIT, {"num_bits": 0}, "num_bits is 0"),
        (read_magvit2_config, MAGVIT, {"encoder_mult": 3}, "encoder_mult is 3"),
        (read_magvit2_config, MAGVIT, {"encoder_mult": [1, 2]}, "differ in length"),
        (read_magvit2_config, MAGVIT, {"width": 10}, "width 10 .*num_groups 4"),
        (read_magvit2_config, MAGVIT, {"resolution": 30}, "resolution 30 .*4"),
        (read_showo_config, SHOWO, {"codebook_size": 0}, "codebook_size is 0"),
        (read_showo_config, SHOWO, {"num_vq_tokens": "256"}, "num_vq_tokens is '256'"),
        (read_showo_config, SHOWO, {"mask_token_id": 58496}, "mask_token_id is 58496, .*58497"),
        (read_showo_config, SHOWO, {"vocab_size": 60000}, "vocab_size is 60000"),
        (read_showo_config, SHOWO, {"llm_model_path": "google/gemma"}, r"'google/gemma', .*config\.json"),
    ],
)
def test_a_config_that_is_not_known_is_refused(
    tmp_path: Path, read: Callable[[Path], Any], config: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read(config_folder(tmp_path, config, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [("{", "broken JSON"), ("[]", "expected a JSON object")])
def test_a_config_that_is_no_object_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_showo_config(tmp_path)
