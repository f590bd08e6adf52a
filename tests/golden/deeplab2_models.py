"""Models of deeplab2: Panoptic-DeepLab, also on axial backbones, and axial attention alone."""

import re
from pathlib import Path

import keras
import numpy as np
import panoptic_parts
import weights
from pytorch_models import close

from deeplab_tf.backbones import BACKBONES
from deeplab_tf.checkpoints.deeplab2 import Deeplab2Names
from deeplab_tf.checkpoints.strict import Source, assign
from deeplab_tf.layers.axial_attention import axial_attention_2d
from deeplab_tf.layers.conv import BatchNormSettings
from deeplab_tf.models.presets import MODEL_CLASSES

__all__ = ["build_model", "compare", "describe_model", "run_case", "variables"]


def parse_textproto(text: str) -> dict:
    """A message in protobuf's text format: field -> list of its values, messages as dicts."""
    tokens = re.findall(r'"[^"]*"|[{}]|[^\s{}:"]+', text)

    def message() -> dict:
        fields: dict = {}
        while tokens and tokens[0] != "}":
            name, token = tokens.pop(0), tokens.pop(0)
            if token == "{":
                value = message()
                assert tokens.pop(0) == "}"
            else:
                value = _scalar(token)
            fields.setdefault(name, []).append(value)
        return fields

    return message()


def _scalar(token: str):
    if token.startswith('"'):
        return token.strip('"')
    if token in ("true", "false"):
        return token == "true"
    return float(token) if "." in token else int(token)


def describe_model(case: dict) -> dict:
    """The model of a case, as a JSON file for `deeplab-tf convert` describes it."""
    options = parse_textproto(case["model_options_textproto"])
    backbone, decoder = (dict(options[key][0]) for key in ("backbone", "decoder"))
    panoptic = options["panoptic_deeplab"][0]
    head = panoptic["semantic_head"][0]
    name = backbone.pop("name")[0]
    known = BACKBONES[name if name not in _RENAMED else _RENAMED[name]]
    arguments = {
        "num_classes": head["output_channels"][0],
        "backbone": _RENAMED.get(name, name),
        "output_stride": backbone.pop("output_stride")[0],
        "low_level": low_level(panoptic["low_level"]),
        "image_pooling_crop_size": case["train_crop_size"],
        "head_channels": head["head_channels"][0],
        "batch_norm_epsilon": float(case["batchnorm"]["epsilon"]),
    }
    if name in _RENAMED:
        backbone.pop("use_squeeze_and_excite")
        if "backbone_width_multiplier" in backbone:
            backbone["depth_multiplier"] = backbone.pop("backbone_width_multiplier")
    else:
        # The source always sets it, so that its S is as wide as its L.
        arguments["backbone_width_multiplier"] = 1.0
    arguments |= {key: values[0] for key, values in backbone.items()}
    assert set(backbone) <= set(known.options), backbone
    if "head_conv_type" in head:
        arguments["head_conv_type"] = head["head_conv_type"][0]
    arguments |= decoder_options(dict(decoder))
    instance = panoptic.get("instance", [{}])[0]
    if instance.get("enable") == [False]:
        arguments["tasks"] = "semantic"
    else:
        # Without options of its own, the instance half has the semantic one's.
        own = instance.get("instance_decoder_override", [decoder])[0]
        arguments |= decoder_options(dict(own), "instance_")
        stages = instance.get("low_level_override", panoptic["low_level"])
        arguments["instance_low_level"] = low_level(stages)
        arguments["instance_head_channels"] = instance["center_head"][0]["head_channels"][0]
    axial = case["family"] == "axial_deeplab"
    info = {"image_size": [case["input"]["height"], case["input"]["width"]]}
    class_name = "AxialDeepLab" if axial else "PanopticDeepLab"
    return {"class_name": class_name, "arguments": arguments, "info": info}


_RENAMED = {f"mobilenet_v3_{size}": f"mobilenet_v3_{size}_deeplab2" for size in ("large", "small")}


def low_level(stages: list[dict]) -> list:
    """Endpoint and channels of each stage of a decoder."""
    return [[stage["feature_key"][0], stage["channels_project"][0]] for stage in stages]


