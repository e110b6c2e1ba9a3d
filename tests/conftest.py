"""What every test shares."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.remote import Producer

from tests.apart import leave_the_network
from tests.ports import keep_apart
from tests.spread import ByFile

# a busy machine is no fault of the code; a run says what a change did, so its cases are the same each time: `make laws`
# seeks new ones
settings.register_profile(
    "policyd", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("laws", settings.get_profile("policyd"), derandomize=False, print_blob=True)
settings.load_profile("policyd")

SHRINKING = 900  # seconds in which a law that fails finds its smallest example


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--update-golden` writes what the code makes now into the golden files."""
    parser.addoption("--update-golden", action="store_true", help="rewrite the golden files")


def pytest_configure(config: pytest.Config) -> None:
    """Keep apart what several processes start."""
    keep_apart()
    if "PYTEST_XDIST_WORKER" in os.environ and config.option.markexpr.startswith("e2e"):
        leave_the_network()


@pytest.hookimpl(trylast=True)  # after Hypothesis, which says what is a law
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give laws the time to say what breaks them."""
    for item in items:
        if item.get_closest_marker("hypothesis"):
            item.add_marker(pytest.mark.timeout(SHRINKING))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Say what goes to which of several processes."""
    return ByFile(config, log)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `needs(tool)`, naming the tool, unless it is here."""
    for marker in item.iter_markers("needs"):
        for tool in marker.args:
            missing = os.geteuid() != 0 if tool == "root" else shutil.which(tool) is None
            if missing:
                pytest.skip(f"needs {tool}, which is not here")


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).parent.parent


@pytest.fixture
def logging_restored() -> Iterator[None]:
    """Logging is the process's: put back what was there."""
    root = logging.getLogger()
    handlers, level, ours = root.handlers[:], root.level, logging.getLogger("policyd").level
    root.handlers = []
    yield
    root.handlers = handlers
    root.setLevel(level)
    logging.getLogger("policyd").setLevel(ours)
    structlog.reset_defaults()
