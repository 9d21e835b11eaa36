"""Texts follow from numbers, and templates of test come up in test alone."""

import json

import numpy as np
import pytest

from genloop.data.irg.actions import execute
from genloop.data.irg.diagnose import CHECKED, diagnose, limits, standings
from genloop.data.irg.features import measure
from genloop.data.irg.phrases import NUMBER, SLOTS, is_held_out, parse, sentences
from genloop.data.irg.quotes import faithful, quotes
from genloop.data.irg.record import INTENTS, Action
from genloop.data.irg.text import answer_json, conversation, read_answer, user_turn, write_texts
from genloop.data.irg.verify import verify_record
from tests.worlds.traces import SCENE, clean_image, trace

FAULTY = ({"gamma": 3.0}, {"gamma": 0.3}, {"gamma": 1.0})
KINDS = ("clean", "dark", "undone", "content")


def degraded(seed: int) -> np.ndarray:
    """Dark, bright or as it was, and noisy or blurred."""
    image = execute(clean_image(seed), Action(op="gamma", params=FAULTY[seed % 3]))
    noise = np.random.default_rng(seed).normal(0, 20 * (seed % 2), image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("slot", SLOTS)
def test_a_slot_has_five_paraphrases_and_others_for_test(slot):
    own, held_out = SLOTS[slot].train, SLOTS[slot].held_out
    assert len(set(own)) >= 5 and len(set(held_out)) >= 2 and not set(own) & set(held_out)


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back_without_a_problem(kind, split):
    for seed in range(3):
        made = trace(kind, seed, split)
        assert verify_record(made.record, made.images) == []
        texts = [made.record.reasoning_text, *(f"{r.reasoning_text} {r.diagnosis_text}" for r in made.record.rounds)]
        parsed = [parse(sentence) for text in texts for sentence in sentences(text)]
        assert {is_held_out(one.template) for one in parsed} == {split == "test"}


def test_every_template_of_a_split_comes_up():
    found = set()
    for seed in range(60):
        made = trace("undone", 0, "train").record
        made = write_texts(made, np.random.default_rng(seed), "train")
        found |= {parse(s).template for one in made.rounds for s in sentences(one.diagnosis_text)}
    assert found == {f"{slot}.{n}" for slot in ("finding", "support", "plan") for n in range(5)}


def test_the_same_generator_gives_the_same_texts():
    assert trace("dark", 1).record == trace("dark", 1).record != trace("dark", 2).record


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_is_parsed_to_what_the_round_says(kind):
    record = trace(kind).record
    accepted = [one for one in record.rounds if one.accepted]
    answers = [read_answer(message.content) for message in record.messages if message.role == "assistant"]
    for said, one in zip(answers, accepted, strict=True):
        assert said.actions == one.actions and said.prompt.startswith(record.instruction)
        assert [d.issue for d in said.diagnosis] == [d.issue for d in one.diagnosis]


@pytest.mark.parametrize("kind", KINDS)
def test_json_and_paragraph_print_numbers_digit_by_digit_alike(kind):
    for seed in range(6):
        for message in trace(kind, seed).record.messages[2::2]:
            paragraph, _, line = message.content.partition("\n")
            digits: list[str] = []
            json.loads(line, parse_float=digits.append, parse_int=digits.append)
            assert set(digits) <= set(NUMBER.findall(paragraph)) and bool(digits) == (kind != "clean")


def test_numbers_of_others_keep_all_their_digits():
    record = trace("dark").record
    found = record.rounds[0].diagnosis[0].model_copy(update={"severity": 0.12345})
    actions = (Action(op="gamma", params={"gamma": 1 / 3}),)
    said = read_answer(
        answer_json(record.rounds[0].model_copy(update={"diagnosis": (found,), "actions": actions}), "x")
    )
    assert said.diagnosis[0].severity == 0.12345 and said.actions == actions


def test_a_conversation_goes_by_the_order_of_rounds_whatever_their_numbers():
    record = trace("undone").record
    odd = record.model_copy(update={"rounds": tuple(one.model_copy(update={"index": 9}) for one in record.rounds)})
    assert conversation(odd, ["one", "two"]) == conversation(record, ["one", "two"])


def test_no_answer_suggests_what_was_taken_back():
    record = trace("undone").record
    assert [one.accepted for one in record.rounds] == [False, True]
    answers = [message.content for message in record.messages if message.role == "assistant"]
    assert len(answers) == 1 and '"gamma": 1.5' not in answers[0]
    assert "Taken back: a gamma curve (gamma 1.5), brightness" in record.messages[1].content


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_opens_with_the_end_of_what_the_user_measured(kind):
    record = trace(kind).record
    for asked, said in zip(record.messages[1::2], record.messages[2::2], strict=True):
        told = sentences(said.content)[0].removesuffix(".")
        values = told[told.index("brightness") :]
        assert asked.content.endswith(f", {values}") and len(quotes(told)) == len(CHECKED)


def test_where_features_stand_agrees_with_what_is_diagnosed():
    for intent in INTENTS:
        for seed in range(20):
            features = measure(degraded(seed))
            found = standings(features, intent)
            assert list(found) == list(CHECKED)
            beyond = {limit.feature for limit in limits(intent) if found[limit.feature] in ("low", "high")}
            assert beyond == {diagnosis.evidence[0].feature for diagnosis in diagnose(features, intent)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no object", "no JSON object"),
        ('x {"diagnosis": [', "broken JSON"),
        ('x {"diagnosis": [], "actions": []}', "prompt"),
        ('x {"diagnosis": [], "actions": [{"op": "paint"}], "prompt": "a"}', "actions.0.op"),
        ('x {"diagnosis": [], "actions": [], "prompt": "a"} and more', "broken JSON"),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=reason):
        read_answer(text)


def test_a_user_turn_holds_every_number_that_an_answer_may_quote():
    record = trace("dark").record
    features = record.rounds[0].features
    turn = user_turn(record.instruction, features, scene=SCENE)
    told = {quote.feature for quote in quotes(turn)}
    assert told == {name for name, value in features.model_dump().items() if value is not None}
    assert faithful(turn, features) == (len(told), len(told))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Mean brightness is only 0.25, below 0.4.",
            [("brightness", "0.25", "value"), ("brightness", "0.4", "threshold")],
        ),
        ("The RMS contrast (0.058) and noise sigma 15.1", [("contrast", "0.058", "value"), ("noise", "15.1", "value")]),
        ("There are 3 dogs.", []),
    ],
)
def test_numbers_in_texts_of_others_belong_to_the_feature_before_them(text, expected):
    assert [(quote.feature, quote.text, quote.role) for quote in quotes(text)] == expected
