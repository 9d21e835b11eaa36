"""A fresh text model of recorded sizes has the recorded number of weights."""

import json

from genloop.models.qwen.load import build_chat_model
from tests.goldens.roots import golden_paths


def test_sizes_are_those_of_the_recorded_model():
    for path in golden_paths("diffusion/tiny_qwen2.json"):
        golden = json.loads(path.read_text())
        model = build_chat_model({"model_type": "qwen2"} | golden["cfg"], seed=0)
        assert sum(parameter.numel() for parameter in model.parameters()) == golden["params"]
