"""Questions of any wording: what LLaVA and a server answer, that answers are kept, that others are refused."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genloop.data.images import to_uint8
from genloop.models.llava.load import load_llava
from genloop.models.llava.model import embed_tokens, image_features
from genloop.models.llava.pixels import pad_tile
from genloop.models.llava.text import LlavaTokenizer
from genloop.rewards.build import build_judge, check_asker
from genloop.rewards.cache import CachedJudge, ScoreStore
from genloop.rewards.llava.judge import LlavaJudge
from genloop.rewards.questions import Questions, spellings
from genloop.rewards.remote.judge import probability_of_answer
from genloop.rewards.settings import JudgeSettings
from tests.worlds.chat_server import MODEL, brightness, looking_server, pictures
from tests.worlds.tiny_llava import first_token_logits, known_words, some_images, some_prompts, tiny_folder

TEXTS = [f"Does this {word} ?" for word in ("image", "potential", "prompt")]
WORDS = [*known_words(), "two", "Two", "2", "four", "circles", "Does", "this", "?", "Yes"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llava") / "judge", words=WORDS)


def judge_of(folder: Path, probability: str = "raw", wording: str | None = None) -> LlavaJudge:
    torch.set_num_threads(1)
    questions = Questions() if wording is None else Questions({"outcome": wording})
    return LlavaJudge(load_llava(folder), LlavaTokenizer(folder), questions, probability=probability)


def next_shares(judge: LlavaJudge, text: str, image: Tensor, answered: str = "") -> Tensor:
    """(V,): the whole chat in one pass."""
    before, behind = judge.questions.free_pieces(text)
    ids = judge.tokenizer.encode(behind) + judge.tokenizer.encode(answered)
    parts = [embed_tokens(judge.model, torch.tensor(tokens)) for tokens in (judge.tokenizer.encode(before), ids)]
    seen = image_features(judge.model, pad_tile(to_uint8(image[None])[0], 26)[None])[0]
    row = torch.cat([parts[0], seen, parts[1]])
    return first_token_logits(judge.model, row[None], torch.tensor([len(row)]))[
        0, : judge.tokenizer.num_tokens
    ].softmax(0)


def of(judge: LlavaJudge, shares: Tensor, *words: str) -> float:
    return sum(float(shares.detach()[judge.tokenizer.word_id(word)]) for word in words)


def test_an_answer_has_the_probability_of_all_its_spellings(folder):
    judge, images = judge_of(folder), some_images(3)
    shares = [next_shares(judge, text, image) for text, image in zip(TEXTS, images)]
    found = judge.p_answer_to(TEXTS, ["two", "Four", "yes"], images)
    expected = [
        of(judge, shares[0], "two", "Two", "2"),
        of(judge, shares[1], "four"),
        of(judge, shares[2], "yes", "Yes"),
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert judge.p_yes_to(TEXTS, images).tolist() == pytest.approx(
        [of(judge, s, "yes", "Yes") for s in shares], rel=1e-4
    )


def test_an_answer_of_two_tokens_has_the_product_of_theirs(folder):
    judge, (image,) = judge_of(folder), some_images(1)
    first, second = next_shares(judge, TEXTS[0], image), next_shares(judge, TEXTS[0], image, "two")
    third = next_shares(judge, TEXTS[0], image, "Two")
    expected = of(judge, first, "two") * of(judge, second, "circles") + of(judge, first, "Two") * of(
        judge, third, "circles"
    )
    assert judge.p_answer_to(TEXTS[:1], ["two circles"], image[None]).item() == pytest.approx(expected, rel=1e-4)


def test_two_way_is_yes_against_no(folder):
    images = some_images(3)
    yes, no = (judge_of(folder).p_answer_to(TEXTS, [word] * 3, images) for word in ("yes", "no"))
    assert judge_of(folder, "two_way").p_yes_to(TEXTS, images).tolist() == pytest.approx((yes / (yes + no)).tolist())


def test_a_free_question_in_the_words_of_a_known_one_has_its_answer(folder):
    prompts, images = some_prompts()[:3], some_images(3)
    known = judge_of(folder, "two_way", "<image>\nDoes this {prompt} ?").p_yes("outcome", prompts, images)
    texts = [f"Does this {prompt.text} ?" for prompt in prompts]
    free = judge_of(folder, "two_way").p_answer_to(texts, ["no"] * 3, images)
    shares = [next_shares(judge_of(folder), text, image) for text, image in zip(texts, images)]
    judge = judge_of(folder)
    assert known.tolist() == pytest.approx([of(judge, s, "yes") / of(judge, s, "yes", "no") for s in shares], rel=1e-4)
    assert free.tolist() == pytest.approx([of(judge, s, "no") for s in shares], rel=1e-4)


def test_answers_do_not_depend_on_the_questions_beside_them(folder):
    images = some_images(5)
    texts = list(itertools.islice(itertools.cycle(TEXTS), 5))
    answers = ["two", "four", "two circles", "yes", "no"]
    together = judge_of(folder).p_answer_to(texts, answers, images).tolist()
    alone = [judge_of(folder).p_answer_to([t], [a], i[None]).item() for t, a, i in zip(texts, answers, images)]
    assert together == alone


def test_words_that_the_tokenizer_does_not_know_are_refused(folder):
    with pytest.raises(ValueError, match="does not know: 'zebra'"):
        judge_of(folder).p_yes_to(["Does this zebra ?"], some_images(1))
    with pytest.raises(ValueError, match=r"token .*'zebra'"):
        judge_of(folder).p_answer_to(TEXTS[:1], ["zebra"], some_images(1))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("Yes", ("yes", "Yes")),
        (" four ", ("four", "Four", "4")),
        ("ten", ("ten", "Ten", "10")),
        ("a cat", ("a cat", "A cat")),
    ],
)
def test_spellings_of_an_answer(answer, words):
    assert spellings(answer) == words
    with pytest.raises(ValueError, match="must not be empty"):
        spellings(" ")


def test_a_server_answers_free_questions(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    images = some_images(3)
    bright = [brightness(image) for image in to_uint8(images)]
    with looking_server() as server:
        options = {"url": server.url, "model": MODEL, "pause": 0.01, "patience": 1.0}
        settings = JudgeSettings(kind="remote", options=options)
        check_asker(settings, Path)
        judge = build_judge(settings, Path)
        assert judge.p_yes_to(TEXTS, images).tolist() == pytest.approx(bright, abs=1e-6)
        found = judge.p_answer_to(TEXTS, ["yes", "well", "four"], images).tolist()
        assert found == pytest.approx([0.9 * bright[0], 0.1, 0.0], abs=1e-6)
        server.moods.append("no logprobs")
        assert math.isnan(judge.p_answer_to(TEXTS[:1], ["yes"], images[:1]).item())
        (message,) = server.requests[0]["messages"]
        assert [part["type"] for part in message["content"]] == ["image_url", "text"]
        assert message["content"][1]["text"] in TEXTS and len(pictures(server.requests[0])) == 1


def test_the_shares_of_all_spellings_of_an_answer_are_added():
    alternatives = [("four", math.log(0.5)), (" Four", math.log(0.2)), ("4", math.log(0.1)), ("five", math.log(0.1))]
    assert probability_of_answer(alternatives, "Four") == pytest.approx(0.8)
    assert probability_of_answer(alternatives, "six") == 0


class Counting:
    """A judge whose answers are the lengths of questions and answers; counts what it is asked."""

    def __init__(self) -> None:
        self.num_asked = 0

    def p_yes_to(self, texts, images):
        self.num_asked += len(texts)
        return torch.tensor([1 / len(text) for text in texts])

    def p_answer_to(self, texts, answers, images):
        self.num_asked += len(texts)
        return torch.tensor([1 / (len(text) + len(answer)) for text, answer in zip(texts, answers)])


def test_free_answers_are_kept_by_question_answer_and_pixels(tmp_path):
    inner, images = Counting(), some_images(3)
    judge = CachedJudge(inner, ScoreStore(tmp_path), "mark")
    first = judge.p_yes_to(TEXTS, images), judge.p_answer_to(TEXTS, ["a", "b", "b"], images)
    assert inner.num_asked == 6
    again = CachedJudge(inner, ScoreStore(tmp_path), "mark")
    assert all(
        a.equal(b)
        for a, b in zip(first, (again.p_yes_to(TEXTS, images), again.p_answer_to(TEXTS, list("abb"), images)))
    )
    assert inner.num_asked == 6
    again.p_answer_to(TEXTS, ["b", "b", "b"], images)
    again.p_yes_to(TEXTS, images.flip(0))
    assert inner.num_asked == 6 + 1 + 2  # the middle image stayed where it was


def test_judges_that_only_know_their_own_questions_are_refused():
    with pytest.raises(ValueError, match="'shapes_oracle' does not take questions"):
        check_asker(JudgeSettings(kind="shapes_oracle"), Path)
