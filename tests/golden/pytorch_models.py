"""Cases of PyTorch's models: torchvision's DeepLabV3 and the DeepLabV3Plus-Pytorch repository."""

from pathlib import Path

import keras
import numpy as np
import weights

from deeplab_tf.checkpoints.pytorch import PyTorchNames, to_tensorflow
from deeplab_tf.checkpoints.strict import Source, assign
from deeplab_tf.models.presets import MODEL_CLASSES, find_preset

# Of an array's standard deviation.
TOLERANCE = 1e-4


def describe_model(case: dict) -> dict:
    """The model whose state dict a case lists: of its preset, as far as there is one.

    As a JSON file for `deeplab-tf convert` describes it.
    """
    names = {name for name, _, _ in case["variables"]}
    plus = any(name.startswith("classifier.aspp.") for name in names)
    like = "deeplab_v3_plus_resnet_50_torch_voc" if plus else "deeplab_v3_resnet_50_torch_coco"
    options = {**find_preset(like).arguments, "num_classes": case["num_classes"]}
    options |= {"backbone": _backbone(names), "output_stride": 8}
    if case["family"] == "torchvision":
        mobile = options["backbone"] == "mobilenet_v3_large_torch"
        options["output_stride"] = 16 if mobile else 8
        if "aux_classifier.4.bias" in names:
            options["auxiliary_endpoint"] = "res3" if mobile else "res4"
    else:
        # Here the rates follow the stride.
        options |= {"output_stride": case["output_stride"], "atrous_rates": None}
    class_name = "DeepLabV3Plus" if plus else "DeepLabV3"
    info = {"image_size": [case["input"]["height"], case["input"]["width"]]}
    return {"class_name": class_name, "arguments": options, "info": info}


def build_model(case: dict):
    """The model of a case."""
    description = describe_model(case)
    return MODEL_CLASSES[description["class_name"]](**description["arguments"])


def _backbone(names: set[str]) -> str:
    """By modules that only one of the networks has."""
    if "backbone.low_level_features.0.0.weight" in names:
        return "mobilenet_v2_torch"
    if "backbone.16.0.weight" in names:
        return "mobilenet_v3_large_torch"
    return "resnet_101_torch" if "backbone.layer3.22.conv1.weight" in names else "resnet_50_torch"


def variables(case: dict) -> dict[str, np.ndarray]:
    """PyTorch's name -> generated value."""
    make, gain = weights.make, case["gain"]
    return {name: make(name, shape, kind, gain) for name, shape, kind in case["variables"]}


def fill(model, case: dict, path: Path):
    """Sets the generated weights through the reader of state dicts."""
    arrays = variables(case)
    names = PyTorchNames(model, arrays)
    return assign(
        model, Source(str(path), "golden", to_tensorflow(arrays, names, model), names=names)
    )


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Builds and fills the model of a case, and compares."""
    model = build_model(case)
    loaded = fill(model, case, path)
    # What isn't set are counters of batches, one number for each batch norm.
    assert model.count_params() + len(loaded.left_out) == case["num_parameters"]
    compare(model, case, arrays)


def compare(model, case: dict, arrays: dict[str, np.ndarray]) -> None:
    """Compares the outputs and the encoder's features of a filled model with its case."""
    facts = case["input"]
    image = weights.input_image(facts["height"], facts["width"], facts["seed"])
    outputs = _outputs(model, image[None].astype("float32"))
    assert set(arrays) <= set(outputs), f"no output for {sorted(set(arrays) - set(outputs))}"
    for name, stored in arrays.items():
        close(name, outputs[name], stored, case["subsample"].get(name.removeprefix("endpoint_")))


def _outputs(model, image: np.ndarray) -> dict[str, np.ndarray]:
    """By the names in a case; those that the model doesn't have are left out."""
    result = model(image, training=False)
    result = result if isinstance(result, dict) else {"semantic_logits": result}
    endpoints = {
        "out_logits_before_resize": "logits",
        "endpoint_backbone_out": "backbone",
        "endpoint_out": "backbone",
        "endpoint_low_level": "stride4",
    }
    if "auxiliary" in model.endpoints:
        stride = {"res3": "stride8", "res4": "stride16"}
        endpoints |= {
            "out_aux_logits_before_resize": "auxiliary",
            "endpoint_backbone_aux": stride[model.get_config()["auxiliary_endpoint"]],
        }
    found = model.endpoint_model(*set(endpoints.values()))(image, training=False)
    outputs = {name: found[endpoint] for name, endpoint in endpoints.items()}
    outputs["out_logits"] = result["semantic_logits"]
    if "auxiliary_logits" in result:
        outputs["out_aux_logits"] = result["auxiliary_logits"]
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def close(
    name: str, ours: np.ndarray, stored: np.ndarray, subsample, tolerance: float = TOLERANCE
) -> None:
    """Asserts the largest difference relative to the array's deviation."""
    strides = subsample["strides"] if isinstance(subsample, dict) else subsample
    if strides:
        ours = ours[tuple(slice(None, None, step) for step in strides)]
    assert ours.shape == stored.shape, f"{name}: shape {ours.shape}, stored {stored.shape}"
    error = np.abs(ours - stored).max() / stored.std()
    assert error <= tolerance, f"{name}: {error:.2e} of the deviation"
