import logging
import subprocess
import sys

import pytest

from cachedeval import Engine, node
from cachedeval.engine import log


@node(version="1", name="parse")
def parse(text: str, api_key: str = "") -> int:
    del api_key
    return int(text)


def test_each_result_is_logged_at_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "cachedeval"), Engine() as engine:
        engine.run(parse("1"))
        engine.settle([parse("1"), parse("x", api_key="hunter2")])
    error = "ValueError: invalid literal for int() with base 10: 'x'"
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [
        ("cachedeval", "DEBUG", "<Outcome parse(text='1', api_key=***): computed 1>"),
        ("cachedeval", "DEBUG", "<Outcome parse(text='1', api_key=***): hit 1>"),
        ("cachedeval", "DEBUG", f"<Outcome parse(text='x', api_key=***): failed {error}>"),
    ]


def test_nothing_is_logged_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "cachedeval"), Engine() as engine:
        engine.run([parse("1"), parse("2")])
    assert not caplog.records


def test_the_package_adds_no_handler() -> None:
    assert log.logger() is logging.getLogger("cachedeval")
    assert not log.logger().handlers
    assert log.logger().propagate


@pytest.mark.slow
def test_a_program_without_logging_does_not_import_it() -> None:
    program = (
        "import sys; from cachedeval import Engine, node\n"
        "from cachedeval.engine.log import debug_logger\n"
        "@node(version='1')\n"
        "def f(x): return x\n"
        "with Engine() as e: e.run(f(1))\n"
        "assert debug_logger() is None or 'logging' in sys.modules\n"
        "sys.modules.pop('logging', None)\n"
        "import cachedeval.engine.log as log; log._known = None\n"
        "assert debug_logger() is None\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
