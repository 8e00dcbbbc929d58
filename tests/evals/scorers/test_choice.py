import pytest

from cachedeval.evals.scorers.choice import choice, committed, letter_of

CASES: dict[str, str | None] = {
    "B": "B",
    "b": "B",
    " (B) ": "B",
    "B.": "B",
    "**B**": "B",
    "B) Paris": "B",
    "B. Paris": "B",
    "(b) Paris": "B",
    "B: Paris": "B",
    "The answer is B.": "B",
    "The answer is (B).": "B",
    "Answer: B": "B",
    "answer:B": "B",
    "ANSWER: b": None,
    "The correct answer is option C": "C",
    "The correct option is **C**.": "C",
    "\\boxed{D}": "D",
    "So $\\boxed{\\text{D}}$.": "D",
    "I choose B": "B",
    "B is correct.": "B",
    "B is the best answer": "B",
    "Option B is the right one": "B",
    "A cat sat": None,
    "I think so": None,
    "It must be B because of x": "B",
    "A or B": None,
    "The answer is A or B": None,
    "The answer is A. Wait, the answer is C.": "C",
    "The answer is not A": None,
    "A is wrong. The answer is C": "C",
    "(A) Paris (B) Rome": None,
    "(A) Paris (B) Rome. The answer is (B)": "B",
    "Paris": None,
    "": None,
    "\u7b54\u6848\u662fB": "B",
    "\u7b54\u6848\uff1a\uff22": "B",
    "Antwort: C": "C",
    "La r\xe9ponse est D.": "D",
    "\u0627\u0644\u0625\u062c\u0627\u0628\u0629 \u0647\u064a B": "B",
    "\u200fB\u200e": "B",
    "C++ is it": None,
    "C# rocks": None,
    "Vitamin C helps": "C",
    "A": "A",
    "A.": "A",
    "i.e. so": None,
    "e.g. that": None,
    "A, because": "A",
    "The answer is A": "A",
    "The answer is a dog": None,
    "B\n\nBecause...": "B",
    "B and C": None,
    "Both A and C": None,
    "The best choice is E, since": "E",
    "I'd go with D.": "D",
    "My final answer: (c)": "C",
    "\u24b7": "B",
    "A) x\nB) y\nC) z": None,
    "C is incorrect, D is correct": "D",
    "Grade A+": None,
    "Choice: D": "D",
    "The answer is: \n\nB": "B",
    "The correct answer is B, not A": "B",
    "<answer>B</answer>": "B",
    "Answer is A/B": None,
    '{"answer": "B"}': "B",
}


@pytest.mark.parametrize("text", CASES)
def test_the_letter_that_an_answer_commits_to(text: str) -> None:
    assert committed(text) == CASES[text]


@pytest.mark.parametrize(
    ("reference", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(b)", "B"),
        ("B. Paris", "B"),
        ("B) Paris", "B"),
        ("#### B", "B"),
        ("Paris", None),
        ("A cat", None),
        ("3", None),
        ("", None),
    ],
)
def test_a_reference_is_a_letter_or_a_label(reference: str, letter: str | None) -> None:
    assert letter_of(reference) == letter


def test_no_letter_is_right_only_for_itself() -> None:
    assert choice("The answer is B.", "(b)") == 1
    assert choice("The answer is B.", "C") == 0
    assert choice("I do not know", "I") == 0
    assert choice("", "A") == 0
