"""Numbers that would never end, or fill a machine, are refused where they are parsed."""

import importlib
from pathlib import Path
from typing import Any

import pytest

from genloop.config import ConfigError, load_config
from genloop.ledger import plan_units
from genloop.models.common.dims import MOST_LAYERS, check_layers, checked
from genloop.rundir import BadInput, RunError, check_run, fingerprint_of

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("job", "word"),
    [
        ("generate", "sampling.steps=1" + "0" * 44),
        ("generate", "sampling.steps=1e44"),
        ("generate", "sampling.steps=" + "9" * 401),
        ("generate", "images_per_prompt=100000000000000"),
        ("generate", "slots=100000000000000000000"),
        ("generate", "threads=100000000000000000000"),
        ("generate", "rows_per_forward=10000000000"),
        ("generate", "unit_size=10000000000"),
        ("generate", "search.n=1000000"),
        ("generate", "lease_timeout=1e-300"),
        ("generate", "lease_timeout=1e300"),
        ("generate", "sampling.guidance_scale=1e300"),
        ("generate", "sampling.schedule=pow" + "9" * 400),
        ("generate", "limit=0"),
        ("evaluate", "decoders=1000000"),
        ("evaluate", "options.max_objects=-1"),
        ("train_showo", "train.timeout=1e-9"),
        ("train_showo", "model.num_hidden_layers=1000000000"),
        ("train_showo", "model.hidden_size=1000000000"),
        ("train_showo", "train.betas=[0.9, 7]"),
        ("train_tokenizer", "model.encoder_blocks=[1, 1000000000, 1]"),
        ("make_shapes", "weights=[1, 1, 1, 1, 1, -1]"),
        ("compare", "num_resamples=1000000000000"),
    ],
)
def test_a_number_that_can_hurt_is_refused_in_one_line(job: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(importlib.import_module(f"jobs.{job}").Config, ROOT / f"configs/{job}/tiny.yaml", ["out=x", word])
    key = word.partition("=")[0]
    assert str(caught.value).startswith(key) and "\n" not in str(caught.value)


def test_more_units_than_a_folder_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="unit_size: "):
        plan_units(10**15, 1)
    monkeypatch.setattr("genloop.ledger.MAX_UNITS", 100)
    assert len(plan_units(100, 1)) == len(plan_units(199, 2)) == 100
    with pytest.raises(BadInput, match="unit_size: "):
        plan_units(101, 1)


@pytest.mark.parametrize("place", ["/", "..", "../.."])
def test_a_folder_that_holds_the_current_one_is_no_run_folder(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    with pytest.raises(RunError, match="out: "):
        check_run(Path(place), fingerprint_of("generate", {}, {}))
    assert check_run(Path("runs/x"), fingerprint_of("generate", {}, {})) is None


@pytest.mark.parametrize(
    ("key", "value", "like"),
    [
        ("num_hidden_layers", 10**9, 1),
        ("decoder_blocks", [1, 10**9], (1,)),
        ("depths", [1] * 2000, (1,)),
        ("hidden_size", 10**400, 1),
        ("hidden_size", 2**31, 1),
        ("rope_theta", 1e400, 1.0),
    ],
)
def test_a_network_larger_than_any_is_refused(key: str, value: Any, like: Any) -> None:
    with pytest.raises(ValueError, match=f"config.json: {key} is ") as caught:
        checked(key, value, like, "config.json")
    assert len(str(caught.value)) < 250


def test_layers_are_counted_in_groups_of_any_depth() -> None:
    check_layers({"text_config": {"num_hidden_layers": MOST_LAYERS, "output_layers": None}, "x": 10**30}, "c.json")
    for layers in (10**9, [3, 10**9, 3], 1e400):
        with pytest.raises(ValueError, match=r"c\.json: layers is "):
            check_layers({"model_cfg": {"vision_cfg": {"layers": layers}}}, "c.json")
