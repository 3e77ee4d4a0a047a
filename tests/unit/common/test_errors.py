"""What an error says when there is more to say than fits."""

from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import Invalid

FIELDS = ("name", "states[{}]", 'agent.environment["{}"]', 'labels["a]{}["]', "files[{}].path")


@given(st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(1, 60)), max_size=9, unique_by=lambda each: each[0]))
def test_many_wrong_entries_hide_no_other_field(lists: list[tuple[str, int]]) -> None:
    violations = [
        (field.format(number), "is wrong") for field, count in lists for number in range(count if "{}" in field else 1)
    ]

    said = Invalid(violations).violations

    cut = [text for field, text in said if field == "..."]
    told = [each for each in said if each[0] != "..."]
    assert len(set(told)) == len(told) == len(violations) - sum(int(text.split()[1]) for text in cut)
    assert set(told) <= set(violations)
    assert {field.format(0) for field, _ in lists} <= {field for field, _ in told}
    if not cut:
        assert list(said) == violations, "in the order of the request"
