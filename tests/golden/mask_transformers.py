"""MaX-DeepLab and kMaX-DeepLab of deeplab2: models, losses and post-processing."""

import re
from pathlib import Path

import keras
import mask_losses
import mask_merges
import numpy as np
import weights
from deeplab2_models import decoder_options, low_level, parse_textproto, variables
from kmax_clusters import compare_clusters, with_clusters
from pytorch_models import TOLERANCE, close

from deeplab_tf import keys
from deeplab_tf.checkpoints.deeplab2 import Deeplab2Names, in_our_layout
from deeplab_tf.checkpoints.strict import Source, assign
from deeplab_tf.models.label_sets import ADE20K_PANOPTIC, CITYSCAPES_PANOPTIC, COCO_PANOPTIC
from deeplab_tf.models.presets import MODEL_CLASSES
from deeplab_tf.postprocess.mask_settings import MaskSettings
from deeplab_tf.postprocess.masks import merge_masks

__all__ = ["build_model", "compare", "describe_model", "run_case", "variables"]

_DATA_SETS = {
    "ade20k_panoptic": ADE20K_PANOPTIC,
    "cityscapes_panoptic": CITYSCAPES_PANOPTIC,
    "coco_panoptic": COCO_PANOPTIC,
}
# What the official code takes from a data set's name.
_KMAX = {
    "cityscapes_panoptic": {
        "num_mask_slots": 256,
        "high_resolution_output_stride": 2,
        "auxiliary_semantic_decoder": False,
    },
    "coco_panoptic": {},
    "ade20k_panoptic": {},
}
_LAST = {f"out_{key}" for key in (keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS)}


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Finds the check by the beginning of the case's name."""
    if path.stem.startswith("losses_"):
        mask_losses.run_case(case, arrays, path)
        return
    if path.stem.startswith("post_processor_"):
        mask_merges.run_case(case, arrays, path)
        return
    model = build_model(case)
    assert model.count_params() == case["num_parameters"]
    names, made = Deeplab2Names(model), in_our_layout(variables(case))
    assign(model, Source(str(path), "golden", made, names=names))
    compare(model, case, arrays)


def build_model(case: dict) -> keras.Model:
    """The model of a case."""
    description = describe_model(case)
    return MODEL_CLASSES[description["class_name"]](**description["arguments"])


def describe_model(case: dict) -> dict:
    """The model of a case, as a JSON file for `deeplab-tf convert` describes it."""
    options = parse_textproto(case["model_options_textproto"])
    backbone = {key: values[0] for key, values in options["backbone"][0].items()}
    heads = options["max_deeplab"][0]
    pixel, semantic = heads["pixel_space_head"][0], heads["auxiliary_semantic_head"][0]
    arguments = {
        "num_classes": semantic["output_channels"][0],
        "ignore_label": _DATA_SETS[case["dataset_info"]].ignore_label,
        "low_level": low_level(heads["auxiliary_low_level"]),
        "head_channels": semantic["head_channels"][0],
        "pixel_head_channels": pixel["head_channels"][0],
        "pixel_channels": pixel["output_channels"][0],
        "batch_norm_epsilon": float(case["batchnorm"]["epsilon"]),
        **decoder_options(dict(options["decoder"][0]), feature="feature_semantic"),
    }
    name = backbone.pop("name")
    arguments |= backbone
    info = {"image_size": [case["input"]["height"], case["input"]["width"]]}
    if name.startswith("kmax_"):
        arguments |= {"backbone": name.removeprefix("kmax_"), **_KMAX[case["dataset_info"]]}
        return {"class_name": "KMaXDeepLab", "arguments": arguments, "info": info}
    arguments["size"] = name.removeprefix("max_deeplab_")
    arguments["image_pooling_crop_size"] = case.get("train_crop_size")
    return {"class_name": "MaXDeepLab", "arguments": arguments, "info": info}


