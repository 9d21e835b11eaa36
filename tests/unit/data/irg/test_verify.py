"""Every kind of change to a trace is noticed."""

import json

import pytest

from genloop.data.irg.phrases import NUMBER, SLOTS
from genloop.data.irg.record import parse_record
from genloop.data.irg.verify import UNREAD, verify_record, verify_sample
from genloop.data.shards import Sample
from tests.worlds.traces import trace


def changed(made, change):
    """The record of a trace after `change` to its plain values."""
    row = json.loads(made.record.to_json())
    change(row)
    return parse_record(row)


def kinds(made, change):
    return {problem.kind for problem in verify_record(changed(made, change), made.images)}


def replace(path, old, new):
    """A change of text at a path of keys."""

    def change(row):
        *parents, last = path
        for key in parents:
            row = row[key]
        assert old in row[last], (old, row[last])
        row[last] = row[last].replace(old, new, 1)

    return change


def put(path, value):
    def change(row):
        *parents, last = path
        for key in parents:
            row = row[key]
        assert row[last] != value
        row[last] = value

    return change


FIRST = ("rounds", 0)
DIAGNOSED = (*FIRST, "diagnosis", 0)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (put((*DIAGNOSED, "evidence", 0, "value"), "dark"), "diagnosis"),
        (replace((*FIRST, "diagnosis_text"), "0.142", "0.152"), "number"),
        (replace((*FIRST, "diagnosis_text"), "0.34", "0.35"), "number"),
        (replace((*FIRST, "diagnosis_text"), "0.68", "0.78"), "text"),
        (replace((*FIRST, "diagnosis_text"), "underexposure", "noise"), "text"),
        (replace((*FIRST, "diagnosis_text"), "brightness", "contrast"), "number"),
        (replace((*FIRST, "diagnosis_text"), "below", "above"), "text"),
        (replace((*FIRST, "diagnosis_text"), "gamma 0.39", "gamma 0.5"), "action"),
        (replace((*FIRST, "diagnosis_text"), "a gamma curve", "denoising"), "action"),
        (put((*FIRST, "diagnosis_text"), ""), "text"),
        (replace((*FIRST, "reasoning_text"), "brightness low", "brightness fine"), "text"),
        (replace((*FIRST, "reasoning_text"), "noise level fine", "noise level high"), "text"),
        (put((*DIAGNOSED, "issue"), "noise"), "diagnosis"),
        (put((*DIAGNOSED, "issue"), "overexposed"), "diagnosis"),
        (put((*DIAGNOSED, "severity"), 0.1), "diagnosis"),
        (put((*DIAGNOSED, "evidence", 0, "value"), 0.2), "evidence"),
        (put((*DIAGNOSED, "evidence", 0, "threshold"), 0.1), "evidence"),
        (put((*DIAGNOSED, "evidence", 0, "relation"), "above"), "evidence"),
        (put((*FIRST, "features", "brightness"), 0.2), "evidence"),
        (put((*FIRST, "actions", 0, "op"), "exposure"), "action"),
        (put((*FIRST, "image_sha256"), "0" * 64), "image"),
        (put((*FIRST, "result_sha256"), "0" * 64), "image"),
        (put((*FIRST, "result"), "7.png"), "image"),
        (put((*FIRST, "gain", "target_delta"), -0.1), "accepted"),
        (put((*FIRST, "result_features", "brightness"), 0.1), "accepted"),
        (put((*FIRST, "index"), 1), "accepted"),
        (replace(("reasoning_text",), "red circle", "green circle"), "scene"),
        (replace(("reasoning_text",), "above", "the left"), "scene"),
        (replace(("reasoning_text",), "0.62", "0.72"), "scene"),
        (put(("final_prompt",), "a red circle and a blue square, in sharp focus"), "prompt"),
        (put(("final_prompt",), "another prompt"), "prompt"),
        (replace(("messages", 1, "content"), "brightness 0.142", "brightness 0.143"), "number"),
        (replace(("messages", 2, "content"), '"underexposed"', '"overexposed"'), "conversation"),
        (replace(("messages", 2, "content"), '"gamma": 0.39', '"gamma": 0.5'), "conversation"),
        (replace(("messages", 2, "content"), '"prompt": "a red', '"prompt": "a blue'), "conversation"),
        (replace(("messages", 2, "content"), '"actions"', '"action"'), "conversation"),
        (put(("messages", 1, "images"), ["9.png"]), "conversation"),
        (put(("split",), "test"), "split"),
    ],
)
def test_a_change_of_any_kind_is_noticed(change, kind):
    made = trace("dark", 3)
    assert kinds(made, lambda row: None) == set()
    assert kind in kinds(made, change)


