import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachedeval.evals.scorers.numeric import last_number, numeric, read_tolerance

CASES: dict[str, str | None] = {
    "42": "42",
    "-5": "-5",
    "\u22125": "-5",
    "+5": "5",
    "The answer is 42.": "42",
    "1,234.5": "2469/2",
    "1,234": "1234",
    "1.234,5": "2469/2",
    "1.234": "617/500",
    "3,14": "157/50",
    "0,123": "123/1000",
    "1.234.567": "1234567",
    "1,234,567": "1234567",
    "12,34,567": "1234567",
    "1 234": "234",
    "1\u202f234": "1234",
    "1'234.5": "2469/2",
    "1_000": "1000",
    "1/2": "1/2",
    "3 1/4": "13/4",
    "1\xbd": "3/2",
    "\xbd": "1/2",
    "-\xbd": "-1/2",
    "5/12/2024": "2024",
    "2024-05-01": "1",
    "3-5": "5",
    "$5": "5",
    "-$5": "-5",
    "$-5": "-5",
    "$1,000.00": "1000",
    "50%": "50",
    "5 km": "5",
    "5km": "5",
    "1e3": "1000",
    "1.5E-3": "3/2000",
    "1.5\xd710^3": "1500",
    "1.5 x 10^{-3}": "3/2000",
    "2\xd710\xb3": "2000",
    "10^3": "1000",
    "2^10": "1024",
    "5\xb2": "25",
    "20 m\xb2": "20",
    "20 m^2": "20",
    "H2O": None,
    "x5": None,
    "none": None,
    "": None,
    ".5": "1/2",
    "-.5": "-1/2",
    "(-5)": "-5",
    "x = -5": "-5",
    "= - 5": "-5",
    "10 - 5": "5",
    "\\boxed{42} in 3 steps": "42",
    "\\boxed{\\frac{1}{2}}": "1/2",
    "-\\frac{1}{2}": "-1/2",
    "\\frac{-1}{2}": "-1/2",
    "#### 18": "18",
    "so 3 #### 1,000": "1000",
    "1{,}000": "1000",
    "1\\,000": "1000",
    "\u0663\u0664": "34",
    "\u0663\u066b\u0665": "7/2",
    "\u0661\u066c\u0662\u0663\u0664": "1234",
    "\uff15": "5",
    "\u200f-5\u200e": "-5",
    "answer\u2067 12\u2069": "12",
    "\u7b54\u6848\u662f5": "5",
    "1/0": None,
    "1e999": None,
    "1, 2, 3": "3",
    "1,2,3": "3",
    "192.168.0.1": "1",
    "v1.2": None,
    "42. (Step 3)": "3",
    "5.": "5",
    "1,000,": "1000",
    "-1,234.50": "-2469/2",
    "1.5.": "3/2",
    "between 3 and 4": "4",
    "3:30": "30",
    "5\u20136": "6",
    "\u20135": "-5",
    "0.30": "3/10",
    "1,00,000": "100000",
    "007": "7",
    "1e5": "100000",
    "2 e 3": "3",
    "100.000": "100",
    "(1,2)": "6/5",
    "2/3 cups": "2/3",
}


@pytest.mark.parametrize("text", CASES)
def test_the_last_number_of_an_answer(text: str) -> None:
    value = CASES[text]
    assert last_number(text) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("response", "reference", "tolerance", "score"),
    [
        ("The total is $1,234.50.", "1234.5", "0", 1),
        ("5 km", "5 miles", "0", 1),  # units are not compared
        ("-5", "5", "0", 0),
        ("0.5", "1/2", "0", 1),
        ("1000000000001", "1000000000000", "0", 0),
        ("0.1", "0.10000000000000001", "0", 0),  # exactly
        ("3.14", "3.14159", "0.01", 1),
        ("3.14", "3.14159", "0.001", 0),
        ("3.15", "3.14", "0.01", 1),  # the bound itself, where floats would miss it
        ("99", "100", "1%", 1),
        ("-101", "-100", "1%", 1),
        ("98.9", "100", "1%", 0),
        ("no number", "5", "0", 0),
        ("", "0", "0", 0),
        ("0", "", "0", 0),
    ],
)
def test_numbers_are_compared_by_value(
    response: str, reference: str, tolerance: str, score: float
) -> None:
    assert numeric(response, reference, tolerance) == score


@pytest.mark.parametrize("tolerance", ["", "-1", "a", "1%%", "nan", "inf", "1e999", "٣"])
def test_a_tolerance_is_a_number(tolerance: str) -> None:
    with pytest.raises(ValueError, match="is not a number such as"):
        read_tolerance(tolerance)


@given(st.integers(-(10**12), 10**12), st.integers(0, 6))
def test_a_number_is_read_however_it_is_grouped(whole: int, digits: int) -> None:
    value = Fraction(whole, 10**digits)
    for form in (f"{{:,.{digits}f}}", f"{{:.{digits}f}}", f"{{:_.{digits}f}}"):
        text = form.format(float(value))
        if math.isclose(float(text.replace(",", "").replace("_", "")), float(value)):
            assert last_number(f"It is {text}.") == Fraction(text.replace(",", "").replace("_", ""))


@given(st.text(st.sampled_from("0123456789.,/^*x-+$%{}\\ \n\u00bd\u00b2eE'_\u0663\u200f(")))
def test_any_text_has_a_number_or_none(text: str) -> None:
    found = last_number(text)
    assert found is None or isinstance(found, Fraction)
    assert numeric(text, text) == (found is not None)


def test_numbers_that_are_too_long_are_none() -> None:
    for text in ("9" * 500, "1e999", "10^9999", "1.5e-9999", "9^9^9^9"):
        assert last_number(text) is None or len(str(last_number(text))) < 1000
