"""The remote judge against a real server on this machine: what it sends, what it reads, how it bears a bad server."""

import json
import logging
import math
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
import torch

from genloop.data.images import to_uint8
from genloop.distributed import StopRequested, World
from genloop.records import Prompt
from genloop.registry import MissingPackage
from genloop.rewards.build import build_judge, check_judge
from genloop.rewards.questions import RELEASED, Questions
from genloop.rewards.remote.client import ChatServer, ClientConfig, ServerFailed, ServerRefused
from genloop.rewards.remote.judge import chat_messages, probability_of_yes
from genloop.rewards.settings import JudgeSettings
from tests.worlds.chat_server import MODEL, brightness, looking_server, pictures


def completion_bytes(**entry):
    alternatives = [{"token": "yes", **entry}]
    return json.dumps({"choices": [{"logprobs": {"content": [{"top_logprobs": alternatives}]}}]}).encode()


PROMPTS = [Prompt(index, f"a photo of {index} dogs") for index in range(6)]
IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 1, 6).view(6, 1, 1, 1)
IN_AN_HOUR = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
HUGE = completion_bytes(logprob=10**400)
EXPECTED = [brightness(image) for image in to_uint8(IMAGES)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with looking_server() as running:
        yield running


def settings(server, **options):
    quick = {"url": server.url, "model": MODEL, "pause": 0.01, "patience": 1.0, "timeout": 5.0}
    return JudgeSettings(kind="remote", options=quick | options)


def judge(server, **options):
    return build_judge(settings(server, **options), Path)


def ask(server, num_images=1, **options):
    return judge(server, **options).p_yes("outcome", PROMPTS[:num_images], IMAGES[:num_images]).tolist()


def test_p_yes_comes_from_the_image_and_all_spellings_of_yes_and_no(server):
    assert ask(server, 6) == pytest.approx(EXPECTED, abs=1e-6)
    assert ask(server, 6, probability="raw") == pytest.approx([0.9 * b for b in EXPECTED], abs=1e-6)
    assert ask(server, 6, top_logprobs=4) == pytest.approx([0.9 * b / (0.2 * b + 0.7) for b in EXPECTED], abs=1e-6)


def test_a_request_holds_the_image_the_question_and_one_token(server):
    ask(server, extra={"chat_template_kwargs": {"enable_thinking": False}})
    (body,) = server.requests
    (image,) = pictures(body)
    assert (image == to_uint8(IMAGES[:1])[0]).all()
    (message,) = body.pop("messages")
    assert [part["type"] for part in message["content"]] == ["image_url", "text"]
    asked = RELEASED["outcome"].replace("<image> ", "").replace("{prompt}", PROMPTS[0].text)
    assert message["content"][1]["text"] == asked
    assert body == {
        "model": MODEL,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 20,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_the_potential_is_a_second_turn_behind_a_clear_image():
    turns = chat_messages(Questions(), "potential", "two dogs", ["uri"])
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
    assert turns[0] == chat_messages(Questions(), "clarity", "two dogs", ["uri"])[0]
    assert "two dogs" in turns[0]["content"][1]["text"] and turns[1]["content"] == "yes"
    assert turns[2]["content"] == RELEASED["potential"]


def test_a_judge_without_a_question_lacks_the_method(server, tmp_path):
    released = judge(server)
    assert not hasattr(released, "p_first") and not hasattr(released, "reasons")
    file = tmp_path / "questions.yaml"
    file.write_text('outcome: "<image> {prompt}?"\nreason: "<image> Why not {prompt}?"\n')
    for cache in (None, tmp_path / "scores"):
        ours = settings(server, questions=str(file)).model_copy(update={"cache": cache})
        asking = build_judge(ours, Path)
        assert hasattr(asking, "reasons") and not hasattr(asking, "p_first")


def test_a_questions_file_words_and_names_what_is_asked(server, tmp_path):
    file = tmp_path / "questions.yaml"
    file.write_text(
        'outcome: "<image> Is it {prompt}?"\ncompare: "First <image> then <image>: is the first more like {prompt}?"\n'
        'reason: "<image> Why is it not {prompt}?"\n'
    )
    ours = settings(server, questions=str(file))
    check_judge(ours, Path, ("outcome", "compare", "reason"))
    with pytest.raises(ValueError, match=f"not clarity; .*{file}"):
        check_judge(ours, Path, ("outcome", "clarity"))
    asking = build_judge(ours, Path)
    asking.p_yes("outcome", PROMPTS[:1], IMAGES[:1])
    assert server.requests[0]["messages"][0]["content"][1]["text"] == "Is it a photo of 0 dogs?"
    with pytest.raises(ValueError, match="no question 'clarity'"):
        asking.p_yes("clarity", PROMPTS[:1], IMAGES[:1])
    forth = asking.p_first(PROMPTS, IMAGES, IMAGES.flip(0))
    assert forth.tolist() == pytest.approx([0.5 + (b - a) / 2 for a, b in zip(EXPECTED, EXPECTED[::-1])], abs=1e-6)
    assert torch.allclose(asking.p_first(PROMPTS, IMAGES.flip(0), IMAGES), 1 - forth)
    assert asking.reasons(PROMPTS[:1], torch.cat([IMAGES[:1], torch.ones(1, 3, 8, 8)])[[0]]) == ["too dark"]
    assert asking.reasons(PROMPTS[:1], torch.ones(1, 3, 8, 8)) == [""]


def test_a_reason_that_a_server_would_not_give_is_none_and_asked_for_again(server, tmp_path):
    file = tmp_path / "questions.yaml"
    file.write_text('outcome: "<image> {prompt}?"\nreason: "<image> Why is it not {prompt}?"\n')
    ours = settings(server, questions=str(file), concurrency=1).model_copy(update={"cache": tmp_path / "cache"})
    asking, dark = build_judge(ours, Path), torch.full((1, 3, 8, 8), 0.1)
    for outcome, reason in ((400, []), (None, [400])):  # no outcome: no reason is asked for
        server.moods = [outcome, *reason]
        assert asking.reasons(PROMPTS[:1], dark) == [None]
    assert asking.reasons(PROMPTS[:1], dark) == asking.reasons(PROMPTS[:1], dark) == ["too dark"]
    assert len(server.requests) == 1 + 2 + 2


@pytest.mark.parametrize("mood", [500, 503, 429, "drop", "garbage"])
def test_what_may_pass_is_tried_again(server, mood, caplog):
    server.moods = [mood] * 3
    assert ask(server) == pytest.approx(EXPECTED[:1], abs=1e-6)
    assert len(server.requests) == 4 and caplog.text == ""


def test_pauses_grow_and_retry_after_is_kept(server):
    server.moods = [500, 500, (429, {"Retry_After": "0.3"}), (503, {"Retry_After": "?"})]
    ask(server, pause=0.02, patience=30.0)
    waits = [after - before for before, after in zip(server.times, server.times[1:])]
    assert waits[0] >= 0.01 and waits[1] >= 0.02 and waits[2] >= 0.3 and len(waits) == 4


def test_a_server_that_hangs_is_given_up_after_its_patience(server, caplog):
    server.moods = ["hang"] * 100
    assert math.isnan(ask(server, timeout=0.1, patience=1.0)[0])
    assert len(server.requests) >= 2
    assert "1 of 1 images were not judged" in caplog.text and "timed out; gave up after" in caplog.text


def test_a_server_that_sends_a_byte_now_and_then_is_stopped_at_the_deadline_of_a_request(server, caplog):
    server.moods = ["drip"]
    assert ask(server, timeout=0.5, patience=5.0) == pytest.approx(EXPECTED[:1], abs=1e-6)
    assert len(server.requests) == 2 and caplog.text == ""
    server.moods = ["drip"] * 9
    assert math.isnan(ask(server, timeout=0.2, patience=0.3)[0]) and "timed out; gave up after" in caplog.text


def test_a_server_that_never_comes_to_an_answer_is_stopped_at_the_deadline(server, caplog):
    server.moods = ["continue"] * 100
    assert math.isnan(ask(server, timeout=0.2, patience=0.3)[0]) and "timed out; gave up after" in caplog.text


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_request_is_not_sent_on_to_another_address(server, monkeypatch, status):
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with looking_server() as other:
        server.moods = [(status, {"Location": f"{other.url}/chat/completions"})]
        with pytest.raises(ServerRefused, match=rf"HTTP {status} .*{other.url}") as caught:
            ask(server, api_key_env="JUDGE_KEY")
        assert caught.value.exit_code and "secret" not in str(caught.value)
        server.moved_to = f"{other.url}/models"
        with pytest.raises(ValueError, match=rf"judge\.options\.url: .*HTTP 307 .*{other.url}"):
            check_judge(settings(server, api_key_env="JUDGE_KEY"), Path)
        assert other.times == [] and len(server.times) == 1


@pytest.mark.parametrize("mood", ["hang", "flood", 503])
def test_a_stop_ends_the_wait_for_an_answer(server, mood, monkeypatch):
    monkeypatch.setattr("genloop.rewards.remote.client._MAX_ANSWER", 1 << 40)
    server.moods = [mood] * 100
    world = World()
    with world.stop_signals():
        asking = threading.Timer(0.3, signal.raise_signal, (signal.SIGTERM,))
        asking.start()
        with pytest.raises(StopRequested):
            ask(server, 2, timeout=30.0, patience=60.0, pause=10.0)
        with pytest.raises(StopRequested):  # asked before
            ask(server)
    asking.join()
    assert world.stop_requested()
    server.moods = []
    assert ask(server) == pytest.approx(EXPECTED[:1], abs=1e-6)


def test_no_limit_takes_any_share_of_yes_and_no(server):
    server.moods = ["evasive"]
    assert ask(server, min_yes_no=0) == pytest.approx([0.75], abs=1e-6)


def test_a_missing_package_is_named_with_its_extra(server, monkeypatch):
    monkeypatch.setattr("sys.modules", {key: value for key, value in sys.modules.items() if key != "openai"})
    monkeypatch.setattr("sys.path", [])
    monkeypatch.setattr("sys.path_importer_cache", {})
    with pytest.raises(MissingPackage, match=r"openai is not installed; .*\[remote\]"):
        check_judge(settings(server), Path)


@pytest.mark.parametrize("retry_after", ["3600", IN_AN_HOUR, "inf"], ids=["seconds", "date", "endless"])
def test_a_longer_retry_after_than_the_patience_is_not_waited_for(server, retry_after, caplog):
    server.moods = [(429, {"Retry_After": retry_after})]
    assert math.isnan(ask(server, patience=5.0)[0])
    assert len(server.requests) == 1 and "HTTP 429" in caplog.text


@pytest.mark.parametrize(
    ("mood", "reason"),
    [
        (400, "HTTP 400 Bad Request: told"),
        ("no logprobs", "the answer has no top_logprobs; use a server that gives log-probabilities"),
        (completion_bytes(logprob="nan"), "the answer has no top_logprobs; use a server that gives log-probabilities"),
        ("silent", "neither yes nor no among the answer's first tokens: 'Maybe', 'The'"),
        ("list", "the answer is not a JSON object"),
        ("evasive", "yes and no together have a probability of 0.004, judge.options.min_yes_no is 0.01"),
        (HUGE, "the answer is JSON that is too large to read"),
        (b'{"choices": ' + b"9" * 5000 + b"}", "the answer is JSON that is too large to read"),
        (b'{"choices": ' + b"[" * 100_000, "the answer is JSON that is too large to read"),
        (completion_bytes(token="\x1b" * 10**6, logprob=0.0), "first tokens: " + repr("\x1b" * 100)[:200]),
        ("flood", "the answer is larger than 16 MiB"),
        ("zipped", "the answer is compressed, which was not asked for"),
    ],
)
def test_an_image_without_an_answer_is_nan_with_one_reason_and_the_others_are_judged(server, mood, reason, caplog):
    server.moods = [mood]
    with caplog.at_level(logging.WARNING):
        p_yes = ask(server, 3, concurrency=1)
    assert math.isnan(p_yes[0]) and p_yes[1:] == pytest.approx(EXPECTED[1:3], abs=1e-6)
    (record,) = caplog.records
    assert record.getMessage().startswith("1 of 3 images were not judged: ") and record.getMessage().endswith(reason)


def test_an_image_without_an_answer_can_be_an_error(server):
    server.moods = [400]
    with pytest.raises(ServerFailed, match=r"1 of 2 images .* HTTP 400"):
        ask(server, 2, on_failure="error", concurrency=1)


def test_a_server_that_refuses_everything_is_an_error_at_once(server):
    server.moods = [404] * 9
    with pytest.raises(ServerRefused, match="HTTP 404"):
        ask(server, 6, concurrency=1)
    assert len(server.requests) == 1


def test_an_outage_costs_its_patience_once_not_once_an_image(server):
    server.moods = [500] * 1000
    client = ChatServer(server.url, config=ClientConfig(patience=1.0, pause=0.05, concurrency=1))
    first, *others = client.complete([{"model": MODEL, "messages": [], "seed": number} for number in range(6)])
    assert "HTTP 500" in str(first) and not str(first).endswith("attempt 1")
    assert all(str(other).endswith("HTTP 500 Internal Server Error: told; gave up after attempt 1") for other in others)


def test_a_slow_server_is_borne_as_long_as_it_answers_somebody(server):
    server.moods = [500, None, 500, None, 500, None, 500, None]
    assert ask(server, 4, concurrency=1, patience=0.5) == pytest.approx(EXPECTED[:4], abs=1e-6)


def test_requests_under_way_are_limited(server):
    server.moods = ["slow"] * 12
    asking = judge(server, concurrency=3)
    asking.p_yes("outcome", PROMPTS * 2, IMAGES.repeat(2, 1, 1, 1))
    assert 1 < server.most_running <= 3


def test_an_answer_does_not_depend_on_the_images_beside_it(server):
    together = ask(server, 6, concurrency=4)
    alone = [judge(server).p_yes("outcome", [p], i[None]).item() for p, i in zip(PROMPTS, IMAGES)]
    assert together == alone


def test_a_cached_remote_judge_asks_the_server_once(server, tmp_path):
    ours = settings(server).model_copy(update={"cache": tmp_path})
    server.moods = [400]
    first = build_judge(ours, Path).p_yes("outcome", PROMPTS, IMAGES)
    second = build_judge(ours, Path).p_yes("outcome", PROMPTS, IMAGES)
    assert len(server.requests) == 7  # the one without an answer again
    assert first.isnan().sum() == 1 and torch.equal(first[~first.isnan()], second[~first.isnan()])


def test_bad_addresses_models_and_keys_are_refused_before_anything_runs(server, monkeypatch):
    check_judge(settings(server), Path)
    with pytest.raises(ValueError, match=r"judge\.options\.model: .*'tiny/locker'; .*'tiny/looker'"):
        check_judge(settings(server, model="tiny/locker"), Path)
    with pytest.raises(ValueError, match="NO_SUCH_KEY is not set"):
        check_judge(settings(server, api_key_env="NO_SUCH_KEY"), Path)
    with looking_server(key="secret") as locked:
        with pytest.raises(ValueError, match=r"HTTP 401 .*judge\.options\.api_key_env"):
            check_judge(settings(locked), Path)
        monkeypatch.setenv("JUDGE_KEY", "secret")
        check_judge(settings(locked, api_key_env="JUDGE_KEY"), Path)
        assert ask(locked, api_key_env="JUDGE_KEY") == pytest.approx(EXPECTED[:1], abs=1e-6)
        with pytest.raises(ServerRefused, match="no such key") as caught:
            ask(locked)
        assert "secret" not in str(caught.value)
    with pytest.raises(ValueError, match=r"judge\.options\.url: .*refused"):
        check_judge(settings(locked), Path)


def test_probabilities_of_odd_answers():
    assert probability_of_yes([("▁Yes", 0.0)], "two_way") == 1.0
    assert probability_of_yes([("ĠNO", -0.1), ("Ċ", -3.0)], "raw") == 0.0
    assert probability_of_yes([("yes", 1e-4)], "raw") == 1.0
    for pairs in ([], [("yes", math.nan)], [("yesterday", -0.1), ("not", -0.1)], [("no", -math.inf)]):
        with pytest.raises(ServerFailed, match="neither yes nor no"):
            probability_of_yes(pairs, "two_way")
