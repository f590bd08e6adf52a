"""Makes build/types/deeplab_tf: the package as one folder of links, for type checkers.

In the tree `datasets/` and `export/` stand beside the package, and `setup.py` maps them into it.
Type checkers read folders, not `setup.py`: they leave `deeplab_tf.datasets` unresolved and pass
over errors in it. In this folder they find the package as it is once installed.

    python tools/link_types.py
"""

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "types" / "deeplab_tf"
# The folders that setup.py maps into the package.
MAPPED = ("datasets", "export")


def link_package(root: Path = ROOT, tree: Path = TREE) -> None:
    """Makes `tree` anew: one link per entry of the package, one per mapped folder."""
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    entries = [path for path in (root / "deeplab_tf").iterdir() if path.name != "__pycache__"]
    for path in (*entries, *(root / name for name in MAPPED)):
        (tree / path.name).symlink_to(path, target_is_directory=path.is_dir())


if __name__ == "__main__":
    link_package()
