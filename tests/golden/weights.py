"""Deterministic weights and inputs for the golden fixtures.

A fixture stores outputs only.  Its weights are a pure function of each
variable's name, shape and kind, so any implementation can regenerate them:

    from weights import make, input_image
    value = make("MobilenetV2/Conv/weights", (3, 3, 3, 32), "conv")
    image = input_image(97, 97)            # uint8, HWC, RGB, 0..255

Rules
-----
* The random stream of a variable is ``numpy.random.RandomState(crc32(name))``.
  (RandomState, not default_rng: NumPy guarantees that its stream never
  changes.)  ``name`` is the full variable name without a ``:0`` suffix.
* Kernels are ``N(0, 1) * gain / sqrt(fan_in)``; the other kinds are drawn as in
  ``_VECTORS`` below.  Values are drawn in C order of ``shape``, as float64, and
  then rounded to float32.
* A fixture's JSON records every variable's kind and the ``gain`` used, so
  nothing has to be guessed.  ``guess_kind`` exists for the programs that write
  fixtures.

Kinds
-----
``conv``        kernel (..., in, out): fan_in = product of all but the last axis
``depthwise``   kernel (kh, kw, channels, multiplier): fan_in = kh * kw
``transpose``   kernel (kh, kw, out, in): fan_in = kh * kw * in
``dense``       matrix (in, out): fan_in = in
``conv_oihw``   PyTorch kernel (out, in / groups, kh, kw), also a PyTorch
                matrix (out, in): fan_in = product of all but the first axis
``gamma``, ``beta``, ``bias``, ``moving_mean``, ``moving_variance``
``table``       anything else that is learnt (embeddings, position encodings,
                tokens): N(0, 0.1)
``zero``        counters and other state: zeros
"""

import zlib

import numpy as np

DEFAULT_GAIN = 1.0

# kind -> (distribution, a, b): uniform in [a, b) or normal(mean a, stddev b).
_VECTORS = {
    "gamma": ("uniform", 0.8, 1.2),
    "beta": ("normal", 0.0, 0.1),
    "bias": ("normal", 0.0, 0.1),
    "moving_mean": ("normal", 0.0, 0.1),
    "moving_variance": ("uniform", 0.5, 1.5),
    "table": ("normal", 0.0, 0.1),
}

_BY_LAST_NAME = {
    "depthwise_weights": "depthwise",
    "depthwise_kernel": "depthwise",
    "pointwise_weights": "conv",
    "pointwise_kernel": "conv",
    "gamma": "gamma",
    "beta": "beta",
    "biases": "bias",
    "bias": "bias",
    "moving_mean": "moving_mean",
    "running_mean": "moving_mean",
    "moving_variance": "moving_variance",
    "running_var": "moving_variance",
    "num_batches_tracked": "zero",
}


def guess_kind(name, shape):
    """Guesses a variable's kind from the last part of its name and its rank.

    TF1 slim and Keras names are split at "/", PyTorch names at ".".
    """
    rank = len(shape)
    path = name.split(":")[0].replace(".", "/").split("/")
    last = path[-1]
    if last in _BY_LAST_NAME:
        return _BY_LAST_NAME[last]
    if last == "weight":  # PyTorch
        return "conv_oihw" if rank >= 2 else "gamma"
    if last in ("weights", "kernel"):
        if rank == 4 and "depthwise" in name.lower():
            return "depthwise"
        if rank >= 3:
            return "conv"
        if rank == 2:
            return "dense"
    return "table" if rank else "zero"


def fan_in(shape, kind):
    """Number of inputs that one output of the kernel sums over."""
    if kind in ("conv", "dense"):
        axes = shape[:-1]
    elif kind == "depthwise":
        axes = shape[:2]
    elif kind == "transpose":
        axes = shape[:2] + shape[3:]
    elif kind == "conv_oihw":
        axes = shape[1:]
    else:
        raise ValueError(f"kind {kind!r} has no fan_in")
    return int(np.prod(axes, dtype=np.int64))


def make(name, shape, kind=None, gain=DEFAULT_GAIN):
    """Returns the float32 value of one variable."""
    shape = tuple(int(n) for n in shape)
    kind = kind or guess_kind(name, shape)
    if kind == "zero":
        return np.zeros(shape, np.float32)
    random = np.random.RandomState(zlib.crc32(name.encode("utf-8")) & 0xFFFFFFFF)
    if kind in _VECTORS:
        distribution, a, b = _VECTORS[kind]
        if distribution == "uniform":
            return random.uniform(a, b, size=shape).astype(np.float32)
        return (a + b * random.standard_normal(size=shape)).astype(np.float32)
    scale = gain / np.sqrt(fan_in(shape, kind))
    return (scale * random.standard_normal(size=shape)).astype(np.float32)


def input_image(height, width, seed=0):
    """Returns a uint8 RGB image (height, width, 3): smooth waves plus noise."""
    random = np.random.RandomState(1000003 + seed)
    y = np.arange(height, dtype=np.float64)[:, None] / 64.0
    x = np.arange(width, dtype=np.float64)[None, :] / 64.0
    image = np.empty((height, width, 3), np.float64)
    for channel in range(3):
        plane = np.zeros((height, width))
        for _ in range(6):
            fy, fx = random.uniform(-3.0, 3.0, size=2)
            phase = random.uniform(0.0, 2.0 * np.pi)
            plane += np.sin(2.0 * np.pi * (fy * y + fx * x) + phase)
        image[:, :, channel] = 127.5 + 40.0 * plane
    image += random.uniform(-12.0, 12.0, size=image.shape)
    return np.clip(np.floor(image), 0, 255).astype(np.uint8)
