"""The score cache: nothing is paid for twice, nothing is lost but what was being written, nothing is answered anew."""

import logging
import os
import signal
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genloop.records import Critique, Prompt
from genloop.rewards.cache import CachedJudge, ScoreStore, _line
from genloop.shapes.prompts import prompt_set
from tests.processes import Worker
from tests.worlds.counting_judges import BATCH, Brightness, ComparingBrightness, CountingOracle, images_of, judged

PROMPTS = [Prompt(index, f"a photo of {index} dogs") for index in range(6)]
IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def filled(folder: Path, num_scores: int) -> Path:
    """A folder with one segment of `num_scores` scores, number / 7 each -> the segment."""
    ScoreStore(folder).add({key(number): number / 7 for number in range(num_scores)})
    (segment,) = folder.iterdir()
    return segment


def worker(cache: Path, log: Path, *numbers: int) -> Worker:
    return Worker("tests.worlds.counting_judges", [str(cache), str(log), *map(str, numbers)])


def test_a_resumed_search_pays_only_for_what_a_killed_worker_had_in_hand(tmp_path):
    cache, log = tmp_path / "cache", tmp_path / "log"
    log.touch()
    killed, other = worker(cache, log, 0, 20, 3 * BATCH), worker(cache, log, 20, 36)
    assert (killed.wait(), other.wait()) == (-signal.SIGKILL, 0)
    in_hand = log.read_text().splitlines()
    resumed = judged(cache, log, 0, 36)
    asked = Counter(log.read_text().splitlines())
    assert len(asked) == 36
    twice = [item for item, times in asked.items() if times > 1]
    assert len(twice) == BATCH and set(twice) <= set(in_hand)  # answered, but the worker died before it wrote
    assert judged(cache, log, 0, 36) == resumed == judged(tmp_path / "empty", tmp_path / "other log", 0, 36)
    assert sum(Counter(log.read_text().splitlines()).values()) == 36 + BATCH
    assert {0.0, 1.0} == set(resumed)


@pytest.mark.parametrize("question", ["outcome", "clarity"])
def test_answers_have_the_same_bits_with_and_without_the_cache(tmp_path, question):
    plain = Brightness().p_yes(question, PROMPTS, IMAGES)
    first = CachedJudge(Brightness(), ScoreStore(tmp_path), "b").p_yes(question, PROMPTS, IMAGES)
    again = Brightness()
    second = CachedJudge(again, ScoreStore(tmp_path), "b").p_yes(question, PROMPTS, IMAGES)
    assert again.num_asked == 0
    assert torch.equal(plain, first) and torch.equal(plain, second) and second.dtype == torch.float32


def test_only_unknown_images_are_asked_for_and_each_once(tmp_path):
    judge = Brightness()
    remembering = CachedJudge(judge, ScoreStore(tmp_path), "b")
    some = remembering.p_yes("outcome", PROMPTS[:2], IMAGES[:2])
    twice = [0, 2, 2, 1, 3, 2]
    answers = remembering.p_yes("outcome", [PROMPTS[i] for i in twice], IMAGES[twice])
    assert judge.num_asked == 4
    assert torch.equal(answers, Brightness().p_yes("outcome", PROMPTS, IMAGES)[twice])
    assert torch.equal(answers[[0, 3]], some)


def test_a_key_holds_everything_that_an_answer_depends_on():
    store, judge, prompt = ScoreStore(None), Brightness(), PROMPTS[0]

    def ask(mark="b", question="outcome", asked=prompt, image=IMAGES[:1], by_metadata=False):
        before = judge.num_asked
        CachedJudge(judge, store, mark, by_metadata=by_metadata).p_yes(question, [asked], image)
        return judge.num_asked - before

    tagged = prompt_set("test", 3, 1)[0]
    bare = Prompt(99, tagged.text)
    assert [ask(), ask()] == [1, 0]
    assert [ask(mark="c"), ask(question="clarity"), ask(asked=PROMPTS[1]), ask(image=IMAGES[1:2])] == [1, 1, 1, 1]
    assert ask(image=IMAGES[:1].reshape(1, 3, 4, 16)) == 1
    assert [ask(asked=tagged), ask(asked=bare)] == [1, 0]
    assert [ask(asked=tagged, by_metadata=True), ask(asked=bare, by_metadata=True)] == [1, 1]
    assert ask(image=IMAGES[:1] + 1e-7) == 0  # the same 8-bit pixels


