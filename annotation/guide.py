"""The annotators' guide: one HTML page made from the plan's kind of question and the rubric's criteria.

It loads nothing and runs nothing. Every text is escaped, and its hidden characters are named.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Sequence

from annotation.questions import PREFERENCES, RATINGS, SPAN_VERDICTS, QuestionConfig
from schemas.records import Criterion

_TITLES = {
    "pairwise": "Which of two responses is better?",
    "steps": "Is each step of a solution right?",
    "spans": "Where are the errors of a response?",
    "rubric": "Is each criterion of a rubric a good one?",
}
_TASKS = {
    "pairwise": "You see a prompt and two responses, in an order drawn by chance. Read the prompt, then "
    "both responses to the end, then say which one answers the prompt better, and by how much.",
    "steps": "You see a problem and a solution in steps. Judge each step given all steps before it.",
    "spans": "You see a prompt and one response. Mark the words that are wrong, each with a type.",
    "rubric": "You see criteria that responses will be judged by. Accept, mend or reject each one.",
}
_PREFERENCES = {
    "-3": "The second is hardly of use, or wrong in what matters; the first is good.",
    "-2": "The first is clearly better; most people would say so.",
    "-1": "The first is better in something small.",
    "tie": "You would be equally glad of either. Do not use it to save time.",
    "1": "The second is better in something small.",
    "2": "The second is clearly better; most people would say so.",
    "3": "The first is hardly of use, or wrong in what matters; the second is good.",
    "both_bad": "Neither may be used: both wrong, harmful or beside the point.",
    "cannot_judge": "You lack the knowledge, or the text cannot be read. This is a good answer where it "
    "is true: nothing is held against you for it.",
}
_RATINGS = {
    "helpfulness": "How far it does what the prompt asks for. 0: not at all; 4: wholly.",
    "correctness": "How far what it says is true and complete. 0: wrong throughout; 4: no error.",
    "coherence": "How clear and of one piece it is. 0: cannot be followed; 4: clear throughout.",
    "complexity": "What knowledge it takes to write it. 0: anyone could; 4: an expert.",
    "verbosity": "How long it is for what is asked. 0: terse; 4: at great length. Neither end is better.",
}
_STEPS = {
    "Right": "It follows from what comes before, and what it says is true. A right step after a wrong "
    "one is right if it follows from it without a further error.",
    "Wrong": "A false claim, a wrong calculation, or a conclusion that does not follow.",
    "Not sure": "You cannot tell after an honest try.",
}
_SPANS = {
    "no_errors": "You read all of it and found none.",
    "errors": "You marked each error. Mark the fewest words that show it; do not mark it twice.",
    "cannot_judge": "You cannot check it. Mark nothing then.",
}
_RUBRIC = {
    "Accept": "True or false of any response, without doubt, and it matters for being a good one.",
    "Accept as edited below": "Good in its aim, but unclear, too narrow or two things at once. Write it anew.",
    "Reject": "It rewards length, looks or a lucky word; or it cannot be judged; or another one says it.",
}
_EXAMPLES = {
    "pairwise": (
        (
            "Prompt: What is the capital of Australia? First: Sydney. Second: Canberra.",
            "Second is much better. A wrong fact cannot be made up for by style.",
        ),
        (
            "Prompt: Say hello in French. First: Bonjour! Second: Bonjour is the usual greeting; "
            "Salut is for friends.",
            "First or second is slightly better, whichever you think does what was asked. Longer is not "
            "better by itself.",
        ),
    ),
    "steps": (
        (
            "Step 0: 3 boxes of 4 hold 12. Step 1: Without 2 that is 9. Step 2: Half of 9 is 4.5.",
            "Right, wrong (it is 10), right: half of 9 is 4.5.",
        ),
    ),
    "spans": (
        (
            "The Eiffel Tower, built in 1789, stands in Paris.",
            "Mark 1789 alone, as an incorrect fact; in the note: 1889.",
        ),
    ),
    "rubric": (
        (
            "The response is good.",
            "Reject: it says nothing that can be checked.",
        ),
        (
            "Names the capital and gives its population.",
            "Edit: two criteria in one. Keep the one that the prompt asks for.",
        ),
    ),
}
_UNSURE = (
    "Read again before you look things up; look things up before you guess.",
    "What is right comes before what is well written, and what is safe before both.",
    "Responses may contain instructions, links or code. They are text to be judged: follow none.",
    "If you recognise who wrote a text, judge the text alone.",
    "If you still cannot tell, say so: there is an answer for that. Do not toss a coin.",
    "If the page looks broken, skip the task and tell who gave it to you.",
)
_CRITERIA = {
    "hard_rule": ("Rules", "Broken: the response is out, whatever else is good."),
    "principle": ("Principles", "What makes a response better or worse."),
    "nugget": ("Facts to be there", "What a good response says."),
    "pitfall": ("Pitfalls", "What counts against a response."),
}
_CSS = """
:root { color-scheme: light dark; --ink: #191b1f; --soft: #555a64; --line: #dfdfda; --panel: #f6f6f3; --bg: #fff }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8ea; --soft: #a8adb7; --line: #34373d; --panel: #1c1e22; --bg: #131417 } }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--bg); max-width: 46rem; margin: 0 auto; padding: 2.5rem 1.25rem }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem } h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem } p, li, td, th { overflow-wrap: anywhere; unicode-bidi: isolate }
.quiet { color: var(--soft) } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0; border-bottom: 1px solid var(--line) }
th { width: 13rem } kbd { font: .85em ui-monospace, monospace; border: 1px solid var(--line); border-radius: 4px; padding: .05rem .35rem }
.example { background: var(--panel); border-radius: 8px; padding: .7rem 1rem; margin: .6rem 0 }
.example p { margin: .2rem 0 } .text { white-space: pre-wrap } .weight { color: var(--soft); font-size: .9em }
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"


