from __future__ import annotations

import pytest

from pipelines.process.sentences import Protected
from pipelines.process.splitting import completions


@pytest.mark.parametrize(
    "sentences",
    [
        ("She has 3.5 kg. ", "Then 2 are sold! ", "How many? ", "Five."),
        ("Mr. Smith met Dr. Who, e.g. Monday, i.e. Today. ", "Then he left."),
        ("Apples, pears, etc. Fruit sells. ", "Eggs, etc. ", "The rest is 5."),
        ("See Fig. 3 and Eq. (2). ", "Is it? ", "No. ", "The sum is No. 5."),
        ("J. R. R. Tolkien wrote it in the U.S. Army. ", "Go at 5 p.m. ", "The end."),
        ("Take point B. ", "The line AB is 3."),
        ('He said "Go." ', "Then he (Bob.) left. ", "(It rained.) ", "**Bold.** ", "So?"),
        ('"Really?" he asked. ', "Well... yes. ", "Hm... ", "No?! ", "Yes."),
        ("1. Foo bar. ", "2. Baz.\n", "(a) Qux.\n", "**3.** Step.\n", "Step 4. Go. ", "On."),
        ("so x = 3. y = 4. ", "Thus z."),  # a variable is a small letter: rather joined than cut
        ("你好。", "再见！", "“好。”", "走"),
        ("Eggs cost $3.50. ", "She pays $4. ", "Then $5."),
        ("The sum is \\$5. ", "Then $6."),
        ("so $x = 3. Then$ and $y.$ ", "Then $$a. B$$ and \\(c. D\\). ", "End."),
        (
            "Now \\[\nx. Y\n\\]\n",
            "and \\begin{a}\nb. C\\begin{d}\n\\end{d}\nE\\end{a}. ",
            "Done? ",
            "Ok",
        ),
        ("Run `a. B` now. ", "Then\n", "```py\nx = 1. # Foo\n\nDone. Ok\n```\n", "End."),
        ("```\na. B\nc. D",),
        ("Never closed \\[ a. ", "B $$ c. ", "D \\begin{x} e. ", "F"),
        ("a\n\n\n", "b  \n ", "cat.\t", "Dog"),
    ],
)
def test_sentences(sentences: tuple[str, ...]) -> None:
    assert completions("".join(sentences), "sentences") == sentences


def test_a_cut_at_the_edge_of_a_formula_is_not_inside_it() -> None:
    text = "a $b c$ d"
    protected = Protected(text)
    assert [at for at in range(len(text) + 1) if at in protected] == [3, 4, 5, 6]
