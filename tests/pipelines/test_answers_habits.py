"""How real models write final answers, with why each verdict is what it is."""

import pytest

from pipelines.answers import equal, find

RIGHT, WRONG, UNPARSED = True, False, None

# verifier, end of the response, reference, verdict, why
HABITS = [
    ("numeric", r"So \boxed{\frac{1}{2}}", "0.5", RIGHT, "a fraction is its decimal"),
    ("numeric", "#### 172", "72", WRONG, "no substring match"),
    ("numeric", "#### 72", "172", WRONG, "no substring match"),
    ("numeric", r"\boxed{$1{,}000$}", "1000", RIGHT, "LaTeX's thousands separator"),
    ("numeric", r"\boxed{1\,000}", "1000", RIGHT, "thin space between thousands"),
    ("numeric", r"\boxed{1,\!000}", "1000", RIGHT, "the AoPS way to write thousands"),
    ("numeric", "The answer is 1 000", "1000", UNPARSED, "a plain space also parts two numbers"),
    ("numeric", "The answer is 1.000", "1000", WRONG, "a dot is always the decimal sign"),
    ("numeric", r"\boxed{50\%}", "50", RIGHT, "percent was the unit asked for"),
    ("numeric", r"\boxed{50\%}", "0.5", RIGHT, "percent as a number"),
    ("numeric", "The answer is 4%", "400", WRONG, "percent does not multiply"),
    ("numeric", "The answer is 5:30", "5.5", UNPARSED, "a time of day is no number"),
    ("numeric", "The answer is 1/2 cup.", "0.5", RIGHT, "a fraction with a unit"),
    ("numeric", "The answer is 3 1/2", "3.5", RIGHT, "a mixed number"),
    ("numeric", r"\boxed{3\frac{1}{2}}", "3.5", RIGHT, "a mixed number in LaTeX"),
    ("numeric", "The answer is x=5", "5", RIGHT, "the value of a name"),
    ("numeric", "The answer is 12 + 3 = 15", "15", RIGHT, "the end of a sum"),
    ("numeric", "The final answer is $\\boxed{42}$. I hope it is correct.", "42", RIGHT, "Minerva"),
    ("numeric", "### Final Answer\n\n\\boxed{18}", "18", RIGHT, "a heading is no answer"),
    ("numeric", "**Final Answer:** $18$", "18", RIGHT, "Markdown and LaTeX around it"),
    ("numeric", "Therefore, the answer is: \\[ \\boxed{18} \\]", "18", RIGHT, "display math"),
    ("numeric", r"\boxed{18}, not \boxed{19", "18", RIGHT, "a box that is not closed is none"),
    ("numeric", r"\boxed{18\text{ eggs}}", "18", RIGHT, "a unit as text"),
    ("numeric", r"\boxed{\$18}", "18", RIGHT, "an escaped dollar"),
    ("numeric", "The answer is $18.", "18", RIGHT, "a dollar that opens no math"),
    ("numeric", "The answer is 18!", "18", RIGHT, "a cheer, no factorial"),
    ("numeric", "The answer is 5 (five)", "5", RIGHT, "the number in words behind it"),
    ("numeric", "The answer is five", "5", UNPARSED, "number words are not read"),
    ("numeric", "The answer is about 18", "18", UNPARSED, "hedged"),
    ("numeric", "The answer is between 3 and 5", "4", UNPARSED, "a range"),
    ("numeric", "The answer is 3-5", "4", UNPARSED, "a range"),
    ("numeric", "The answer is 5 or 6", "5", UNPARSED, "two answers are none"),
    ("numeric", "The answer is 4, 5", "4", UNPARSED, "two answers are none"),
    ("numeric", "The answer is not 5", "5", UNPARSED, "denied"),
    ("numeric", "The answer is 2 hours 30 minutes", "2.5", UNPARSED, "two units"),
    ("numeric", "The answer is 4 apples and 5 pears", "9", UNPARSED, "a sum not made"),
    ("numeric", "The answer is −3", "-3", RIGHT, "Unicode minus"),
    ("numeric", "The answer is -$4", "-4", RIGHT, "sign before currency"),
    ("numeric", r"\boxed{3\times10^8}", "300000000", RIGHT, "scientific notation"),
    ("numeric", "The answer is $5 million", "5000000", RIGHT, "a scale word"),
    ("numeric", "The answer is 5k", "5000", UNPARSED, "k may be thousands or a name"),
    ("numeric", "The answer is 2^5", "32", UNPARSED, "arithmetic is not done for the model"),
    ("numeric", r"\boxed{\sqrt{4}}", "2", UNPARSED, "that is for `latex`"),
    ("numeric", "The answer is 0.3333", "1/3", WRONG, "no tolerance"),
    ("numeric", "The answer is 15\n\nCheck: 10+5=15.", "15", RIGHT, "what follows is no answer"),
    ("numeric", "Answer: 15\nHuman: next? Answer: 16", "15", WRONG, "the last answer counts"),
    ("numeric", "<think>\\boxed{3}</think>\nThe answer is 4", "4", RIGHT, "the last answer counts"),
    ("numeric", "The answer is <b>4</b>", "4", UNPARSED, "HTML is not read"),
    ("numeric", "The answer is NaN", "4", UNPARSED, "not a number"),
    ("numeric", r"\boxed{72^\circ}", "72", RIGHT, "degrees are a unit"),
    ("choice", "The answer is A and B", "B", UNPARSED, "two letters are none"),
    ("choice", "The answer is (A), (B)", "A", UNPARSED, "two letters are none"),
    ("choice", "The answer is CD", "C", UNPARSED, "no letter of its own"),
    ("choice", "The answer is (C) 12", "C", RIGHT, "letter, then the option's text"),
    ("choice", "The answer is D (12)", "D", RIGHT, "letter, then the option's text"),
    ("choice", "The answer is C: 12", "C", RIGHT, "letter, then the option's text"),
    ("choice", r"$\boxed{\textbf{(C)}\ 12}$", "C", RIGHT, "AMC's LaTeX"),
    ("choice", "The correct answer is option (B).", "B", RIGHT, "the word option"),
    ("choice", "The answer is C, because A is wrong", "C", RIGHT, "a reason names others"),
    ("choice", "The answer is 12", "C", UNPARSED, "the option's value is no letter"),
    ("choice", "The answer is A apple", "A", UNPARSED, "an article is no letter"),
    ("choice", "The answer is neither", "N", UNPARSED, "no letter"),
    ("exact", "The answer is **New York**.", "new york", RIGHT, "case and Markdown"),
    ("exact", "The answer is York", "New York", WRONG, "no substring match"),
]


@pytest.mark.parametrize(("verifier", "text", "reference", "verdict", "why"), HABITS)
def test_habits(verifier, text, reference, verdict, why):
    answer = find(text, verifier)
    assert answer is not None, why
    assert equal(answer, reference, verifier) is verdict, why