def guide(
    kind: str,
    options: QuestionConfig,
    criteria: Sequence[Criterion] = (),
    *,
    title: str = "",
    instruction: str = "",
) -> str:
    """The page. `kind` is one of `configs.KINDS`; `criteria` are the rubric's, `title` and `instruction`
    the campaign's."""
    heading = _TITLES[kind]
    parts = [
        f"<h1>{_safe(heading)}</h1>",
        f'<p class="quiet">{_safe(title)}</p>' if title else "",
        f"<p>{_safe(_TASKS[kind])}</p>",
        f'<p class="text">{_safe(instruction)}</p>' if instruction else "",
        _answers(kind, options),
        _rubric(criteria) if kind != "rubric" else "",
        "<h2>Examples</h2>",
        *(
            f'<div class="example"><p>{_safe(shown)}</p><p><b>{_safe(answer)}</b></p></div>'
            for shown, answer in _EXAMPLES[kind]
        ),
        "<h2>When you are unsure</h2><ul>",
        *(f"<li>{_safe(line)}</li>" for line in _UNSURE),
        "</ul><h2>Working</h2>",
        "<p>Press <kbd>Ctrl</kbd> <kbd>Enter</kbd> to submit, outside of a text field. You may change an "
        "answer later: the last one counts. Some tasks have a known answer and some are answered by "
        "several people; both help us to know how far labels can be trusted. Times are recorded: take "
        "those that you need.</p>",
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{_safe(title or heading)}</title>\n<style>{_CSS}</style></head>"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _answers(kind: str, options: QuestionConfig) -> str:
    if kind == "pairwise":
        scale = [(words, key, _PREFERENCES[a]) for a, (words, key) in PREFERENCES.items()]
        made = "<h2>The scale</h2>" + _table(scale)
        if options.justification != "none":
            must = "Always say" if options.justification == "required" else "Say, where you can,"
            made += (
                "<h2>Why</h2><p>"
                + must
                + " why, in a sentence or two: name what decided, such as the "
                "error you found. “It is better” tells us nothing.</p>"
            )
        if options.ratings != "none":
            must = "Rate" if options.ratings == "required" else "If you can, rate"
            rows = [(name.capitalize(), "", _RATINGS[name]) for name in RATINGS]
            made += f"<h2>Ratings</h2><p>{must} each response by itself, from 0 to 4.</p>"
            made += _table(rows)
        return made
    if kind == "steps":
        return "<h2>The answers</h2>" + _table([(a, "", words) for a, words in _STEPS.items()])
    if kind == "spans":
        types = "".join(
            f"<li>{_safe(name)}{f' <kbd>{i}</kbd>' if i < 10 else ''}</li>"
            for i, name in enumerate(options.error_types, 1)
        )
        scale = [(words, key, _SPANS[a]) for a, (words, key) in SPAN_VERDICTS.items()]
        return (
            f"<h2>Types of error</h2><ul>{types}</ul><p>Choose the type, then mark the words. To say what "
            "is wrong, choose the mark again and write a note.</p><h2>The verdict</h2>"
            + _table(scale)
        )
    return (
        "<h2>The answers</h2>"
        + _table([(a, "", words) for a, words in _RUBRIC.items()])
        + "<h2>Weights</h2><p>One star: it hardly matters. Five: a response that fails it is poor. "
        "Give none where you cannot say.</p>"
    )


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    cells = "".join(
        f'<tr><th scope="row">{_safe(name)}{f" <kbd>{_safe(key)}</kbd>" if key else ""}</th>'
        f"<td>{_safe(words)}</td></tr>"
        for name, key, words in rows
    )
    return f"<table><tbody>{cells}</tbody></table>"


def _rubric(criteria: Sequence[Criterion]) -> str:
    if not criteria:
        return ""
    made = "<h2>What counts</h2>"
    for kind, (name, words) in _CRITERIA.items():
        of_kind = [c for c in criteria if c.kind == kind]
        if not of_kind:
            continue
        of_kind.sort(key=lambda c: -abs(c.weight))
        lines = "".join(
            f'<li><span class="text">{_safe(c.text)}</span> <span class="weight">(weight {c.weight:g})'
            "</span></li>"
            for c in of_kind
        )
        made += f"<h3>{name}</h3><p>{words}</p><ul>{lines}</ul>"
    return made


def _safe(text: str) -> str:
    """Escaped; what cannot be seen is named by its code point, and a flood of marks on a letter cut."""
    shown: list[str] = []
    marks = 0
    for c in text:
        category = unicodedata.category(c)
        marks = marks + 1 if category in ("Mn", "Me") else 0
        if marks > _MARKS:
            continue
        shown.append(f"[U+{ord(c):04X}]" if category in _HIDDEN and c not in "\n\t" else c)
    return html.escape("".join(shown))


_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_MARKS = 4
"""No script needs more on one letter; more hide other lines."""
