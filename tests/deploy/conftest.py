"""Tests here pack and deploy the tiny bundles of tests/runtime."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "runtime"))
