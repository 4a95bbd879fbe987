"""The demonstration itself: every scene of it happens."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.demo import SCENES
from tests.support.namespaces import needs_namespaces

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_demonstration_happens_in_under_a_minute() -> None:
    needs_namespaces()
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tests.demo"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert all(title in done.stdout for title, _ in SCENES)
    assert time.monotonic() - start < 60
