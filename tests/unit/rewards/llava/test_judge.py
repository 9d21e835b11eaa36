"""LLaVA-OneVision as a judge: probabilities, what questions share, rows that do not see each other, bad input."""

import gc
import itertools
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from genloop.data.images import to_uint8
from genloop.models.llava.config import LlavaConfig
from genloop.models.llava.flops import head_flops, image_flops, text_flops
from genloop.models.llava.load import load_llava
from genloop.models.llava.model import embed_tokens, image_features, language_hidden
from genloop.models.llava.pixels import pad_tile
from genloop.models.llava.segments import Segment
from genloop.models.llava.text import LlavaTokenizer
from genloop.records import Prompt
from genloop.rewards.llava.judge import LlavaJudge
from genloop.rewards.questions import RELEASED, Chat, Questions
from tests.processes import Worker
from tests.worlds.tiny_llava import first_token_logits, some_images, some_prompts, tiny_dims, tiny_folder, tiny_llava

QUESTIONS = Questions({**RELEASED, "compare": "<image> <image> {prompt} first ?", "reason": "<image> {prompt} no ?"})
PARM = ("clarity", "potential", "outcome")
NUM = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llava") / "judge")


def judge_of(folder: Path, **options: Any) -> LlavaJudge:
    torch.set_num_threads(1)
    return LlavaJudge(load_llava(folder), LlavaTokenizer(folder), options.pop("questions", QUESTIONS), **options)


def prompts_of(count: int = NUM) -> list[Prompt]:
    return list(itertools.islice(itertools.cycle(some_prompts()), count))


def logits_at_once(judge: LlavaJudge, question: str, prompts: Sequence[Prompt], images: Tensor) -> Tensor:
    """(B, V): whole chats, one at a time, in one pass each."""
    rows = []
    for prompt, image in zip(prompts, to_uint8(images)):
        first, *rest = judge.questions.pieces(question, prompt.text)
        texts = [torch.tensor(judge.tokenizer.encode(t), dtype=torch.long) for t in (first, "".join(rest))]
        before, behind = (embed_tokens(judge.model, ids) for ids in texts)
        row = torch.cat([before, image_features(judge.model, pad_tile(image, 26)[None])[0], behind])
        rows.append(first_token_logits(judge.model, row[None], torch.tensor([len(row)]))[0])
    return torch.stack(rows)


@pytest.mark.parametrize("question", ["outcome", "clarity", "potential", "dpo_reward"])
@torch.inference_mode()
def test_p_yes_is_the_softmax_of_the_first_tokens_logits(question: str, folder: Path) -> None:
    judge, prompts, images = judge_of(folder), prompts_of(), some_images(NUM)
    logits = logits_at_once(judge, question, prompts, images)[:, : judge.tokenizer.num_tokens]
    raw = judge.p_yes(question, prompts, images)
    assert raw.shape == (NUM,) and raw.dtype == torch.float32
    assert (raw - logits.softmax(-1)[:, judge.yes]).abs().max() <= 1e-5
    two_way = judge_of(folder, probability="two_way").p_yes(question, prompts, images)
    pair = logits[:, [judge.yes, judge.no]].softmax(-1)[:, 0]
    assert (two_way - pair).abs().max() <= 1e-5


@pytest.mark.parametrize("seam", [" :", ""], ids=["apart", "merged"])
@torch.inference_mode()
def test_a_chat_of_few_words_may_start_with_its_image_and_merge_its_turns(seam: str, folder: Path) -> None:
    wording = {"clarity": "<image> clear {prompt}", "potential": " can it be {prompt}"}
    judge = judge_of(folder, questions=Questions(wording, Chat("", "", seam, " .")))
    prompts, images = prompts_of(), some_images(NUM)
    for question in wording:
        expected = logits_at_once(judge, question, prompts, images)[:, : judge.tokenizer.num_tokens]
        found = judge.p_yes(question, prompts, images)
        assert (found - expected.softmax(-1)[:, judge.yes]).abs().max() <= 1e-5


@torch.inference_mode()
def test_processed_answers_are_those_of_the_released_generation(folder: Path) -> None:
    judge, prompts, images = judge_of(folder), prompts_of(), some_images(NUM)
    logits = logits_at_once(judge, "outcome", prompts, images)[:, : judge.tokenizer.num_tokens]

    def kept(logits: Tensor, top_k: int, top_p: float) -> Tensor:
        values, ids = logits.sort(descending=True)
        values[:, top_k:] = -torch.inf
        ahead = values.softmax(-1).cumsum(-1) - values.softmax(-1)
        values[ahead >= top_p] = -torch.inf
        return torch.empty_like(values).scatter(1, ids, values)

    for top_k, top_p in ((50, 1.0), (20, 0.8), (1, 1.0), (100, 0.3)):
        expected = kept(logits, top_k, top_p).softmax(-1)[:, judge.yes]
        generation = {"top_k": top_k, "top_p": top_p, "temperature": 0.1, "repetition_penalty": 1.05}
        found = judge_of(folder, probability="processed", generation=generation).p_yes("outcome", prompts, images)
        assert (found - expected).abs().max() <= 1e-5
    stock = judge_of(folder, probability="processed").p_yes("outcome", prompts, images)
    assert (stock - kept(logits, 50, 1.0).softmax(-1)[:, judge.yes]).abs().max() <= 1e-5


