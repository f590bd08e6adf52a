"""A mask transformer without anything to learn: its slots are black, blue, red and green."""

import keras
import numpy as np
from keras import layers

import deeplab_tf as dl
from deeplab_tf import keys
from deeplab_tf.layers.dual_path_transformer import LearnedMemory
from deeplab_tf.models.mask_transformer import MaskTransformer

# Of the slots: ground, water, and two balls.
COLORS = np.array([[0, 0, 0], [0, 0, 255], [255, 0, 0], [0, 255, 0]])
GROUND, WATER, BALL = 0, 1, 2
# Channels of a slot: the thing, the stuff, void.
CHANNELS = {BALL: 0, GROUND: 1, WATER: 2}
CLASSES = (GROUND, WATER, BALL, BALL)
DIVISOR, VOID = 100, 255
INFO = dl.ModelInfo(
    classes=("ground", "water", "ball"),
    colors=((0, 0, 0), (0, 0, 255), (255, 0, 0)),
    ignore_label=VOID,
    image_size=(65, 65),
    resize="stretch",
    thing_classes=(BALL,),
    label_divisor=DIVISOR,
    merge={"rule": "maskwise", "thing_area_limit": 20, "stuff_area_limit": 20},
)


class PaintedSlots(MaskTransformer):
    """Each pixel belongs to the slot of its colour, seen at stride 4."""

    def __init__(self, image_shape=(None, None, 3), name="painted_slots"):
        image = keras.Input(image_shape, name=keys.IMAGE)
        kernel = (COLORS.T / 255 / 16).reshape(1, 1, 3, 4)
        outputs = {
            key: layers.Conv2D(channels, 1, strides=4, name=key)(image)
            for key, channels in (
                (keys.SEMANTIC_LOGITS, 3),
                (keys.PIXEL_FEATURE, 4),
                (keys.MASK_LOGITS, 4),
            )
        }
        auxiliary = keys.AUXILIARY.format(0, keys.MASK_LOGITS)
        outputs[auxiliary] = layers.Conv2D(4, 1, strides=8, name=auxiliary)(image)
        classes = LearnedMemory(4, 4, name=keys.MASK_CLASS_LOGITS)
        outputs[keys.MASK_CLASS_LOGITS] = classes(image)
        super().__init__(image, outputs, name=name)
        self._finish({"image_shape": list(image_shape)}, {})
        for name in (keys.MASK_LOGITS, auxiliary):
            self.get_layer(name).set_weights([kernel, np.array([8, 0, 0, 0])])
        logits = 9 * np.eye(4, dtype=np.float32)[[CHANNELS[c] for c in CLASSES]]
        classes.set_weights([logits[None]])
        self.info = INFO


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture uint8 [H, W, 3] with two balls between ground and water, and its panoptic label."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    slots = np.where(y < 0.5, 0, 1)
    slots[(y - 0.5) ** 2 + (x - 0.25) ** 2 < 0.15**2] = 2
    slots[(y - 0.4) ** 2 + (x - 0.7) ** 2 < 0.2**2] = 3
    image = COLORS[slots].astype(np.uint8)
    classes = np.array(CLASSES)[slots]
    return image, classes * DIVISOR + np.where(classes == BALL, slots + 1, 0)
