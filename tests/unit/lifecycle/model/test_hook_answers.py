"""What a hook may say, and what of it no job takes."""

import json
import re

import pytest

from services.lifecycle.model.hook_answers import HookAnswer, Veto, read_answer
from services.lifecycle.model.value import dump, load
from services.lifecycle.webhooks import answer_complaint


@pytest.mark.parametrize("said", ["", "ok", "[1]", "null", "[" * 60_000, '"allow"', "{}", '{"allow": true, "more": 1}'])
def test_words_for_people_say_go_on(said: str) -> None:
    assert read_answer(said) == HookAnswer()


@pytest.mark.parametrize("reason", [None, 5, ["no"], "", " \n"])
def test_a_veto_needs_no_reason(reason: object) -> None:
    assert read_answer(json.dumps({"allow": False, "reason": reason})) == HookAnswer(Veto())


def test_a_veto_has_as_much_of_a_reason_as_is_kept() -> None:
    answer = read_answer(json.dumps({"allow": False, "reason": " " + "é" * 1000 + "\ud800"}))
    assert answer.veto == Veto("é" * 256)


def test_what_is_added_comes_back_as_it_was_written_down() -> None:
    answer = read_answer(b'{"prompt_addition": "Mind \xc3\xa9.\\n", "labels": {"team": "harbour", "\xc3\xa9": ""}}')
    assert (answer.prompt_addition, dict(answer.labels)) == ("Mind é.\n", {"team": "harbour", "é": ""})
    assert load(HookAnswer, dump(answer)) == answer


@pytest.mark.parametrize(
    "said",
    [
        {"allow": 0},
        {"allow": None},
        {"prompt_addition": ["no text"]},
        {"prompt_addition": "\ud800"},
        {"labels": ["a"]},
        {"labels": {"a": 1}},
    ],
    ids=str,
)
def test_an_answer_that_no_job_can_take_is_said_to_be_one(said: dict) -> None:
    with pytest.raises(ValueError, match=r"allow|prompt_addition|labels"):
        read_answer(json.dumps(said))


@pytest.mark.parametrize(
    "said",
    [
        {"prompt_addition": "a\0b"},
        {"prompt_addition": "x" * ((16 << 10) + 1)},
        {"labels": {"": "a"}},
        {"labels": {"a": "x" * 64}},
        {"labels": {"a\0": "x"}},
        {"labels": {f"a{number}": "" for number in range(65)}},
        {"ask": "x" * ((16 << 10) + 1)},
    ],
    ids=str,
)
def test_an_answer_keeps_the_rules_of_the_contract_whoever_gives_it(said: dict) -> None:
    answer = read_answer(json.dumps(said))
    assert re.match(next(iter(said)), answer_complaint(answer) or "")
    assert answer_complaint(HookAnswer(ask="May they?", labels={"team": "harbour"})) is None
