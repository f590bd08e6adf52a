"""One network at several scales of the picture, as DeepLabv2 introduced it
(https://arxiv.org/abs/1606.00915, Sec. 4.1) and the official code keeps it."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.layers.resize import ResizeLike
from deeplab_tf.models.base import SegmentationModel

_MERGE = {"max": layers.Maximum, "avg": layers.Average}


def logits_stride(model: SegmentationModel) -> int:
    """Stride at which the model makes its logits: the finest decoder stage, or the encoder."""
    config = model.get_config()
    return min([*config.get("decoder_output_stride", ()), config["output_stride"]])


def scale_picture(image, scale: float, *, align_corners: bool = True):
    """[B, H, W, 3] -> the picture at that scale, see `ResizeLike`."""
    if scale == 1.0:
        return image
    return ResizeLike(scale, align_corners, name=f"image_{scale_suffix(scale)}")([image, image])


def logits_on_grid(logits, image, *, scale: float, largest: float, stride: int):
    """Logits of the picture at `scale`, at the size that `largest` scale would give.

    Args:
        logits: [B, h, w, C].
        image: [B, H, W, 3], the whole picture.
        scale: names the layer.
        largest: the largest scale among those to be merged; below one counts as one.
        stride: of the logits.

    Returns:
        [B, h', w', C], h' = scale_dimension(H, max(1, largest) / stride).
    """
    resize = ResizeLike(max(1.0, largest) / stride, name=f"logits_{scale_suffix(scale)}")
    return resize([logits, image])


def scale_suffix(scale: float) -> str:
    """0.5 -> "0_50", for layer names."""
    return f"{scale:.2f}".replace(".", "_")


def merge_scales(
    network: Callable[[Any, float], Any],
    image,
    image_pyramid: Sequence[float],
    *,
    merge_method: str,
    align_corners: bool,
    stride: int,
) -> tuple[Any, list, list]:
    """Logits of one network at several scales of the picture, merged.

    They meet at the size of the largest scale's. If all are smaller than the picture, the official
    code has them meet at what the whole picture would give, see `logits_on_grid`.

    Args:
        network: (picture [B, h, w, 3], its scale) -> logits at its own stride.
        image: [B, H, W, 3], RGB 0..255.
        image_pyramid: scales of the picture.
        merge_method: "max" or "avg".
        align_corners: how to resize.
        stride: of the logits.

    Returns:
        The merged logits, each scale's of the same size, and each scale's at its own.

    Raises:
        InputError: an unknown merge method, no scale, or one of them twice.
    """
    if merge_method not in _MERGE:
        raise InputError(f"merge_method is one of {[*_MERGE]}; got {merge_method!r}.")
    if not image_pyramid:
        raise InputError("image_pyramid needs at least one scale.")
    if len({scale_suffix(scale) for scale in image_pyramid}) < len(image_pyramid):
        raise InputError(
            "image_pyramid has different scales, by at least 0.01; got "
            f"{', '.join(f'{scale:g}' for scale in image_pyramid)}."
        )
    own = [
        network(scale_picture(image, scale, align_corners=align_corners), scale)
        for scale in image_pyramid
    ]
    largest = max(image_pyramid)
    meeting = own[list(image_pyramid).index(largest)]
    resized = []
    for scale, logits in zip(image_pyramid, own, strict=True):
        if align_corners and largest < 1.0:
            x = logits_on_grid(logits, image, scale=scale, largest=largest, stride=stride)
        else:
            name = f"logits_{scale_suffix(scale)}"
            x = ResizeLike(align_corners=align_corners, name=name)([logits, meeting])
        resized.append(x)
    merge = _MERGE[merge_method](name="logits.merged")
    return (merge(resized) if len(resized) > 1 else resized[0]), resized, own


@keras.saving.register_keras_serializable(package="deeplab_tf")
class ImagePyramid(SegmentationModel):
    """A model applied to several scales of the picture, its logits merged.

    Args:
        model: the shared network: a semantic model of this package.
        image_pyramid: scales.
        merge_method: "max" or "avg" of the logits.

    Input and output as the shared model's. The endpoints "logits_0.50", … are the scales' logits
    at a common size; "logits" is the merged one.

    Raises:
        InputError: an unknown merge method, no scale, or one of them twice.
    """

    def __init__(
        self,
        model: SegmentationModel,
        image_pyramid: tuple[float, ...] = (0.5, 1.0, 1.5),
        merge_method: str = "max",
        *,
        name: str = "image_pyramid",
        **kwargs,
    ):
        image = keras.Input(model.input.shape[1:], name=keys.IMAGE)
        shared = keras.Model(
            model.input, model.get_layer(model.endpoints["logits"]).output, name=model.name
        )
        align_corners = model.get_config().get("align_corners", True)
        x, scales, _ = merge_scales(
            lambda scaled, _: shared(scaled),
            image,
            image_pyramid,
            merge_method=merge_method,
            align_corners=align_corners,
            stride=logits_stride(model),
        )
        merged = x._keras_history.operation.name
        resize = ResizeLike(align_corners=align_corners, name=keys.SEMANTIC_LOGITS, dtype="float32")
        logits = resize([x, image])
        super().__init__(image, logits, name=name, **kwargs)
        names = {
            f"logits_{scale:.2f}": tensor._keras_history.operation.name
            for scale, tensor in zip(image_pyramid, scales, strict=True)
        }
        arguments = dict(model=model, image_pyramid=image_pyramid, merge_method=merge_method)
        self._finish(arguments, {**names, "logits": merged})
        self.info = model.info

    def get_config(self) -> dict:
        config = super().get_config()
        return {**config, "model": keras.saving.serialize_keras_object(config["model"])}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model = keras.saving.deserialize_keras_object(config.pop("model"), custom_objects)
        return cls(model, **config)
