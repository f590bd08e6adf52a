"""Cases of DeepLabv1 and v2: a PyTorch port of the Caffe release, and nets of its prototxt."""

from pathlib import Path

import keras
import numpy as np
import weights
from pytorch_models import TOLERANCE, close, fill, variables

from deeplab_tf.models.presets import MODEL_CLASSES

__all__ = ["build_model", "compare", "describe_model", "run_case", "variables"]


def describe_model(case: dict) -> dict:
    """The model whose state dict a case lists, as a JSON file for `deeplab-tf convert` has it."""
    names = {name for name, _, _ in case["variables"]}
    options = {"num_classes": case["num_classes"]}
    settings = case.get("settings", {})
    if "fc6.weight" in names:
        class_name = "DeepLabV1"
        options |= {"atrous_rates": [settings["fc6_dilation"]]}
        options |= {"pool5_average": settings["pool5_avg"]}
    elif "fc6_1.weight" in names:
        class_name = "DeepLabV2"
        options |= {"backbone": "vgg_16", "atrous_rates": settings["rates"], "align_corners": True}
        options |= {"image_pyramid": [1.0]}
    elif "fc.weight" in names:
        # No ASPP, and so one 1x1 convolution.
        class_name = "DeepLabV3"
        options |= {"backbone": "resnet_101_caffe", "output_stride": 8}
        options |= {"pool_ceil_mode": True, "aspp_with_batch_norm": False, "atrous_rates": []}
        options |= {"align_corners": False}
    else:
        class_name = "DeepLabV2"
        options |= {"atrous_rates": case["atrous_rates"], "image_pyramid": case["msc_scales"]}
    info = {"image_size": [case["input"]["height"], case["input"]["width"]]}
    return {"class_name": class_name, "arguments": options, "info": info}


def build_model(case: dict) -> keras.Model:
    """The model of a case."""
    description = describe_model(case)
    return MODEL_CLASSES[description["class_name"]](**description["arguments"])


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Builds and fills the model of a case, and compares."""
    model = build_model(case)
    loaded = fill(model, case, path)
    # What isn't set are counters of batches, one number for each batch norm.
    assert model.count_params() + len(loaded.left_out) == case["num_parameters"]
    compare(model, case, arrays)


def compare(model: keras.Model, case: dict, arrays: dict[str, np.ndarray]) -> None:
    """Compares the outputs and features of a filled model with its case."""
    facts = case["input"]
    image = weights.input_image(facts["height"], facts["width"], facts["seed"])
    outputs = _outputs(model, image[None].astype("float32"))
    assert set(arrays) <= set(outputs), f"no output for {sorted(set(arrays) - set(outputs))}"
    endpoints = case.get("endpoints", {})
    for name, stored in arrays.items():
        strides = endpoints.get(name.removeprefix("endpoint_"), endpoints.get(f"{name}_strides"))
        if stored.dtype == np.uint8:
            assert np.mean(outputs[name] == stored) >= 0.999, name
        elif name == "out_probabilities_full_size":
            merged = arrays["out_logits_msc_max"]
            enlarged = model.get_layer("semantic_logits")([merged, image[None]])
            alone = keras.ops.convert_to_numpy(keras.ops.softmax(enlarged))
            moved = np.abs(outputs["out_logits_msc_max"] - merged).max()
            _close_probabilities(outputs[name], alone, stored, strides, moved, np.abs(merged).max())
        else:
            close(name, outputs[name], stored, strides)


def _close_probabilities(ours, alone, stored, strides, moved: float, largest: float) -> None:
    """Probabilities may differ by what the logits, which are in the thousands, let them.

    Args:
        ours: of the model.
        alone: of the stored logits, enlarged as the model does. float32 rounds these: hence the
            wider of the two bounds that the fixtures come with.
        stored: of the case.
        strides: of what is stored.
        moved: the largest difference of the logits, which have their own check. No probability
            moves by more than half of it.
        largest: of the logits.
    """
    seen = tuple(slice(None, None, step) for step in strides)
    error = np.abs(alone[seen] - stored).max() / stored.std()
    assert error <= 10 * TOLERANCE, f"probabilities of the stored logits: {error:.2e}"
    bound = TOLERANCE * stored.std() + (moved + np.finfo("float32").eps * largest) / 2
    error = np.abs(ours[seen] - stored).max()
    assert error <= bound, f"probabilities: {error:.2e}"


def _outputs(model: keras.Model, image: np.ndarray) -> dict[str, np.ndarray]:
    """By the names in a case; those that the model doesn't have are left out."""
    logits = model(image, training=False)
    labels = keras.ops.argmax(logits, axis=-1)
    outputs = {
        "out_prediction": labels,
        "out_prediction_align_corners": labels,
        "out_probabilities_full_size": keras.ops.softmax(logits),
    }
    found = model.endpoint_model(*model.endpoints)(image, training=False)
    outputs |= {f"endpoint_{name}": x for name, x in found.items()}
    outputs["out_logits"] = outputs["out_logits_msc_max"] = found["logits"]
    for scale in ("0.5", "0.75"):
        outputs[f"out_logits_scale_{scale}"] = found.get(f"semantic_logits_{float(scale):.2f}")
    outputs["out_logits_single_scale"] = found.get("semantic_logits_1.00")
    # Where there is no average pool, the case has its input by that name.
    outputs.setdefault("endpoint_pool5a", found.get("pool5"))
    outputs |= _stages(model, image)
    return {
        name: keras.ops.convert_to_numpy(value)
        for name, value in outputs.items()
        if value is not None
    }


def _stages(model: keras.Model, image: np.ndarray) -> dict:
    """Outputs of a ResNet's stages, by the port's names: its first ends with the pool."""
    last = {1: "resnet_101.pool1"}
    for layer in model.layers:
        name = layer.name
        if name.startswith("resnet_101.block") and name.endswith(".relu") and ".conv" not in name:
            last[int(name[len("resnet_101.block")]) + 1] = name
    there = {layer.name for layer in model.layers}
    stages = {
        f"endpoint_layer{n}": model.get_layer(x).output for n, x in last.items() if x in there
    }
    return keras.Model(model.input, stages)(image, training=False) if stages else {}
