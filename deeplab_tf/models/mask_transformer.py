"""What MaX-DeepLab and kMaX-DeepLab share as models: answers for training only, and one loss."""

from typing import Any

import keras
from keras.src.backend.common.global_state import get_global_attribute

from deeplab_tf import keys
from deeplab_tf.errors import InputError
from deeplab_tf.models.base import SegmentationModel


class MaskTransformer(SegmentationModel):
    """A model whose outputs are a mask and a class for each slot, and semantic logits.

    Its symbolic outputs hold all answers. Earlier ones, which are there to be learnt from, are left
    out of a call unless it is in training: a traced graph then drops what leads to them alone.
    Inside another model they always are: Keras takes outputs there by place, of which each call
    must have as many.
    """

    _whole_loss: Any = None

    def call(self, inputs, training=None, mask=None):
        # Keras doesn't tell otherwise which layer it was that someone called.
        context = get_global_attribute("current_call_ctx")
        is_inside = context is not None and context.entry_layer is not self
        outputs = super().call(inputs, training=training, mask=mask)
        return outputs if training and not is_inside else _main_answer(outputs)

    def compute_output_spec(self, inputs, training=None, mask=None):
        return _main_answer(super().compute_output_spec(inputs, training, mask))

    def compile(self, optimizer="rmsprop", loss=None, **options) -> None:
        """As every Keras model; but see `loss`.

        Args:
            loss: with an attribute `takes_all_outputs` that is true, it is called once, with the
                dict of targets and the dict of outputs, and gives a scalar. Others are Keras'.
            **options: of Keras.
        """
        whole = bool(getattr(loss, "takes_all_outputs", False))
        self._whole_loss = loss if whole else None
        # Its random state is the model's, as JAX wants it.
        self._loss_seeds = getattr(loss, "seed_generator", None)
        # Such losses match on the host, where XLA can't follow in TensorFlow.
        self.supports_jit = not whole or keras.backend.backend() != "tensorflow"
        super().compile(optimizer=optimizer, loss=None if whole else loss, **options)
        if whole:
            self.loss = self._compile_config.config["loss"] = loss

    def compile_from_config(self, config: dict) -> None:
        """As a `.keras` file keeps it; Keras leaves this to whoever has a `compile` of its own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss of a step, as a scalar.

        Raises:
            InputError: weights beside the targets, where one loss takes all of those.
        """
        if self._whole_loss is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        if sample_weight is not None:
            raise InputError(
                f"a mask transformer's weights of pixels are its target {keys.SEMANTIC_WEIGHT!r}; "
                "got sample_weight."
            )
        total = self._whole_loss(y, y_pred)
        for loss in self.losses:
            total = total + self._aggregate_additional_loss(loss)
        return total


def _main_answer(outputs: dict[str, Any]) -> dict[str, Any]:
    auxiliary = keys.AUXILIARY.partition("{}")[0]
    return {name: x for name, x in outputs.items() if not name.startswith(auxiliary)}
