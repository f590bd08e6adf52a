"""Type checkers see into the mapped folders."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
link_package = runpy.run_path(str(ROOT / "tools" / "link_types.py"))["link_package"]


@pytest.fixture
def tree(tmp_path) -> Path:
    """A package laid out as ours, with its folder of links."""
    (tmp_path / "deeplab_tf").mkdir()
    (tmp_path / "deeplab_tf" / "__init__.py").touch()
    for name in ("datasets", "export"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("SIZE: int = 1\n")
    (tmp_path / "deeplab_tf" / "user.py").write_text("from deeplab_tf.export import SIZE\n")
    link_package(tmp_path, tmp_path / "build" / "types" / "deeplab_tf")
    return tmp_path


def mypy(tree: Path) -> subprocess.CompletedProcess:
    """Runs mypy as `make types` does, with this project's settings."""
    config = str(ROOT / "pyproject.toml")
    command = [sys.executable, "-m", "mypy", "--config-file", config]
    environment = {key: value for key, value in os.environ.items() if key != "MYPYPATH"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


def test_a_right_tree_passes(tree):
    result = mypy(tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("name", ["datasets", "export"])
def test_an_error_in_a_mapped_folder_is_seen(tree, name):
    (tree / name / "__init__.py").write_text("SIZE: int = 'one'\n")
    result = mypy(tree)
    assert result.returncode == 1
    assert f"deeplab_tf/{name}/__init__.py:1: error" in result.stdout


def test_the_types_of_a_mapped_folder_reach_those_who_import_it(tree):
    (tree / "deeplab_tf" / "user.py").write_text(
        "from deeplab_tf.datasets import SIZE\nSIZE + ''\n"
    )
    assert "deeplab_tf/user.py:2: error" in mypy(tree).stdout


def test_linking_again_drops_what_is_gone(tree):
    (tree / "deeplab_tf" / "user.py").unlink()
    types = tree / "build" / "types" / "deeplab_tf"
    link_package(tree, types)
    assert sorted(path.name for path in types.iterdir()) == ["__init__.py", "datasets", "export"]
