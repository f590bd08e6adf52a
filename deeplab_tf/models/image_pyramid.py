"""One network at several scales of the picture, as DeepLabv2 introduced it
(https://arxiv.org/abs/1606.00915, Sec. 4.1) and the official code keeps it."""

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


def scaled_logits(model: keras.Model, image, scale: float, *, largest: float, stride: int):
    """Logits of the picture taken at `scale`, at the size that `largest` scale would give.

    Args:
        model: image [B, h, w, 3] -> logits at its own stride.
        image: [B, H, W, 3], RGB 0..255.
        scale: of the picture, by `scale_dimension`.
        largest: the largest scale among those to be merged; below one counts as one.
        stride: of the logits.

    Returns:
        [B, h', w', num_classes], h' = scale_dimension(H, max(1, largest) / stride).
    """
    suffix = f"{scale:.2f}".replace(".", "_")
    scaled = image
    if scale != 1.0:
        scaled = ResizeLike(scale, name=f"image_{suffix}")([image, image])
    target = ResizeLike(max(1.0, largest) / stride, name=f"logits_{suffix}")
    return target([model(scaled), image])


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
        InputError: an unknown merge method or no scale.
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
        if merge_method not in _MERGE:
            raise InputError(f"merge_method is one of {[*_MERGE]}; got {merge_method!r}.")
        if not image_pyramid:
            raise InputError("image_pyramid needs at least one scale.")
        image = keras.Input(model.input.shape[1:], name=keys.IMAGE)
        shared = keras.Model(
            model.input, model.get_layer(model.endpoints["logits"]).output, name=model.name
        )
        largest, stride = max(image_pyramid), logits_stride(model)
        scales = [
            scaled_logits(shared, image, scale, largest=largest, stride=stride)
            for scale in image_pyramid
        ]
        x = _MERGE[merge_method](name="logits.merged")(scales) if len(scales) > 1 else scales[0]
        merged = x._keras_history.operation.name
        logits = ResizeLike(name=keys.SEMANTIC_LOGITS, dtype="float32")([x, image])
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