@pytest.mark.parametrize("kind", ["clean", "dark", "undone", "content"])
def test_every_digit_of_every_text_counts(kind):
    made = trace(kind, 2)
    row = json.loads(made.record.to_json())
    texts = [("reasoning_text",)]
    texts += [("rounds", n, name) for n in range(len(row["rounds"])) for name in ("reasoning_text", "diagnosis_text")]
    texts += [("messages", n, "content") for n in range(len(row["messages"]))]
    places = 0
    for path in texts:
        text = row
        for key in path:
            text = text[key]
        for match in NUMBER.finditer(text):
            other = f"{match[0][:-1]}{(int(match[0][-1]) + 3) % 10}"
            changed_text = f"{text[: match.start()]}{other}{text[match.end() :]}"
            found = verify_record(changed(made, put(path, changed_text)), made.images)
            assert any(problem.is_fault for problem in found), (path, match[0], other)
            places += 1
    assert places > 10


def test_a_turn_that_lacks_and_a_request_of_another_split_are_noticed():
    made = trace("dark", 3)
    assert "conversation" in kinds(made, put(("messages",), json.loads(made.record.to_json())["messages"][:1]))
    request = made.record.messages[1].content.partition("\n")[0]
    assert "split" in kinds(made, replace(("messages", 1, "content"), request, SLOTS["request"].held_out[0]))
    assert kinds(made, replace(("messages", 1, "content"), request, "Well?")) == {UNREAD}
    assert kinds(made, put(("messages", 0, "content"), "You are an assistant.")) == {UNREAD}


def test_a_drop_that_was_accepted_is_noticed():
    assert "accepted" in kinds(trace("undone"), put((*FIRST, "accepted"), True))


def test_a_change_that_was_taken_back_and_looked_at_is_noticed():
    assert "accepted" in kinds(trace("undone"), put(("rounds", 1, "image"), "1.png"))


def test_a_wrong_value_after_an_attempt_is_noticed():
    made = trace("undone")
    after = f"{made.record.rounds[0].result_features.brightness:.3f}"
    assert "number" in kinds(made, replace(("rounds", 1, "reasoning_text"), after, "0.001"))


def test_an_issue_that_is_told_nowhere_is_noticed():
    made = trace("dark", 3)

    def hide(row):
        row.update(messages=[], final_prompt="")
        row["rounds"][0].update(diagnosis=[], actions=[], diagnosis_text="Nothing needs to be changed.")

    (problem,) = [one for one in verify_record(changed(made, hide)) if one.is_fault]
    assert problem.kind == "diagnosis" and "underexposed" in problem.what


def test_an_issue_of_content_that_the_scene_does_not_show_is_noticed():
    assert "diagnosis" in kinds(trace("content"), put((*DIAGNOSED, "evidence", 0, "value"), "blue"))


def test_texts_of_others_are_read_as_far_as_they_name_features():
    made = trace("dark", 3)

    def reword(text):
        return lambda row: row["rounds"][0].update(reasoning_text="", diagnosis_text=text) or row.update(messages=[])

    right = "Its mean brightness is 0.14. Two things: 7 and 9."
    assert kinds(made, reword(right)) == {UNREAD}
    assert kinds(made, reword("Its mean brightness is 0.15.")) == {UNREAD, "number"}


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"txt": b"a"}, "json"),
        ({"json": b"{"}, "broken JSON"),
        ({"json": b'{"caption": "a"}'}, "rounds"),
        ({"json": b'{"rounds": [], "schema_version": 9}'}, "schema_version 9"),
    ],
)
def test_a_sample_of_another_schema_is_one_problem(fields, what):
    (problem,) = verify_sample(Sample("a", fields))
    assert problem.kind == "schema" and what in problem.what


def test_a_sample_is_the_record_of_its_key_with_its_images():
    sample = trace("dark").sample
    assert verify_sample(sample) == []
    lacking = {name: data for name, data in sample.fields.items() if name != "1.png"}
    assert [problem.kind for problem in verify_sample(Sample("other", lacking))] == ["image", "schema"]
