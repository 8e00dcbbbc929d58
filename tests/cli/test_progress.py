import io
import subprocess
import sys

import pytest

from cachedeval.cli.progress import progress_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_nothing_goes_into_a_pipe() -> None:
    stream = io.StringIO()
    with progress_of(stream) as show:
        assert show is None
    assert stream.getvalue() == ""


def test_a_bar_for_each_step_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress_of(stream) as show:
        assert show is not None
        for done in range(1, 4):
            show("generation", done, 3)
        show("judge", 1, 3)
    drawn = stream.getvalue()
    assert "generation" in drawn
    assert "3/3" in drawn
    assert "1/3" in drawn


def test_nothing_is_drawn_without_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with progress_of(stream):
        pass
    assert stream.getvalue() == ""


def test_the_cursor_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    def interrupted() -> None:
        with progress_of(stream) as show:
            assert show is not None
            show("judge", 1, 3)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    drawn = stream.getvalue()
    assert drawn.rfind("\x1b[?25h") > drawn.rfind("\x1b[?25l") >= 0


def test_a_run_of_hits_does_not_import_rich() -> None:
    program = (
        "import sys, cachedeval.cli.progress as p\n"
        "with p.progress_of(sys.stdout): pass\n"
        "sys.exit('rich' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
