"""Which variables of a file are an image classifier's, on the backbone of a model."""

import re
from collections.abc import Iterable

import keras

from deeplab_tf.backbones import BACKBONES, Backbone
from deeplab_tf.errors import InputError
from deeplab_tf.models.base import SegmentationModel
from deeplab_tf.models.classifier import ImageClassifier

# What MaX-DeepLab's encoder gets behind ImageNet: transformers, their memory, stages for masks.
_LATER = re.compile(r"_transformer\.|\.memory_feature/|_extra[._]|_extra/")


def classifier_variables(paths: Iterable[str], model: keras.Model) -> set[str]:
    """Those of a classifier that the model doesn't have; none if the file isn't a classifier's.

    Args:
        paths: of the variables in the file, as the model would call them.
        model: has perhaps a backbone.
    """
    record = _record(model)
    if record is None:
        return set()
    own = {weight.path for weight in model.weights}
    layers = re.compile(record.classifier.layers(record.scope) + "/[^/]+")
    found = {path for path in paths if layers.fullmatch(path) and path not in own}
    logits = f"{record.scope}.{record.classifier.logits}/"
    return found if any(path.startswith(logits) for path in found) else set()


def is_backbone_alone(paths: Iterable[str], model: keras.Model) -> bool:
    """Whether a file has all of a model's backbone, and nothing else of a model.

    Args:
        paths: of the variables in the file, as the model would call them.
        model: has perhaps a backbone.
    """
    record, found = _record(model), set(paths)
    if record is None or isinstance(model, ImageClassifier):
        return False
    rest = set(beside_the_backbone(model))
    return bool(found) and found == {weight.path for weight in model.weights} - rest


def kind_of_backbone(is_classifier: bool) -> str:
    """What a file is that gives a model its backbone alone."""
    return "an image classifier" if is_classifier else "a backbone alone"


def refused_backbone(path: str, model: keras.Model, *, is_classifier: bool) -> InputError:
    """The error of such a file where a whole model is wanted."""
    text = (
        f"{path} is {kind_of_backbone(is_classifier)}: only its backbone fits {model.name}. "
        "Start a training from it (init=PATH)"
    )
    if is_classifier:
        text += f", or convert it as what it is (--model {model.get_config()['backbone']})"
    return InputError(f"{text}.")


def beside_the_backbone(model: keras.Model) -> list[str]:
    """Paths of a model's variables that aren't its backbone's."""
    record = _record(model)
    scope = f"{record.scope}." if record else ""
    paths = [weight.path for weight in model.weights]
    return [path for path in paths if not path.startswith(scope) or _LATER.search(path)]


def _record(model: keras.Model) -> Backbone | None:
    if not isinstance(model, SegmentationModel):
        return None
    return BACKBONES.get(model.backbone_name)