@pytest.mark.parametrize("tiling", ["pad", "anyres"])
@pytest.mark.parametrize("question", ["outcome", "clarity", "potential"])
def test_an_answer_has_the_same_bits_alone_and_in_every_batch(question: str, tiling: Any, folder: Path) -> None:
    prompts, images = prompts_of(), some_images(NUM)
    together = judge_of(folder, tiling=tiling).p_yes(question, prompts, images)
    for row in range(NUM):
        alone = judge_of(folder, tiling=tiling).p_yes(question, prompts[row : row + 1], images[row : row + 1])
        assert torch.equal(alone, together[row : row + 1])
    small = judge_of(folder, tiling=tiling, tokens_per_forward=700, cache_bytes=0)
    order = torch.randperm(NUM, generator=torch.Generator().manual_seed(3))
    shuffled = small.p_yes(question, [prompts[row] for row in order], images[order])
    assert torch.equal(shuffled, together[order])


def test_an_answer_does_not_depend_on_what_was_asked_before(folder: Path) -> None:
    prompts, images = prompts_of(), some_images(NUM)
    fresh = {question: judge_of(folder).p_yes(question, prompts, images) for question in PARM}
    one = judge_of(folder)
    for order in itertools.permutations(PARM):
        for question in order:
            assert torch.equal(one.p_yes(question, prompts, images), fresh[question])


