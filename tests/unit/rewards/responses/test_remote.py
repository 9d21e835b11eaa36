"""A server that writes verdicts: what it is sent, and what a silent one comes to."""

from pathlib import Path

import numpy as np
import pytest

from genloop.records import Writing
from genloop.rewards.remote.client import ServerFailed
from genloop.rewards.responses.settings import ResponseJudgeSettings
from tests.worlds.chat_server import MODEL, looking_server, pictures

IMAGES = [np.full((6, 8, 3), 100, dtype=np.uint8), np.full((6, 8, 3), 50, dtype=np.uint8)]


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with looking_server() as running:
        yield running


def writer(server, **options):
    quick = {"url": server.url, "model": MODEL, "pause": 0.01, "patience": 0.3, "timeout": 5.0}
    settings = ResponseJudgeSettings.model_validate({"kind": "remote", "options": quick | options})
    settings.check(Path)
    return settings.maker.load(settings.options, Path, "cpu")


def test_each_question_travels_with_its_image_its_seed_and_how_it_is_drawn(server):
    written = writer(server).write(["one", "two"], IMAGES, [7, 1 << 40], Writing(0.2, 0.3, 40))
    assert all(text is not None and "dark" in text for text in written)
    sent = sorted(server.requests, key=lambda body: body["messages"][0]["content"][1]["text"])
    assert [(body["seed"], body["temperature"], body["top_p"], body["max_tokens"]) for body in sent] == [
        (7, 0.2, 0.3, 40),
        ((1 << 40) % (1 << 31), 0.2, 0.3, 40),
    ]
    for body, image in zip(sent, IMAGES):
        assert np.array_equal(pictures(body)[0], image)


def test_a_question_without_an_answer_is_none_or_ends_the_run(server):
    server.moods = [400]
    assert writer(server, concurrency=1).write(["one", "two"], IMAGES, [1, 2], Writing(0.2, 0.3, 40))[0] is None
    server.moods = [400]
    with pytest.raises(ServerFailed):
        writer(server, concurrency=1, on_failure="error").write(["one"], IMAGES[:1], [1], Writing())
