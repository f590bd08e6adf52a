"""Cases of the official TensorFlow DeepLab: models, image pyramids and predictions."""

import inspect
from pathlib import Path

import keras
import numpy as np
import weights

import deeplab_tf as dl
from deeplab_tf.models.image_pyramid import ImagePyramid
from deeplab_tf.models.weights import assign_variables
from deeplab_tf.postprocess import multi_scale

TOLERANCE = 5e-5
LABELS_EQUAL = 0.999

# Official settings that say how the model was run or trained, not what it is; and those whose
# value None means "as the option is left out".
_NOT_OF_THE_MODEL = {
    "crop_size",
    "merge_method",
    "image_pyramid",
    "eval_scales",
    "add_flipped_images",
    "predict_labels",
    "prediction_with_upsampled_logits",
    "model_variant",
    "num_classes",
    "weight_decay",
    "batch_norm_decay",
    "sync_batch_norm_method",
}
_EMPTY_FOR_NONE = ("atrous_rates", "decoder_output_stride")


def describe_model(case: dict) -> dict:
    """The case's model, as a JSON file for `deeplab-tf convert` describes it."""
    arguments = _arguments(case["settings"])
    info = {"image_size": case["input"]["shape"][1:3]}
    return {"class_name": "DeepLabV3", "arguments": arguments, "info": info}


def build_model(settings: dict, **extra):
    """The model that official settings describe."""
    return dl.DeepLabV3(**{**_arguments(settings), **extra})


def _arguments(settings: dict) -> dict:
    """Constructor arguments for official settings. An option without a place is an error."""
    options = {k: v for k, v in settings.items() if k not in _NOT_OF_THE_MODEL}
    for name in _EMPTY_FOR_NONE:
        if options.get(name) is None:
            options[name] = ()
    known = inspect.signature(dl.DeepLabV3.__init__).parameters
    assert set(options) <= set(known), f"no place for {sorted(set(options) - set(known))}"
    backbone = dl.BACKBONES[settings["model_variant"]]
    if "nas_architecture_options" not in backbone.options:
        options.pop("nas_architecture_options", None)
    model = {"num_classes": settings["num_classes"], "backbone": settings["model_variant"]}
    return {**model, **options}


def variables(case: dict) -> dict[str, np.ndarray]:
    """Official name -> generated value."""
    make, gain = weights.make, case["weights"]["gain"]
    return {name: make(name, shape, kind, gain) for name, shape, kind in case["variables"]}


def fill(model, case: dict) -> None:
    """Sets the generated weights; every variable must be found, and no other may exist."""
    from deeplab_tf.checkpoints.tf1 import variable_path

    arrays = {variable_path(name, model): array for name, array in variables(case).items()}
    assert len(arrays) == len(case["variables"])
    assign_variables(model, arrays)


def close(name: str, ours: np.ndarray, stored: np.ndarray, entry: dict) -> None:
    """Asserts the largest difference relative to the largest value."""
    assert list(ours.shape) == list(entry["shape"]), f"{name}: shape {ours.shape}"
    ours = ours[tuple(slice(None, None, step) for step in entry["stored_step"])]
    error = np.abs(ours - stored).max() / np.abs(stored).max()
    assert error <= TOLERANCE, f"{name}: {error:.2e} of the maximum"


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Builds and fills the model of a case, and compares."""
    model = build_model(case["settings"])
    fill(model, case)
    compare(model, case, arrays)


def compare(model, case: dict, arrays: dict[str, np.ndarray]) -> None:
    """Compares a filled model with its case; see the generator's README for the format."""
    settings = case["settings"]
    assert model.count_params() == case["weights"]["parameters"]
    _check_penalty(model, case)
    batch, height, width, _ = case["input"]["shape"]
    assert batch == 1
    image = weights.input_image(height, width, case["input"]["seed"])[None]
    if settings["predict_labels"] or settings["eval_scales"]:
        _compare_prediction(model, image, settings, case["outputs"], arrays)
        return
    if settings["image_pyramid"]:
        model = ImagePyramid(model, tuple(settings["image_pyramid"]), settings["merge_method"])
    outputs = model.endpoint_model(*case["outputs"])(image.astype("float32"), training=False)
    for name, entry in case["outputs"].items():
        close(name, keras.ops.convert_to_numpy(outputs[name]), arrays[name], entry)


def _check_penalty(model, case: dict) -> None:
    from deeplab_tf.training.optimizers import l2_penalty

    entry = case["l2_regularized"]
    penalty = float(l2_penalty(model, entry["weight_decay_argument"]))
    assert abs(penalty - entry["total_loss"]) <= 1e-5 * entry["total_loss"]


def _compare_prediction(model, image, settings, outputs, arrays) -> None:
    if settings["eval_scales"]:
        probabilities = multi_scale.predict_probabilities(
            model,
            image,
            eval_scales=settings["eval_scales"],
            add_flipped_images=settings["add_flipped_images"],
        )
        probabilities = keras.ops.convert_to_numpy(probabilities)
        labels = probabilities.argmax(-1)
        # The official code takes the softmax of the mean probabilities once more.
        exponentials = np.exp(probabilities)
        probabilities = exponentials / exponentials.sum(-1, keepdims=True)
    elif settings["prediction_with_upsampled_logits"]:
        probabilities = keras.ops.convert_to_numpy(multi_scale.predict_probabilities(model, image))
        labels = probabilities.argmax(-1)
    else:
        labels, probabilities = map(
            keras.ops.convert_to_numpy, multi_scale.predict_without_upsampled_logits(model, image)
        )
    assert list(labels.shape) == outputs["labels"]["shape"]
    assert np.mean(labels == arrays["labels"]) >= LABELS_EQUAL
    close("prob", probabilities, arrays["prob"], outputs["prob"])