def compare(model: keras.Model, case: dict, arrays: dict[str, np.ndarray]) -> None:
    """Compares the outputs and features of a filled model with its case."""
    facts = case["input"]
    image = weights.input_image(facts["height"], facts["width"], facts["seed"])
    image = image[None].astype("float32")
    outputs = _outputs(model, image)
    clusters = {name: array for name, array in arrays.items() if name.endswith("_assignment")}
    if any(np.any(outputs[name] != stored) for name, stored in clusters.items()):
        outputs |= _run(with_clusters(model, clusters), {}, image)
    maps = {name: array for name, array in arrays.items() if name.startswith("post_")}
    assert set(arrays) - set(maps) <= set(outputs), (
        f"no output for {sorted(set(arrays) - set(outputs))}"
    )
    strides = {
        name: record["strides"]
        for key in ("subsample", "endpoints")
        for name, record in case.get(key, {}).items()
    }
    for name in arrays.keys() - maps.keys() - clusters.keys():
        tolerance = _tolerance(case, name)
        close(name, outputs[name], arrays[name], strides.get(name), tolerance)
    for name in clusters:
        masks = name.replace("assignment", keys.MASK_LOGITS)
        compare_clusters(name, outputs, arrays, strides[masks])
    if maps:
        _compare_merge(case, outputs, maps)


def _tolerance(case: dict, name: str) -> float:
    """In standard deviations; kMaX-DeepLab sums over pixels, six times, and errors grow."""
    if case["family"] == "kmax_deeplab" and name in _LAST:
        return 1e-2
    return 3e-3 if name.startswith("aux") else TOLERANCE


def _outputs(model: keras.Model, image: np.ndarray) -> dict[str, np.ndarray]:
    """By the names in a case."""
    endpoints = {name: model.get_layer(layer).output for name, layer in model.endpoints.items()}
    # What no head needs isn't in a model.
    gelu = model.get_config().get("backbone", "resnet50") != "resnet50"
    activated = keras.activations.gelu if gelu else keras.activations.relu
    for name in [name for name in endpoints if re.fullmatch(r"stage\d", name)]:
        endpoints.setdefault(name.replace("stage", "res"), activated(endpoints[name]))
    parts = ("endpoint", "encoder", "pixel_decoder")  # as families of cases call them
    named = {f"{part}_{name}": x for name, x in endpoints.items() for part in parts}
    # Of MaX-DeepLab-L it is behind a decoder.
    named["endpoint_backbone_output"] = endpoints["backbone"]
    named["encoder_backbone_output"] = endpoints["res5"]
    return _run(model, named, image)


def _run(model: keras.Model, features: dict, image: np.ndarray) -> dict[str, np.ndarray]:
    """Answers by their names in a case, and features: together, as size L takes its time."""
    answers = {f"out_{name}": x for name, x in model.output.items()}
    found = keras.Model(model.input, {**answers, **features})(image, training=False)
    result = {}
    for name, x in found.items():
        name = re.sub(r"^out_auxiliary_(\d+)_", r"aux\1_", name)
        result[name] = keras.ops.convert_to_numpy(x)
        if name.startswith("aux") and name.endswith(keys.MASK_LOGITS):
            result[name.replace(keys.MASK_LOGITS, "assignment")] = np.argmax(result[name], -1)
    return result


def _compare_merge(case: dict, outputs: dict, maps: dict[str, np.ndarray]) -> None:
    """The merged maps, with the settings for that data set."""
    data_set, size = _DATA_SETS[case["dataset_info"]], next(iter(maps.values())).shape[1:]
    settings = MaskSettings(
        data_set.thing_classes, data_set.label_divisor, void_label=data_set.ignore_label
    )
    logits = (outputs[f"out_{key}"] for key in (keys.MASK_LOGITS, keys.MASK_CLASS_LOGITS))
    merged = merge_masks(*logits, settings, size)
    merged = {name: keras.ops.convert_to_numpy(x) for name, x in merged.items()}
    ours = {
        "post_panoptic_pred": merged[keys.PANOPTIC_LABEL],
        "post_semantic_pred": merged[keys.SEMANTIC_LABEL],
        # The reference has the first mask where there is none.
        "post_instance_pred": np.maximum(merged[keys.INSTANCE_MAP], 1),
    }
    for name, stored in maps.items():
        np.testing.assert_array_equal(ours[name], stored, err_msg=name)