def test_what_could_not_be_judged_is_asked_again(tmp_path):
    judge = Brightness()
    remembering = CachedJudge(judge, ScoreStore(tmp_path), "b")
    dark = torch.cat([torch.zeros(1, 3, 8, 8), IMAGES[:1]])
    for _ in range(2):
        assert remembering.p_yes("outcome", PROMPTS[:2], dark).isnan().tolist() == [True, False]
    assert judge.num_asked == 3
    assert sum(len(file.read_bytes().splitlines()) for file in tmp_path.iterdir()) == 1


def test_a_judge_keeps_its_other_abilities():
    judge = ComparingBrightness()
    remembering = CachedJudge(judge, ScoreStore(None), "b")
    first = remembering.p_first(PROMPTS, IMAGES, IMAGES.flip(0))
    assert torch.equal(remembering.p_first(PROMPTS, IMAGES, IMAGES.flip(0)), first) and judge.num_asked == 6
    assert not torch.equal(remembering.p_first(PROMPTS, IMAGES.flip(0), IMAGES), first) and judge.num_asked == 12
    assert remembering.flops(("outcome", "clarity"), PROMPTS[0]) == 2.0
    bare = CachedJudge(Brightness(), ScoreStore(None), "b")
    assert not hasattr(bare, "p_first") and not hasattr(bare, "reasons")


def test_reasons_are_kept_also_that_there_is_none_but_not_that_nobody_knows(tmp_path):
    shades = torch.tensor([0.0, 0.1, 0.9]).reshape(3, 1, 1, 1).expand(3, 3, 8, 8)
    rows = [0, 1, 2, 1]
    asked = []
    for _ in range(3):
        judge = ComparingBrightness()
        remembering = CachedJudge(judge, ScoreStore(tmp_path), "b")
        assert remembering.reasons([PROMPTS[0]] * 4, shades[rows]) == [None, "too dark", "", "too dark"]
        assert remembering.reasons([PROMPTS[0]] * 2, shades[1:]) == ["too dark", ""]
        asked.append(judge.num_asked)
    assert asked == [3, 1, 1]
    remembering.reasons(PROMPTS[1:2], shades[1:2])  # another prompt
    assert judge.num_asked == 2


def test_every_text_comes_back_as_it_was_said(tmp_path):
    words = ["", "no star", "two\nlines\r\t", 'a "quote" \\ \x7f\x00', "ein Würfel 🎲 \u2028", "\ud83d", "3f800000"]
    ScoreStore(tmp_path).add({key(number): text for number, text in enumerate(words)} | {key(99): 1.0})
    store = ScoreStore(tmp_path)
    assert store.find([key(number) for number in range(len(words))]) == words and store.find([key(99)]) == [1.0]


@pytest.mark.parametrize("last", [0.5, "two stars, no circle"])
@pytest.mark.parametrize("num_bytes_lost", [1, 2, 9, 40, 82])
def test_a_torn_last_line_costs_one_answer(tmp_path, num_bytes_lost, last):
    ScoreStore(tmp_path).add({key(number): number / 7 for number in range(4)} | {key(4): last})
    (segment,) = tmp_path.iterdir()
    segment.write_bytes(segment.read_bytes()[:-num_bytes_lost])
    found = ScoreStore(tmp_path).find([key(number) for number in range(5)])
    assert found[4] is None and None not in found[:4]


def test_damaged_lines_are_ignored_and_named_once(tmp_path, caplog):
    segment = filled(tmp_path, 5)
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b" 3", b" 4", 1)  # another value: the checksum does not fit
    lines[3] = b"\x00" * 30 + b"\n"
    store = ScoreStore(tmp_path / "reasons")
    store.add({key(5): "no star"})
    (said,) = (tmp_path / "reasons").iterdir()
    lines += [said.read_bytes(), said.read_bytes().replace(b"star", b"moon")]
    segment.write_bytes(b"".join(lines))
    with caplog.at_level(logging.WARNING):
        store = ScoreStore(tmp_path, refresh_seconds=0)
        found = store.find([key(number) for number in range(6)])
    assert [score is None for score in found] == [False, True, False, True, False, False] and found[5] == "no star"
    assert [record.getMessage() for record in caplog.records] == [
        f"score cache: 3 damaged lines in {segment} are ignored"
    ]


def test_floats_are_kept_exactly(tmp_path):
    numbers = torch.rand(200, generator=torch.Generator().manual_seed(1)) ** 20
    values = [*numbers.tolist(), 0.0, 1.0, struct.unpack(">f", b"\x00\x00\x00\x01")[0]]
    ScoreStore(tmp_path).add({key(number): value for number, value in enumerate(values)})
    assert ScoreStore(tmp_path).find([key(number) for number in range(len(values))]) == values