def decoder_options(options: dict, prefix: str = "", *, feature: str = "res5") -> dict:
    """Constructor arguments for the options of one decoder, which takes that feature."""
    assert options.pop("feature_key") == [feature]
    arguments = {f"{prefix}decoder_channels": options.pop("decoder_channels")[0]}
    if "aspp_channels" in options:
        arguments[f"{prefix}aspp_channels"] = options.pop("aspp_channels")[0]
    if "atrous_rates" in options:
        arguments[f"{prefix}atrous_rates"] = options.pop("atrous_rates")
    # Both decoders have the same of these in every published configuration.
    for key in ("aspp_use_only_1x1_proj_conv", "decoder_conv_type"):
        if key in options:
            arguments[key] = options.pop(key)[0]
    assert not options, options
    return arguments


def build_model(case: dict) -> keras.Model:
    """The model of a case."""
    description = describe_model(case)
    return MODEL_CLASSES[description["class_name"]](**description["arguments"])


def variables(case: dict) -> dict[str, np.ndarray]:
    """Key without its suffix -> generated value."""
    make, gain = weights.make, case["gain"]
    return {name: make(name, shape, kind, gain) for name, shape, kind in case["variables"]}


def run_case(case: dict, arrays: dict[str, np.ndarray], path: Path) -> None:
    """Builds and fills the model of a case, and compares; other parts have cases too."""
    if path.stem.startswith(("targets_", "losses_", "post_processor_")):
        panoptic_parts.run_case(case, arrays, path)
        return
    if "layers" in case:
        _compare_layers(case, arrays)
        return
    model = build_model(case)
    arrays_of_case, names = variables(case), Deeplab2Names(model)
    loaded = assign(model, Source(str(path), "golden", arrays_of_case, names=names))
    unused = sum(arrays_of_case[name].size for name in loaded.left_out)
    assert model.count_params() + unused == case["num_parameters"]
    compare(model, case, arrays)


def compare(model: keras.Model, case: dict, arrays: dict[str, np.ndarray]) -> None:
    """Compares the outputs and features of a filled model with its case."""
    facts = case["input"]
    image = weights.input_image(facts["height"], facts["width"], facts["seed"])
    outputs = _outputs(model, image[None].astype("float32"))
    assert set(arrays) <= set(outputs), f"no output for {sorted(set(arrays) - set(outputs))}"
    for name, stored in arrays.items():
        strides = case["subsample_strides"].get(name)
        if name in case["endpoints"]:
            strides = case["endpoints"][name]["strides"]
        close(name, outputs[name], stored, strides)


def _outputs(model: keras.Model, image: np.ndarray) -> dict[str, np.ndarray]:
    """By the names in a case."""
    result = model(image, training=False)
    result = result if isinstance(result, dict) else {"semantic_logits": result}
    found = model.endpoint_model(*model.endpoints)(image, training=False)
    raw = {"semantic_logits": "logits", "backbone_output": "backbone"}
    outputs = {f"endpoint_{name}": x for name, x in found.items()}
    outputs["endpoint_backbone_output"] = found["backbone"]
    outputs |= {f"raw_{name}": found[raw.get(name, f"{name}_raw")] for name in result}
    outputs |= {f"out_{name}": x for name, x in result.items()}
    arrays = {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}
    if "out_center_heatmap" in arrays:
        arrays["out_center_heatmap"] = arrays["out_center_heatmap"][..., 0]
    return arrays


def _compare_layers(case: dict, arrays: dict[str, np.ndarray]) -> None:
    """Attention alone: one layer after the other."""
    for name, facts in case["layers"].items():
        config = dict(facts["config"])
        stored = arrays[f"{name}_in"]
        image = keras.Input(stored.shape[1:])
        settings = BatchNormSettings(case["batchnorm"]["epsilon"], 0.99)
        model = keras.Model(
            image, axial_attention_2d(image, **config, batch_norm=settings, name=name)
        )
        made = {key: weights.make(key, shape, kind) for key, shape, kind in facts["variables"]}
        assign(model, Source(name, "golden", made, names=_LayerNames(model)))
        ours = keras.ops.convert_to_numpy(model(stored, training=False))
        close(name, ours, arrays[f"{name}_out"], None)


class _LayerNames(Deeplab2Names):
    """The rule, of a layer that belongs to no model."""

    def is_weight(self, name: str, model: keras.Model) -> bool:
        return True
