"""A tiny model that has learnt something: random weights would make every rounding a new class."""

import keras
import numpy as np
import pytest
from keras import layers

import deeplab_tf as dl
from deeplab_tf.layers.conv import conv_bn_act, separable_conv_bn_act
from deeplab_tf.layers.resize import ResizeLike

COLORS = np.array([[40, 60, 90], [220, 70, 60], [70, 200, 90]], np.float32)


def scene(random: np.random.RandomState, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A disc and a bar on a background, noisy: uint8 [H, W, 3] and the classes [H, W]."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width] / np.array([height, width]).reshape(2, 1, 1)
    label = np.zeros(size, np.int32)
    center, radius = random.uniform(0.3, 0.7, 2), random.uniform(0.15, 0.3)
    label[(y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2] = 1
    left = random.uniform(0, 0.8)
    label[(x > left) & (x < left + 0.15)] = 2
    image = COLORS[label] + random.normal(0, 12, (*size, 3)) + random.uniform(-20, 20)
    return np.clip(image, 0, 255).astype(np.uint8), label


def build(image_shape=(None, None, 3)) -> keras.Model:
    """Rescaling, dilated separable convolutions, a corner-aligned resize: the parts that matter."""
    image = keras.Input(image_shape, name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="preprocessed")(image)
    x = conv_bn_act(x, 8, 3, strides=2, name="stem")
    x = conv_bn_act(x, 16, 3, strides=2, name="down")
    branches = [
        separable_conv_bn_act(x, 8, 3, dilation_rate=rate, name=f"aspp{rate}") for rate in (1, 2, 4)
    ]
    x = layers.Concatenate(name="concat")(branches)
    x = layers.Conv2D(3, 1, name="logits")(x)
    return keras.Model(image, ResizeLike(name="semantic_logits")([x, image]), name="tiny")


@pytest.fixture(scope="session")
def build_tiny():
    """`build`, for models of other sizes."""
    return build


@pytest.fixture(scope="session")
def model() -> keras.Model:
    """Three classes, trained for a few seconds; its record asks for 64x64 pictures."""
    keras.utils.set_random_seed(0)
    random = np.random.RandomState(0)
    images, labels = zip(*(scene(random, (64, 64)) for _ in range(32)), strict=True)
    tiny = build()
    for layer in tiny.layers:
        if hasattr(layer, "moving_mean"):
            layer.momentum = 0.5
    tiny.compile(
        optimizer=keras.optimizers.Adam(0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    tiny.fit(
        np.stack(images).astype(np.float32), np.stack(labels), batch_size=8, epochs=15, verbose=0
    )
    tiny.info = dl.ModelInfo(
        classes=("background", "disc", "bar"),
        colors=((0, 0, 0), (255, 0, 0), (0, 255, 0)),
        image_size=(64, 64),
        resize="stretch",
        source="Drawn shapes.",
        license="Apache-2.0",
        training={"steps": 60},
    )
    return tiny


@pytest.fixture(scope="session")
def scenes() -> list[np.ndarray]:
    """Pictures of odd sizes that the model hasn't seen."""
    random = np.random.RandomState(1)
    return [scene(random, size)[0] for size in [(64, 64), (97, 75), (51, 120), (80, 80)] * 4]


@pytest.fixture(scope="session")
def picture_folder(scenes, tmp_path_factory):
    """The same as PNG files."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(scenes):
        dl.pictures.save_image(folder / f"{number:02d}.png", picture)
    return folder
