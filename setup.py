"""Packaging. `datasets/` and `export/` stand beside the package in the tree and inside it once
installed: bare top-level modules of those names would collide with other distributions."""

from setuptools import find_packages, setup

setup(
    name="deeplab-tf",
    version="0.1.0",
    python_requires=">=3.11",
    packages=find_packages(include=["deeplab_tf*"])
    + [f"deeplab_tf.{name}" for name in find_packages(include=["datasets*", "export*"])],
    package_dir={"deeplab_tf.datasets": "datasets", "deeplab_tf.export": "export"},
    package_data={"deeplab_tf": ["presets/*/*"]},
    install_requires=["tensorflow>=2.21,<2.22", "keras>=3.12", "numpy", "pillow", "matplotlib", "rich", "click"],
    entry_points={"console_scripts": ["deeplab-tf = deeplab_tf.cli:main"]},
)
