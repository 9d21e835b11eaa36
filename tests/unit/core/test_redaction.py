"""Keys, tokens and passwords are in no file that a run writes, in nothing that it prints, and in no fingerprint."""

import importlib
import json
from pathlib import Path

import pytest

from genloop.config import ConfigError, computing_keys, load_config
from genloop.distributed import World
from genloop.failures import record_failure
from genloop.redaction import REDACTED, redact, redact_text, redact_word
from genloop.runs.provenance import regime_of
from jobs import generate
from launch.record import Launch, read_launch, write_launch
from tests.runs import genloop
from tests.worlds.chat_server import MODEL, looking_server

SECRET = "pa55-w0rd-of-nobody"
EXTRA = f"judge.options.extra={{api_key: {SECRET}, token: {SECRET}, headers: {{X-User: {SECRET}}}, user: bob}}"


def test_no_file_of_a_run_or_a_report_and_no_output_holds_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    run, verdicts = tmp_path / "run", tmp_path / "verdicts"
    search = ["limit=2", "images_per_prompt=1", "sampling.steps=2", "search.strategy=best_of_n", "search.n=2"]
    with looking_server() as server:
        url = server.url.replace("://", f"://bob:{SECRET}@")
        asked = ["judge.kind=remote", f"judge.options.url={url}", f"judge.options.model={MODEL}", EXTRA]
        said = [genloop("run", "generate", "tiny", f"out={run}", *search, *asked)]
        assert {request["api_key"] for request in server.requests} == {SECRET}  # which it does need
        said.append(genloop("run", "generate", "tiny", f"out={run}", *search, *asked, "sampling.steps=3"))  # refused
    said.append(
        genloop("run", "evaluate", "tiny", f"images={run}", f"out={verdicts}", "limit=1", "expect.on_missing=report")
    )
    said.append(genloop("report", str(verdicts), "--out", str(tmp_path / "report")))
    assert [done.returncode for done in said] == [0, 2, 0, 0], said
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert not [done for done in said if SECRET in done.stdout + done.stderr]
    for name in ("config.yaml", "run.json", "env.json", "images/00000/samples/0000.png"):
        assert REDACTED.encode() in (run / name).read_bytes(), name
    assert b"bob" in (run / "run.json").read_bytes()  # what is no secret stays


def test_a_config_without_its_secrets_is_not_run_again_by_mistake(tmp_path):
    with pytest.raises(ConfigError, match=r"^judge\.options\.url: a secret was taken out"):
        words = ["judge.kind=remote", f"judge.options.url=http://{REDACTED}@host/v1", "judge.options.model=m"]
        load_config(generate.Config, None, [f"out={tmp_path}", "prompts=p", *words])


def keys_of(tmp_path, secret):
    words = ["judge.kind=remote", "judge.options.url=http://h/v1", "judge.options.model=m"]
    extra = f"judge.options.extra={{api_key: {secret}, n: 1}}"
    return computing_keys(load_config(generate.Config, None, [f"out={tmp_path}", "prompts=p", *words, extra]))


def test_a_secret_decides_nothing(tmp_path):
    assert keys_of(tmp_path, "a") == keys_of(tmp_path, "b")
    assert keys_of(tmp_path, "a")["judge.options.extra"] == {"api_key": REDACTED, "n": 1}
    assert SECRET not in json.dumps(regime_of({"keys": keys_of(tmp_path, SECRET)}))


def test_failures_and_starts_are_written_down_without_secrets(tmp_path):
    record_failure(tmp_path, World(0, 1), ValueError(f"http://bob:{SECRET}@host: HTTP 500"))
    write_launch(tmp_path, Launch("pipeline", 1, options={"words": [f"vars.api_key={SECRET}", "x=1"]}))
    assert not [path for path in tmp_path.rglob("*.json") if SECRET in path.read_text()]
    assert read_launch(tmp_path).options["words"][1] == "x=1"


@pytest.mark.parametrize(
    "word",
    [
        f"judge.options.extra.api_key={SECRET}",
        f"judge.options.extra.extra_headers.X-Some={SECRET}",
        EXTRA,
        f'judge.options.extra={{"api_key": "{SECRET} {SECRET}"}}',
        "judge.options.extra.token=12345678",
        "judge.options.extra={password: 12345678.5}",
        f"judge.options.url=https://host/v1?api-version=1&code={SECRET}",
        f"judge.options.url=https://bob:{SECRET}@host/v1",
        f"images=https:/bob:{SECRET}@host/v1",  # as a path has it
    ],
)
def test_words_of_a_command_are_redacted(word):
    assert SECRET not in redact_word(word) and "12345678" not in redact_word(word) and REDACTED in redact_word(word)
    assert redact_word(redact_word(word)) == redact_word(word)


@pytest.mark.parametrize(
    "text",
    [
        "sampling.token_temperature=0.7",
        "max_tokens: 32, tokenizer: shapes",
        "judge.options.api_key_env=KEY",
        "a key: b",
    ],
)
def test_what_is_no_secret_stays(text):
    assert redact_text(text) == text
    assert redact({"tokens": text, "questions": [text], "n": 5, "key": ""}) == {
        "tokens": text,
        "questions": [text],
        "n": 5,
        "key": "",
    }


def test_no_config_key_of_a_job_is_taken_for_a_secret():
    jobs = sorted(path.stem for path in Path(generate.__file__).parent.glob("[!_]*.py"))
    keys = [key for job in jobs for key in importlib.import_module(f"jobs.{job}").Config.model_fields]
    assert redact(dict.fromkeys(keys, "x")) == dict.fromkeys(keys, "x") and len(keys) > 100
