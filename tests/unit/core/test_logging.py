"""The log of a worker has its own lines; packages that log without a name are heard when they warn."""

import logging

from genloop.logging import set_up


def test_lines_have_a_rank_and_nameless_chatter_is_left_out(capsys):
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up(3)
        root.info("parsing something")
        root.warning("something is odd")
        logging.getLogger("mypackage.job").info("unit 00001")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "W rank3 root: something is odd",
        "I rank3 mypackage.job: unit 00001",
    ]
