"""Who may import whom: the rooms of the package, checked by reading the files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Room -> the rooms it may import, beside itself. A single file at the top (`keys`) is a room too.
BASE = {
    *("keys", "errors", "files", "class_lists", "pictures", "panoptic_format"),
    "panoptic_pictures",
}
MODELS = BASE | {"layers", "backbones", "models"}
AFTER_MODELS = {"losses", "metrics", "postprocess", "checkpoints"}
INFERENCE = MODELS | AFTER_MODELS | {"inference"}
TRAINING = INFERENCE | {"datasets", "training", "configs"}
MAY_IMPORT = {
    "keys": set(),
    "errors": set(),
    "files": {"errors"},
    "class_lists": set(),
    "pictures": {"keys", "errors", "files"},
    "panoptic_format": {"errors", "files", "class_lists", "pictures"},
    "panoptic_pictures": {"panoptic_format", "pictures"},
    "datasets": BASE,
    "layers": BASE,
    "backbones": BASE | {"layers"},
    "models": BASE | {"layers", "backbones"},
    # These four never import each other.
    **{room: MODELS for room in AFTER_MODELS},
    "inference": MODELS | AFTER_MODELS,
    "training": INFERENCE | {"datasets"},
    # A config file is data for `training`, which opens it by name; it may name how to augment.
    "configs": {"training", "datasets"},
    "export": TRAINING,
    "cli": TRAINING | {"export"},
}
# Rooms and files that may import TensorFlow; all else is Keras on any backend, or neither.
TENSORFLOW = (
    "datasets/",
    "export/",
    "deeplab_tf/checkpoints/",
    "deeplab_tf/layers/atrous.py",
    "deeplab_tf/layers/resize.py",
    "deeplab_tf/layers/normalization.py",
    "deeplab_tf/losses/matching.py",
)
# Modules that must stay light: `predict FILE.tflite` and `--help` answer without TensorFlow.
LIGHT = (
    "deeplab_tf",
    "deeplab_tf.errors",
    "deeplab_tf.files",
    "deeplab_tf.keys",
    "deeplab_tf.panoptic_format",
    "deeplab_tf.panoptic_pictures",
    "deeplab_tf.pictures",
    "deeplab_tf.inference.litert",
    "deeplab_tf.inference.panoptic",
    "deeplab_tf.postprocess.segments",
)


def sources() -> list[str]:
    """Every Python file of the package, relative to the root."""
    files = [
        path
        for folder in ("deeplab_tf", "datasets", "export")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    return [path.relative_to(ROOT).as_posix() for path in files]


def room_of(source: str) -> str:
    """The room of a file: "deeplab_tf/layers/conv.py" -> "layers"."""
    return Path(source.removeprefix("deeplab_tf/")).parts[0].removesuffix(".py")


def imported_modules(code: str) -> list[str]:
    """Full names of the modules that a file imports anywhere, also inside functions.

    `from deeplab_tf import files` counts as `deeplab_tf.files`.
    """
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                names.append("." * node.level + (node.module or ""))
            elif node.module == "deeplab_tf":
                names += [f"deeplab_tf.{alias.name}" for alias in node.names]
            else:
                names.append(node.module)
    return names


def mistakes(source: str, code: str) -> list[str]:
    """What is wrong with the imports of one file, one line each."""
    room, found = room_of(source), []
    for name in imported_modules(code):
        top, _, rest = name.partition(".")
        if name.startswith("."):
            found.append(f"{source} imports {name}: write the full name")
        elif top in ("datasets", "export"):
            found.append(f"{source} imports a bare {name}: that is another distribution's name")
        elif top in ("tensorflow", "tf_keras") and not source.startswith(TENSORFLOW):
            found.append(f"{source} imports {name}: {room} is backend-agnostic")
        elif top == "deeplab_tf":
            other = rest.partition(".")[0]
            # `from deeplab_tf import __version__` reads the package itself, not a room.
            if other not in MAY_IMPORT[room] | {room, "__version__"}:
                found.append(f"{source} imports {name}: {room} may not import {other or 'all'}")
    return found


@pytest.mark.parametrize("source", [s for s in sources() if s != "deeplab_tf/__init__.py"])
def test_a_file_imports_only_from_rooms_it_may(source):
    assert mistakes(source, (ROOT / source).read_text()) == []


def test_the_package_itself_imports_nothing_but_the_standard_library():
    names = imported_modules((ROOT / "deeplab_tf" / "__init__.py").read_text())
    assert {name.partition(".")[0] for name in names} <= sys.stdlib_module_names


def test_every_room_has_its_place_in_the_order():
    assert {room_of(source) for source in sources()} - {"__init__"} <= set(MAY_IMPORT)


def test_the_order_has_no_circle():
    def reachable(room: str) -> set[str]:
        direct = MAY_IMPORT[room] - {"configs"}
        return direct.union(*(reachable(other) for other in direct))

    for room in set(MAY_IMPORT) - {"configs"}:
        assert room not in reachable(room), room


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("deeplab_tf/layers/conv.py", "import deeplab_tf.backbones"),
        ("deeplab_tf/layers/conv.py", "from deeplab_tf import models"),
        ("deeplab_tf/layers/conv.py", "def late():\n    from deeplab_tf.models.aspp import aspp"),
        ("deeplab_tf/layers/conv.py", "import tensorflow as tf"),
        ("deeplab_tf/losses/semantic.py", "from deeplab_tf.metrics import mean_iou"),
        ("deeplab_tf/models/base.py", "from deeplab_tf import from_preset"),
        ("deeplab_tf/training/train.py", "from deeplab_tf.export import tflite"),
        ("deeplab_tf/training/train.py", "import export.tflite"),
        ("deeplab_tf/training/train.py", "from datasets import pipeline"),
        ("deeplab_tf/training/train.py", "from .config import load_config"),
        ("datasets/pipeline.py", "from deeplab_tf.layers import resize"),
        ("export/tflite.py", "from deeplab_tf.cli import main"),
    ],
)
def test_a_forbidden_import_is_seen(source, code):
    assert len(mistakes(source, code)) == 1


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("deeplab_tf/layers/resize.py", "import tensorflow as tf"),
        ("deeplab_tf/training/train.py", "from deeplab_tf.datasets import pipeline"),
        ("deeplab_tf/models/base.py", "from deeplab_tf import __version__, files"),
        ("export/tflite.py", "import tensorflow as tf\nfrom deeplab_tf import inference"),
    ],
)
def test_an_allowed_import_passes(source, code):
    assert mistakes(source, code) == []


def heavy_modules_after(code: str) -> str:
    """Which of TensorFlow and Keras a fresh interpreter has loaded after running `code`."""
    report = "import sys\nprint([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True
    )
    return result.stdout.splitlines()[-1]


@pytest.mark.parametrize("module", LIGHT)
def test_importing_a_light_module_loads_neither_tensorflow_nor_keras(module):
    assert heavy_modules_after(f"import {module}") == "[]"


def test_help_loads_neither_tensorflow_nor_keras():
    code = "from deeplab_tf.cli import main\nmain(['--help'], standalone_mode=False)"
    assert heavy_modules_after(code) == "[]"


def test_a_model_loads_them_so_the_check_above_can_fail():
    assert heavy_modules_after("import deeplab_tf.layers.resize") == "['tensorflow', 'keras']"
