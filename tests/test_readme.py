from tests.readme import BEGIN, END, README, refreshed


def test_the_table_of_plan_keys_is_the_plan_s():
    text = README.read_text("utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert refreshed(text) == text, "make it anew with: python -m tests.readme"


def test_it_opens_with_the_two_commands():
    head = README.read_text("utf-8")[:800]
    assert "make demo" in head and "make test" in head
