"""What four programs read in verdicts that are meant to mislead them."""

import pytest

from genloop.evals.vl_rewardbench.parsers import PARSERS, agrees

SENTENCES = {  # text -> as read by official, vlmevalkit, lmms_eval, strict
    "Overall Judgment: Answer 1 is better.": (1, 1, 1, 1),
    "Answer 2 is better than Answer 1.": (None, 1, None, None),
    "Overall Judgment: I cannot say that Answer 1 is better.": (1, 1, 1, None),
    "The better answer is Answer 2.": (None, 2, None, None),
    "Therefore, Answer 1 is better in style, but Answer 2 is better.\nOverall Judgment: Answer 2 is better.": (
        *(2, 1, 2),
        None,
    ),
    "I looked at Answer 1 first.\n\n**Overall Judgment:** Answer 2 is **slightly better**.\n": (2, 1, 2, 2),
    "Overall Judgment: Answer 3 is better.": (3, None, 3, None),
    "Overall Judgment:\n- Answer 2\nis the better one": (2, 2, 2, None),
    "Overall Judgment: both answers are equally good.": (None, None, None, None),
    "Overall Judgment: Answer 1 is better.\nOverall Judgment: Answer 2 is better.": (2, 1, 2, None),
    "Answer 1 is better at counting. Therefore neither is right, and the question stays open.": (None, 1, None, None),
    "Overall Judgment: Answer X is better.": (None, None, None, None),
    "Overall Judgment: Answer 12 is better.": (12, 1, 12, None),
    "therefore, it is wrong that ANSWER 1 IS THE SLIGHTLY BETTER one": (1, 1, 1, None),
}


@pytest.mark.parametrize("text", SENTENCES)
def test_the_same_text_is_read_as_each_program_reads_it(text: str) -> None:
    assert tuple(parse(text) for parse in PARSERS.values()) == SENTENCES[text]


def test_strict_reading_never_contradicts_the_official_one_where_both_read() -> None:
    for read in SENTENCES.values():
        assert read[3] is None or read[3] == read[0]


def test_the_official_program_calls_any_number_but_the_worse_answer_s_agreement() -> None:
    assert agrees("official", 3, better=1) is True and agrees("lmms_eval", 3, better=1) is False
    assert agrees("official", 2, better=1) is False and agrees("official", 1, better=1) is True
    assert all(agrees(parser, None, better=1) is None for parser in PARSERS)


@pytest.mark.parametrize(("digits", "number"), [("0002", 2), ("0", 0), ("9" * 5000, 999_999_999)])
def test_a_number_of_any_length_is_read(digits, number):
    assert PARSERS["official"](f"Overall Judgment: Answer {digits} is better.") == number


def test_many_blanks_are_read_at_once():
    text = f"Therefore{' ' * 20_000}--{' ' * 20_000}"
    assert [parse(text) for parse in PARSERS.values()] == [None] * len(PARSERS)
    assert PARSERS["official"](f"{text}Answer 2 is better") == 2
