"""Commands of jobs that cannot be right: one line that names the key, exit code 2, nothing written."""

import io
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from genloop.config import DEVICE, load_config, marked
from genloop.data.shards import Sample, write_shard
from jobs import make_diffusion, make_prompts, make_shapes, train_judge, train_showo, train_tokenizer
from launch.catalog import import_job
from tests.runs import ROOT, refusal


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        (train_showo, ["tiny", "shards=nowhere"], "no shards (*.tar) in nowhere"),
        (train_showo, ["tiny", "tokenizer=shapes/tokeniser"], "did you mean 'shapes/tokenizer'?"),
        (train_showo, ["tiny", "text_tokenizer=null"], "text_tokenizer: needs a folder"),
        (train_showo, ["tiny", "model.hidden_size=18", "model.num_attention_heads=4"], "model.hidden_size: 18"),
        (train_showo, ["tiny", "train.lr=0"], "train.lr: input should be greater than"),
        (train_showo, ["tiny", "train.nun_steps=5"], "did you mean 'num_steps'?"),
        (train_tokenizer, ["tiny", "shards=null"], "shards: needs a folder when kind is magvit2"),
        (train_tokenizer, ["tiny", "model.width=10"], "width 10 one of num_groups 4"),
        (train_tokenizer, ["tiny", "kind=autoencoder_kl", "autoencoder.channels=[8,12]"], "of num_groups 8"),
        (train_tokenizer, ["tiny", "kind=autoencoder_kl", "autoencoder.kl=-1"], "autoencoder.kl: "),
        (make_diffusion, ["tiny", "vae=nowhere"], "nowhere"),
        (make_diffusion, ["tiny", "vae=ckpts/tiny/sd/unet"], "no AutoencoderKL"),
        (make_diffusion, ["tiny", "model.channels=[8,8,8,8,8,8]"], "model.channels: 6 levels"),
        (make_diffusion, ["tiny", "model.text_heads=3"], "model.text_width: [16]"),
        (make_shapes, ["tiny", "task_weights=[1, 0]"], "task_weights: needs 6 numbers"),
        (make_shapes, ["tiny", "tokenizer=null", "with_images=false"], "captions only"),
        (make_prompts, ["geneval", "num_prompts=-1"], "num_prompts: input should be gr"),
        (make_prompts, ["shapes_test", "num_prompts=0"], "num_prompts: must be at least 1 "),
        (make_prompts, ["geneval", "source=shapes"], "source: "),
        (make_prompts, ["geneval", "repeat=true"], "repeat: GenEval"),
        (make_prompts, ["geneval", "seeds=3"], "seeds: unknown key"),
        (make_prompts, ["genval"], "preset 'genval' of job 'make_prompts'"),
        (train_judge, ["tiny", "data.scenes.shards=nowhere"], "data.scenes.shards: nowhere"),
        (train_judge, ["tiny", "data.more.weight=2"], "data.more: needs"),
        (train_judge, ["tiny", "data.more.conversations=x.json"], "data.more: conversations need"),
        (train_judge, ["tiny", "batch.scenes=0"], "batch: groups, scenes and"),
        (train_judge, ["tiny", "model.text_heads=5"], "model.text_size: 16 "),
        (train_judge, ["tiny", "start=shapes/showo"], "another family"),
        (train_judge, ["tiny", "batch.groups=2"], "batch.groups: 2 "),
        (train_judge, ["tiny", "batch.conversations=2"], "batch.conversations: 2 "),
        (train_judge, ["tiny", "model.image_size=20"], "loss.cells: images of data.scenes have 6 x 6"),
        (train_judge, ["tiny", "model.patch_size=25"], "model.patch_size: 25 "),
        (train_judge, ["tiny", "lora.rank=2", "lora.targets=[q_pro]"], "lora.targets: no layer is called 'q_pro'; did"),
        (
            train_judge,
            ["tiny", "lora.rank=2", "lora.targets=[out_proj]"],
            "lora.targets: no layer is called 'out_proj'",
        ),
        (train_judge, ["tiny", "saved_dtype=float16"], "saved_dtype: input should be 'float32'"),
        (train_judge, ["tiny", "train.batch_size=4"], "train.batch_size: unknown key"),
        (train_judge, ["tiny", "loss.sceens=1"], "did you mean 'scenes'?"),
    ],
)
def test_bad_words_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], job: ModuleType, words: list[str], message: str
) -> None:
    assert message in refusal(job, [*words, f"out={tmp_path / 'run'}"], tmp_path, capsys)


JOBS = sorted(file.stem for file in (ROOT / "jobs").glob("[a-z]*.py"))
DEVICES = [
    (job, key)
    for job in JOBS
    for key, _ in marked(load_config(import_job(job).Config, ROOT / f"configs/{job}/tiny.yaml"), DEVICE)
]


@pytest.mark.parametrize(("job", "key"), DEVICES)
def test_a_gpu_is_asked_for_in_vain_before_anything_is_written(tmp_path, capsys, job: str, key: str) -> None:
    told = refusal(import_job(job), ["tiny", f"{key}=cuda", f"out={tmp_path / 'run'}"], tmp_path, capsys)
    assert told.startswith(f"genloop: {key}: ")


def test_every_job_with_a_model_says_where_it_runs() -> None:
    assert len({job for job, _ in DEVICES}) > len(JOBS) / 2


def test_shards_that_cannot_be_trained_on_are_refused_with_their_sample(tmp_path, capsys):
    stream = io.BytesIO()
    np.save(stream, np.full(36, 0.5))
    write_shard(tmp_path / "shards/0.tar", [Sample("7", {"txt": b"a dog", "codes.npy": stream.getvalue()})])
    for job, what in ((train_showo, "codes.npy: of type float64"), (train_tokenizer, "needs png")):
        told = refusal(job, ["tiny", f"shards={tmp_path / 'shards'}", f"out={tmp_path / 'run'}"], tmp_path, capsys)
        assert f"{tmp_path}/shards/0.tar: sample 7" in told and what in told
