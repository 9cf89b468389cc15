import re
from html.parser import HTMLParser

import pytest

from flows.visible import block, finalize, inline, plain


class Shown(HTMLParser):
    """What a reader sees of some markup."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words += data


@pytest.mark.parametrize(
    ("char", "name"),
    [
        ("\u202e", "U+202E"),
        ("\u2066", "U+2066"),
        ("\u200b", "U+200B"),
        ("\x00", "U+0000"),
        ("\x1b", "U+001B"),
        ("\r", "U+000D"),
        ("\u2028", "U+2028"),
        ("\u00a0", "U+00A0"),
        ("\u3164", "U+3164"),
        ("\ufe0f", "U+FE0F"),
        ("\ud800", "U+D800"),
        ("\U000e0041", "U+E0041"),
    ],
)
def test_hidden_characters_are_boxed(char, name):
    assert f'a<b class="cp">{name}</b>b' in inline(f"a{char}b")
    assert plain(f"a{char}b") == f"a[{name}]b"
    inline(f"a{char}b").encode("utf-8")


def test_markup_is_text():
    text = "<script>alert(1)</script> & \"q\" 'q'"
    shown = Shown(inline(text))
    assert shown.tags == []
    assert shown.words == text


def test_what_can_be_seen_is_left_as_it_is():
    assert inline("3+4=7\n\t7-2=5") == "3+4=7\n\t7-2=5"
    assert Shown(inline("čaj 茶 שלום")).words == "čaj 茶 שלום"
    assert inline("שלום").startswith("<bdi>")


def test_runs_of_hidden_characters_stay_short():
    assert inline("\u200b" * 250) == '<bdi><b class="cp">U+200B×250</b></bdi>'
    many = inline("".join(chr(0xE0000 + i % 90) for i in range(280)))
    assert "+274 hidden characters" in many
    assert many.count("cp") == 7


def test_a_flood_of_marks_is_cut():
    shown = Shown(inline("e" + "\u0301" * 100)).words
    assert shown.count("\u0301") == 4
    assert shown.endswith("+96 marks")


def test_long_texts_are_cut_and_say_so():
    assert plain("x" * 100, 10) == "x" * 10 + "… +90 characters"
    assert "… +700 characters" in inline("x" * 1000)
    text = "".join(f"{i:06d}\n" for i in range(150_000))
    markup = block(text)
    assert len(markup) < 10_000
    shown = Shown(markup)
    assert shown.words.count("000000") == 1
    head = 18 * 7 - 1
    assert f"{len(text) - head:,} more characters" in shown.words
    assert f"{len(text) - head - 6000:,} more characters are not shown here" in shown.words


def test_a_fold_loses_nothing():
    text = "".join(f"line {i}\n" for i in range(200))
    markup = block(text)
    assert "\n".join(re.findall(r'<div class="text">(.*?)</div>', markup, re.S)) == text
    assert "not shown" not in markup


def test_short_and_empty_blocks():
    assert block("3+4=7\n#7") == '<div class="text">3+4=7\n#7</div>'
    assert "(empty)" in block("")


def test_finalize_touches_only_text():
    assert finalize(3) == 3
    assert finalize("<b>") == "&lt;b&gt;"
    assert finalize(inline("<b>")) == "&lt;b&gt;"
