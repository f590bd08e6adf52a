"""Options of the test run, and one quiet TensorFlow for all of it."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

ROOT = Path(__file__).parent.parent


def pytest_addoption(parser):
    parser.addoption(
        "--golden-dir",
        type=Path,
        default=ROOT / "tests" / "golden" / "data",
        help="folder of golden cases: <family>/<case>.json with or without .npz",
    )
    parser.addoption(
        "--pretrained-dir",
        type=Path,
        default=ROOT.parent / "shared" / "pretrained",
        help="folder with official weights and the answers they must give",
    )
