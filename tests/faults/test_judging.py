import pytest
from faults.judging import main


@pytest.mark.thorough
def test_no_verdict_is_lost_and_no_limit_exceeded() -> None:
    assert main([]) == 0
