"""Packaging. `datasets/` and `export/` stand beside the package in the tree and inside it once
installed: bare top-level modules of those names would collide with other distributions."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# The version has one home, deeplab_tf/__init__.py. It is read as text: importing the package
# here would need what this file is about to install.
VERSION = re.search(
    r'^__version__ = "(.+)"$', (ROOT / "deeplab_tf" / "__init__.py").read_text(), re.MULTILINE
).group(1)

# The core: what the commands and Python lines at the top of the README need, nothing else.
CORE = [
    # Models, training, records, SavedModel and TFLite conversion. Held to one minor release: the
    # converter and the kernels behind the exported files change from one to the next.
    "tensorflow>=2.21,<2.22",
    # Layers, `fit` and every backend-agnostic operation; TensorFlow 2.21 asks for the same.
    "keras>=3.12",
    # Runs .tflite files. Core, not an extra: `demo` must work after a plain install, each TFLite
    # export is run before it gets its name, and `predict FILE.tflite` may not load TensorFlow
    # (TensorFlow's own interpreter is deprecated in favour of this one). It is small beside
    # TensorFlow (some 15 MB) and has wheels for Linux, macOS and Windows.
    "ai-edge-litert>=2.3",
    # Labels and metadata inside .tflite files, written from their published schema.
    "flatbuffers",
    # Says why a frozen graph can't be read. TensorFlow brings it; its range is the one that fits.
    "protobuf",
    # Labels, metrics and weights outside the graph.
    "numpy",
    # Matches slots with masks in the mask transformers' loss: exact, in C++, and on every platform.
    "scipy",
    # Reads and writes pictures.
    "pillow",
    # Curves and pages of pictures; it also ships the photo of `deeplab-tf demo`.
    "matplotlib",
    # Progress bars and tables on the terminal.
    "rich",
    # The command line.
    "click>=8.1",
]

EXTRAS = {
    # Data sets from TensorFlow Datasets, for users who are online (`oxford_iiit_pet`).
    "tfds": [
        "tensorflow-datasets>=4.9.10",
        "importlib_resources",  # which it imports on Python 3.11 without asking for it
    ],
    # Other backends for models, losses and metrics (KERAS_BACKEND=jax or torch). Records and
    # export stay with TensorFlow.
    "jax": ["jax"],
    "torch": ["torch"],
    # Training writes its scores and a few pictures for it where it is installed.
    "tensorboard": ["tensorboard"],
    # LiteRT moved into the core; the name stays valid.
    "lite": [],
    # The fully connected CRF outside a graph: compiles its loops over pixels and lattice vertices,
    # some ten times as fast as the same in NumPy. llvmlite is numba's own; a few of the loops are
    # written in it, for vectors that the compiler doesn't find by itself.
    "crf": ["numba", "llvmlite"],
    # What `make test` runs.
    "dev": [
        "hypothesis",  # properties of transforms and labels
        "jax",  # models give the official numbers on another backend too
        "mypy>=1.15",
        "numba",  # the CRF, and its properties
        "llvmlite",
        "pycocotools>=2.0.11",  # the average precision of instances must be its
        "pytest>=8",
        "pytest-timeout",  # a test that hangs ends with a traceback
        "pytest-xdist",  # one worker per core, see the Makefile
        "ruff>=0.9",
        "tensorboard",  # reads what training wrote for it
        "setuptools>=77",  # tests/test_packaging.py builds the wheel without network
    ],
}

setup(
    name="deeplab-tf",
    version=VERSION,
    description="The DeepLab family in Keras 3, from photos and masks to a phone-ready model.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license_expression="Apache-2.0",
    license_files=["LICENSE"],
    keywords="deeplab semantic segmentation keras tensorflow tflite portrait background",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["deeplab_tf*"])
    + [f"deeplab_tf.{name}" for name in find_packages(include=["datasets*", "export*"])],
    package_dir={"deeplab_tf.datasets": "datasets", "deeplab_tf.export": "export"},
    # A preset is a folder: config.json, weights.npz, the exported .tflite, a model card and its
    # pictures. Everything in it ships.
    package_data={"deeplab_tf": ["py.typed", "presets/*/*"]},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["deeplab-tf = deeplab_tf.cli:main"]},
)