def test_questions_share_the_prefix_the_image_and_the_first_turn(folder: Path) -> None:
    judge, prompts, images = judge_of(folder), prompts_of(3), some_images(3)
    tiles: list[int] = []
    positions: list[int] = []
    tower, language = judge.model.model.vision_tower.encoder.layers[0], judge.model.model.language_model.layers[0]
    tower.register_forward_hook(lambda module, given, out: tiles.append(len(given[0])))
    language.register_forward_hook(lambda module, given, out: positions.append(given[0].shape[:2].numel()))
    for question in PARM:
        judge.p_yes(question, prompts, images)
    expected = 3 * 37
    for question in PARM:
        for prompt in prompts:
            *first, last = judge.questions.pieces(question, prompt.text)
            behind = judge.tokenizer.encode("".join(first[1:]))
            length = len(judge.tokenizer.encode("".join(first[1:]) + last)) - len(behind)
            expected += -(-length // 8) * 8
    prefix = len(judge.tokenizer.encode(judge.questions.pieces("outcome", "")[0]))
    assert sum(tiles) == 3
    assert sum(positions) == prefix + expected
    judge.p_yes("clarity", prompts, images)
    assert sum(positions) == prefix + expected, "the clarity turn was kept for its second turn"


def test_what_is_kept_stays_within_its_bytes(folder: Path) -> None:
    judge = judge_of(folder)
    judge.p_yes("clarity", prompts_of(), some_images(NUM))
    whole = judge._runner.cache.size
    small = judge_of(folder, cache_bytes=whole // 2)
    for _ in range(2):
        answers = small.p_yes("clarity", prompts_of(), some_images(NUM))
    assert 0 < small._runner.cache.size <= whole // 2
    assert torch.equal(answers, judge.p_yes("clarity", prompts_of(), some_images(NUM)))


def test_segments_that_leave_the_cache_are_freed_without_the_cycle_collector(folder: Path) -> None:
    judge, prompts, images = judge_of(folder, cache_bytes=0), prompts_of(3), some_images(3)
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(one, Segment) for one in gc.get_objects())
        for question in PARM:
            judge.p_yes(question, prompts, images)
        alive = sum(isinstance(one, Segment) for one in gc.get_objects()) - before
    finally:
        gc.enable()
    assert len(judge._runner.cache) == alive == 0


def test_images_that_are_written_alike_are_judged_alike(folder: Path) -> None:
    images = some_images(1)
    nudged = (to_uint8(images)[0].astype("float32") + 0.4) / 255
    judge = judge_of(folder)
    one = judge.p_yes("outcome", prompts_of(1), images)
    assert torch.equal(judge.p_yes("outcome", prompts_of(1), torch.from_numpy(nudged).permute(2, 0, 1)[None]), one)
    assert len(judge._runner.cache) == 2, "the prefix and one image"


def test_no_images_have_no_answers(folder: Path) -> None:
    assert judge_of(folder).p_yes("outcome", [], some_images(0)).shape == (0,)


def test_a_model_without_numbers_loses_those_answers_alone(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    prompts, images = prompts_of(4), some_images(4)
    expected = judge_of(folder).p_yes("outcome", prompts, images)
    for probability in ("raw", "two_way", "processed"):
        judge = judge_of(folder, probability=probability)
        with torch.no_grad():
            judge.model.model.language_model.embed_tokens.weight[judge.tokenizer.word_id("circles")] = torch.nan
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            answers = judge.p_yes("outcome", prompts, images)
        assert answers.isnan().tolist() == [False, True, False, False]
        assert caplog.messages == ["outcome: no number for 1 of 4 images: prompts 1 'two blue circles'"]
        if probability == "raw":
            assert torch.equal(answers[[0, 2, 3]], expected[[0, 2, 3]])


def test_comparing_asks_in_both_orders(folder: Path) -> None:
    judge, prompts, ones, others = judge_of(folder), prompts_of(5), some_images(5), some_images(5).flip(0)
    p = judge.p_first(prompts, ones, others)
    assert torch.allclose(judge.p_first(prompts, others, ones), 1 - p)
    assert p[2] == 0.5, "an image against itself"
    assert torch.equal(judge.p_first(prompts[:1], ones[:1], others[:1]), p[:1])


def test_reasons_are_words_where_the_answer_is_no(folder: Path) -> None:
    judge, prompts, images = judge_of(folder, probability="two_way"), prompts_of(), some_images(NUM)
    wrong = judge.p_yes("outcome", prompts, images) < 0.5
    assert 0 < wrong.sum() < NUM, "the images of this test are of both kinds"
    reasons = judge.reasons(prompts, images)
    assert [bool(reason) for reason in reasons] == wrong.tolist()
    assert all(len(reason.split()) <= 32 for reason in reasons)
    alone = [judge_of(folder, probability="two_way").reasons([p], images[i : i + 1]) for i, p in enumerate(prompts)]
    assert [reason for (reason,) in alone] == reasons


@pytest.mark.parametrize("ask", ["compare", "reason", "clarity"])
def test_a_question_without_wording_is_refused_in_one_line(ask: str, folder: Path) -> None:
    judge = judge_of(folder, questions=Questions({"outcome": RELEASED["outcome"]}, where="mine.yaml"))
    calls = {
        "compare": lambda: judge.p_first(prompts_of(1), some_images(1), some_images(1)),
        "reason": lambda: judge.reasons(prompts_of(1), some_images(1)),
        "clarity": lambda: judge.p_yes("clarity", prompts_of(1), some_images(1)),
    }
    with pytest.raises(ValueError, match=rf"^mine\.yaml: .*'{ask}' \(there are: outcome\)"):
        calls[ask]()


def test_the_counted_operations_are_those_of_the_matrix_products() -> None:
    model, config = tiny_llava(), tiny_dims()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        image_features(model, torch.zeros(1, 3, 26, 26))
    attention = 2 * 2 * 2 * 24 * 36**2  # layers, products, operations, width, pairs: the CPU's kernel is not counted
    assert image_flops(config) == counter.get_total_flops() + attention
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.lm_head(language_hidden(model, torch.zeros(1, 20, 32))[:, -1])
    attention = 2 * 2 * 2 * 32 * (20 * 21 // 2)
    assert text_flops(config, 20, 0) + head_flops(config) == counter.get_total_flops() + attention
    assert text_flops(config, 24, 0) == text_flops(config, 10, 0) + text_flops(config, 14, 10)


def test_the_public_model_takes_eleven_teraflops_for_an_outcome() -> None:
    config = LlavaConfig()
    assert image_flops(config) == pytest.approx(0.67e12, rel=0.1)
    outcome = image_flops(config) + text_flops(config, 730 + 55, 0) + head_flops(config)
    assert outcome == pytest.approx(11.0e12, rel=0.02)


def test_shared_parts_are_counted_once(folder: Path) -> None:
    judge, prompt = judge_of(folder), prompts_of(1)[0]
    config = judge.config
    lengths = [len(judge.tokenizer.encode(piece)) for piece in judge.questions.pieces("potential", prompt.text)]
    outcome = len(judge.tokenizer.encode(judge.questions.pieces("outcome", prompt.text)[1]))
    prefix, first, second = lengths
    image = image_flops(config) + text_flops(config, 37, prefix)
    clarity = text_flops(config, first, prefix + 37) + head_flops(config)
    potential = text_flops(config, second, prefix + 37 + first) + head_flops(config)
    last = text_flops(config, outcome, prefix + 37) + head_flops(config)
    assert judge.flops(["clarity"], prompt) == image + clarity
    assert judge.flops(PARM, prompt) == image + clarity + potential + last
    assert judge.flops(["potential"], prompt) == image + clarity - head_flops(config) + potential
    assert judge.flops([], prompt) == 0


def test_a_judge_that_runs_out_of_memory_goes_on_with_less(tmp_path: Path) -> None:
    wide = replace(tiny_dims(), text=replace(tiny_dims().text, intermediate_size=12288))
    folder = tiny_folder(tmp_path / "wide", config=wide)
    worker = Worker("tests.worlds.limited_judge", [str(folder)])
    said, errors = worker.communicate()
    assert worker.returncode == 0, errors
    *warnings, last = said.splitlines()
    budget = int(last.split()[1])
    assert budget < 8192 and last.endswith("equal True")
    assert warnings and all(line.startswith("out of memory with ") for line in warnings)
    assert "tokens_per_forward=" in warnings[-1] and warnings[-1].endswith(f"; going on with {budget}")