def test_workers_see_what_others_add(tmp_path):
    left, right = ScoreStore(tmp_path, refresh_seconds=0), ScoreStore(tmp_path, refresh_seconds=0)
    left.add({key(1): 0.25})
    assert right.find([key(1)]) == [0.25]
    right.add({key(2): 0.5})
    left.add({key(3): 0.75})
    assert left.find([key(2), key(4)]) == [0.5, None]
    assert right.find([key(3)]) == [0.75]


def test_a_forked_process_writes_a_segment_of_its_own(tmp_path):
    store = ScoreStore(tmp_path)
    store.add({key(1): 0.25})
    child = os.fork()
    if child == 0:
        store.add({key(2): 0.5})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    store.add({key(3): 0.75})
    assert len(list(tmp_path.iterdir())) == 2
    assert ScoreStore(tmp_path).find([key(1), key(2), key(3)]) == [0.25, 0.5, 0.75]


def test_the_least_recently_used_scores_leave_memory_first(caplog):
    store = ScoreStore(None, capacity=3)
    store.add({key(number): 0.5 for number in range(3)})
    store.find([key(0)])
    store.add({key(3): 0.5})
    assert [score is None for score in store.find([key(number) for number in range(4)])] == [False, True, False, False]
    assert "more than 3 scores" in caplog.text


def test_segments_that_cannot_be_read_are_passed_over_and_named_once(tmp_path, caplog):
    filled(tmp_path, 3)
    (tmp_path / "folder.scores").mkdir()
    (tmp_path / "dangling.scores").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe.scores")
    store = ScoreStore(tmp_path, refresh_seconds=0)
    for _ in range(2):
        assert store.find([key(1), key(9)]) == [pytest.approx(1 / 7), None]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 3 and all("passed over" in line for line in told)


@pytest.mark.parametrize("value", [-5.0, 1.5, float("inf"), -float("inf"), float("nan")])
def test_answers_that_are_no_probabilities_are_neither_kept_nor_used(tmp_path, caplog, value):
    (tmp_path / "theirs.scores").write_bytes(_line(key(1), value))
    assert ScoreStore(tmp_path).find([key(1)]) == [None] and "1 damaged lines" in caplog.text
    ScoreStore(tmp_path / "own").add({key(1): value})
    assert not list((tmp_path / "own").iterdir())


def test_a_cache_that_cannot_be_written_or_read_costs_itself_only(tmp_path, caplog):
    prompts = prompt_set("test", 3, 2)
    judge = CountingOracle(tmp_path / "log")
    remembering = CachedJudge(judge, ScoreStore(tmp_path / "cache", refresh_seconds=0), "oracle")
    (tmp_path / "cache").rmdir()
    for _ in range(2):
        assert remembering.p_yes("outcome", prompts, images_of(prompts)).tolist() == [1.0] * len(prompts)
    assert judge.num_asked == len(prompts)
    assert caplog.text.count("going on without") == 2  # once for reading, once for writing


class Criticising(Brightness):
    """Finds dark images dark, and cannot say anything about black ones."""

    def critiques(self, prompts, images):
        self.num_asked += len(prompts)
        means = images.mean((1, 2, 3)).tolist()
        issue = [{"issue": "underexposed", "severity": 1 / 3, "evidence": []}]
        return [
            Critique({"brightness": mean}, "dark", issue, [], f"{prompt.text} \u00e9", [] if mean else ["black"])
            for prompt, mean in zip(prompts, means)
        ]


def test_critiques_are_kept_as_they_were_unless_they_had_problems(tmp_path):
    images = torch.tensor([0.0, 0.25, 0.5])[:, None, None, None].expand(3, 3, 8, 8)
    first = CachedJudge(Criticising(), ScoreStore(tmp_path), "c").critiques(PROMPTS[:3], images)
    again = Criticising()
    second = CachedJudge(again, ScoreStore(tmp_path), "c").critiques(PROMPTS[:3], images)
    assert second == first == Criticising().critiques(PROMPTS[:3], images)
    assert again.num_asked == 1
    refined = [replace(prompt, detailed_caption="a dark photo") for prompt in PROMPTS[1:3]]
    CachedJudge(again, ScoreStore(tmp_path), "c").critiques(refined, images[1:])
    assert again.num_asked == 3
    assert not hasattr(CachedJudge(Brightness(), ScoreStore(None), "b"), "critiques")
