"""The wheel: built from a copy of the tree, installed elsewhere, used from another folder."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import deeplab_tf

ROOT = Path(__file__).resolve().parent.parent
PACKAGED = (
    "setup.py",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "deeplab_tf",
    "datasets",
    "export",
)
# Where a distribution has another name than the module that is imported.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "ai_edge_litert": "ai-edge-litert",
    "google": "protobuf",
    "tensorflow_datasets": "tensorflow-datasets",
}
NO_CACHES = shutil.ignore_patterns("__pycache__", "*.egg-info")


def pip(*arguments: str, cwd: Path) -> None:
    """Runs pip without network."""
    command = [sys.executable, "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check"]
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this tree. A copy is built: setuptools leaves its own folders behind."""
    copy = tmp_path_factory.mktemp("tree")
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=NO_CACHES)
        else:
            shutil.copy(ROOT / name, copy / name)
    # Beside the package in every checkout, and no part of it.
    (copy / "tests").mkdir()
    (copy / "tests" / "__init__.py").touch()
    pip("wheel", ".", "--no-deps", "--no-build-isolation", "--wheel-dir", "wheels", cwd=copy)
    (path,) = (copy / "wheels").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with nothing but the installed wheel; its dependencies are this interpreter's."""
    target = tmp_path_factory.mktemp("installed")
    pip("install", str(wheel), "--no-deps", "--no-index", "--target", str(target), cwd=target)
    return target


@pytest.fixture
def run_elsewhere(installed, tmp_path):
    """Runs a command in another folder, where only the installed package can be found."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}

    def run(*command: str) -> str:
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run


def packaged_files() -> dict[str, Path]:
    """Name in the wheel -> file in the tree, for all code and presets."""
    files = {}
    for folder, name in (
        ("deeplab_tf", "deeplab_tf"),
        ("datasets", "deeplab_tf/datasets"),
        ("export", "deeplab_tf/export"),
    ):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                files[f"{name}/{path.relative_to(ROOT / folder).as_posix()}"] = path
    return files


def test_the_wheel_holds_every_file_of_the_package_and_no_other(wheel):
    shipped = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    assert sorted(shipped) == sorted(packaged_files())


def test_files_in_the_wheel_equal_those_of_the_tree(wheel):
    archive = zipfile.ZipFile(wheel)
    changed = [n for n, path in packaged_files().items() if archive.read(n) != path.read_bytes()]
    assert changed == []


def test_the_metadata_names_version_licence_and_readme(wheel):
    archive = zipfile.ZipFile(wheel)
    info = f"deeplab_tf-{deeplab_tf.__version__}.dist-info"
    metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    assert metadata["Version"] == deeplab_tf.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text("utf-8").strip()
    assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()


def imported_distributions() -> set[str]:
    """What the package's files import, at the top or inside functions, beside Python's own."""
    modules = set()
    for name, path in packaged_files().items():
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                if isinstance(node, ast.Import):
                    modules |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    modules.add(node.module.partition(".")[0])
    foreign = modules - sys.stdlib_module_names - {"deeplab_tf"}
    return {DISTRIBUTIONS.get(module, module) for module in foreign}


def test_dependencies_are_those_that_the_code_imports(wheel):
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    required = email.message_from_bytes(archive.read(name)).get_all("Requires-Dist")
    names = {
        r: re.match(r"[\w-]+", r)[0]
        for r in required
        if "extra == 'dev'" not in r.replace('"', "'")
    }
    core = {name for requirement, name in names.items() if "extra ==" not in requirement}
    imported = imported_distributions()
    assert imported - set(names.values()) == set(), "imported, not declared"
    assert core - imported == set(), "declared, never imported"


def test_only_one_name_is_installed_at_the_top(installed):
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"deeplab_tf", "bin"}


def test_the_installed_package_imports_from_another_folder(run_elsewhere, installed):
    code = (
        "import deeplab_tf, deeplab_tf.datasets, deeplab_tf.export\n"
        "print(*(m.__file__ for m in (deeplab_tf, deeplab_tf.datasets, deeplab_tf.export)))"
    )
    files = run_elsewhere(sys.executable, "-c", code).split()
    rooms = ("", "datasets/", "export/")
    assert files == [str(installed / "deeplab_tf" / f"{room}__init__.py") for room in rooms]


def test_the_installed_command_answers(run_elsewhere, installed):
    command = str(installed / "bin" / "deeplab-tf")
    assert deeplab_tf.__version__ in run_elsewhere(command, "--version")
    assert "predict" in run_elsewhere(command, "--help")


def test_the_installed_portrait_preset_segments_a_picture(run_elsewhere):
    code = (
        "import deeplab_tf as dl, matplotlib.cbook\n"
        "photo = matplotlib.cbook.get_sample_data('grace_hopper.jpg', asfileobj=False)\n"
        "result = dl.segment(dl.from_preset('portrait'), photo)\n"
        "print(result.labels.shape, round(float((result.labels == 1).mean()), 3))"
    )
    *_, last = run_elsewhere(sys.executable, "-c", code).splitlines()
    shape, share = last.rsplit(" ", 1)
    assert shape == "(600, 512)"
    # By eye: she fills about half of the photo.
    assert 0.35 < float(share) < 0.75
