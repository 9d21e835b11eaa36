"""What is printed and logged: no control characters, endless lines or secrets, and nothing to a reader who has gone."""

import json
import logging
import subprocess
import sys

import pytest

from genloop import terminal
from genloop.logging import set_up, set_up_messages
from genloop.redaction import REDACTED
from genloop.report import write_report
from genloop.stats.markdown import table_row
from tests.processes import ROOT
from tests.worlds.report_runs import Sketch, write_runs

NASTY = "\x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m \x9b1mbold\r over\x08\x7f \u202eright\u2066\ud83d\ttab\nline"
SHOWN = "]0;titlered bold over right\ufffd\ttab\nline"
SECRET = "sk-0123456789abcdefghij"


def test_control_characters_are_left_out():
    assert terminal.clean(NASTY) == SHOWN
    assert terminal.clean("ä 東 🙂 \n\n end") == "ä 東 🙂 \n\n end"


def test_long_lines_are_cut_and_short_ones_beside_them_are_not():
    first, second = terminal.clean("a" * 1_700_000 + "\nshort").split("\n")
    assert len(first) < terminal.MAX_LINE + 100 and "1690000 characters left out" in first and second == "short"


@pytest.mark.parametrize("show", [terminal.out, terminal.err], ids=["out", "err"])
def test_printed_texts_are_clean_whole_lines(show, capsys):
    show(NASTY)
    show("done\n")
    told = capsys.readouterr()
    assert told.out + told.err == f"{SHOWN}\ndone\n"


def test_json_is_printed_exactly(capsys):
    terminal.out_json({"reason": NASTY + "a" * 20_000})
    text = capsys.readouterr().out
    assert json.loads(text) == {"reason": NASTY + "a" * 20_000} and "\x1b" not in text and "\u202e" not in text


def test_logs_and_their_tracebacks_are_clean(capsys):
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        set_up(0)
        try:
            raise ValueError(f"{NASTY} {SECRET}")
        except ValueError:
            logging.getLogger("x").exception("server said %s", NASTY)
        text = capsys.readouterr().err
    finally:
        root.handlers[:] = before
        root.setLevel(level)
    assert "\x1b" not in text and "\r" not in text and SECRET not in text and "Traceback" in text


def test_what_nobody_catches_is_told_cleanly(monkeypatch, capsys):
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # put back afterwards
    set_up_messages()
    error = KeyError(f"{SECRET}")
    error.add_note(NASTY)
    sys.excepthook(KeyError, error, None)
    text = capsys.readouterr().err
    assert "KeyError" in text and "\x1b" not in text and SECRET not in text


def test_tables_and_pages_are_clean(tmp_path):
    assert "\x1b" not in table_row([NASTY])
    text = NASTY.replace("\ud83d", "")
    run = write_runs(tmp_path, "a", Sketch(prompts_per_task=1, texts={0: text}, accuracy=0.0))
    shown = write_report([run], tmp_path / "report")
    for path in shown.parent.glob("*.[hm]*"):
        page = path.read_text(encoding="utf-8")
        assert "\x1b" not in page and "\u202e" not in page, path
    assert "titlered" in shown.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["jobs"], ["--help"], ["run", "generate", "--help"], ["ckpts", "list"]])
def test_a_reader_who_leaves_is_told_nothing(words):
    command = subprocess.Popen(
        [sys.executable, "-m", "launch", *words], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert command.stdout is not None and command.stderr is not None
    command.stdout.close()  # before anything is written
    assert (command.stderr.read(), command.wait()) == (b"", 0)
    command.stderr.close()


def test_messages_hold_no_secrets():
    texts = [
        f"http://name:{SECRET}@host:80/v1: HTTP 500",
        f"GET /v1?api-version=2&api_key={SECRET}&n=1",
        f"Authorization: Bearer {SECRET}",
        f"{{'password': '{SECRET} and more'}}",
        f"api_key={SECRET}",
    ]
    for text in texts:
        assert SECRET not in terminal.clean(text) and terminal.clean(text).count(REDACTED) == 1
        assert terminal.clean(terminal.clean(text)) == terminal.clean(text)
    plain = "max_tokens=3, token_temperature: 0.7, judge.options.api_key: unknown key, https://host/a@b"
    assert terminal.clean(plain) == plain
