import pytest
from faults.judging import main


@pytest.mark.thorough
@pytest.mark.parametrize("row", ["retry_after", "deadline", "wrong_key", "chaos"])
def test_no_verdict_is_lost_or_wrong(row: str) -> None:
    # `limits_kept` is for a quiet machine: on a busy one, fewer requests leave than may.
    assert main(["--only", row]) == 0
