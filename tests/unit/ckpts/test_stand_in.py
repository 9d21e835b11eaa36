"""Stand-ins of published checkpoints: what reads shapes takes them for the real ones."""

import pytest

from ckpts.resolve import known, registry, resolve
from ckpts.stand_in import stand_ins
from genloop.checkpoint import read_shapes
from genloop.models.clip.folder import check_transformers_folder
from genloop.models.common.text import FileTokenizer
from genloop.models.flux_edit.config import check_edit_folder
from genloop.models.flux_edit.needs import COMPONENTS
from genloop.models.llava.config import check_llava_folder
from genloop.models.magvit2.config import check_magvit2_folder
from genloop.models.mask2former.config import check_mask2former_folder
from genloop.models.showo.config import check_showo_folder

PUBLISHED_PARTS = [name for name in COMPONENTS if name not in ("sam2", "anyline")]
SIZES = {  # bytes of the published weights files, headers left out
    "show-o": (check_showo_folder, 5.79e9),
    "show-o-512x512": (check_showo_folder, 5.79e9),
    "dpo_iter": (check_showo_folder, 2.9e9),
    "magvitv2": (check_magvit2_folder, 0.382e9),
    "llava-onevision": (check_llava_folder, 16.06e9),
    "parm": (check_llava_folder, 16.06e9),
    "clip-vit-large-patch14": (check_transformers_folder, 1.71e9),
    "mask2former-swin-s": (check_mask2former_folder, 0.275e9),
}


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("CHECKPOINT_DIR", str(tmp_path / "empty"))
    return tmp_path / "made"


@pytest.mark.parametrize("name", SIZES)
def test_a_stand_in_passes_the_check_of_its_family_and_has_the_published_size(name, nowhere):
    check, size = SIZES[name]
    with stand_ins(nowhere) as used:
        folder = resolve(name)
        check(folder)
        assert used == [name]
    weights = (folder / "model.safetensors").stat()
    assert weights.st_size == pytest.approx(size, rel=0.02)
    assert weights.st_blocks * 512 < 2e6


def test_a_stand_in_tokenizer_takes_a_token_a_word(nowhere):
    with stand_ins(nowhere):
        tokenizer = FileTokenizer(resolve("phi-1_5"))
    assert len(tokenizer.encode("a photo of two clocks")) == 5
    assert tokenizer.bos_id == tokenizer.eos_id


def test_what_is_here_is_taken_as_it_is_and_nothing_stands_in_afterwards(nowhere):
    with stand_ins(nowhere) as used:
        assert resolve("shapes/showo") == known("shapes/showo").folder
    assert used == []
    with pytest.raises(FileNotFoundError, match="genloop ckpts fetch show-o"):
        resolve("show-o")


def test_every_shape_can_be_written(nowhere):
    named = [name for name, entry in registry().items() if entry.shape]
    with stand_ins(nowhere):
        for name in named:
            folder = resolve(name)
            if (folder / "flux").is_dir():
                assert check_edit_folder(folder, PUBLISHED_PARTS).factor == 8
            else:
                assert (folder / "tokenizer.json").is_file() or read_shapes(folder)
