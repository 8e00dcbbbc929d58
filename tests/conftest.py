"""How much hypothesis tries: a little on each run, 10,000 examples a law with `--thorough`."""

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("quick", max_examples=40, deadline=None)
settings.register_profile(
    "thorough",
    max_examples=10_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("quick")

_HOUR = 3600


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--thorough",
        action="store_true",
        help="try 10,000 examples of each law, and all that lasts",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--thorough"):
        settings.load_profile("thorough")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    thorough = config.getoption("--thorough")
    for item in items:
        if thorough:
            item.add_marker(pytest.mark.timeout(_HOUR))
        elif item.get_closest_marker("thorough"):
            item.add_marker(pytest.mark.skip(reason="lasts long: run with --thorough"))
