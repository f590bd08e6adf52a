"""State dicts of PyTorch models: names and layouts.

The models are torchvision's DeepLabV3 and those of the DeepLabV3Plus-Pytorch repository, both
built here on the `_torch` backbones, MMSegmentation's, on the `resnet_v1c` ones, and those of the
Caffe releases of v1 and v2: deeplab-pytorch's ResNet-101, and VGG-16 by the names of its prototxt.
"""

import os
import re
from collections.abc import Callable, Collection, Mapping

import keras
import numpy as np
from keras import layers

from deeplab_tf.backbones import BACKBONES
from deeplab_tf.checkpoints.pytorch_file import read_state_dict

_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# What a wrapper for several devices puts before every name.
_WRAPPER = "module."
_AUXILIARY = "aux_classifier."
_MMSEG_HEAD, _MMSEG_AUXILIARY = "decode_head.", "auxiliary_head."
# Layers of ours by the module of a convolution and its batch norm.
_MMSEG_MODULES = {
    r"image_pooling": r"image_pool.1",
    r"aspp(\d+)": r"aspp_modules.\1",
    r"aspp(\d+)_(depthwise|pointwise)": r"aspp_modules.\1.\2_conv",
    r"concat_projection": r"bottleneck",
    r"decoder\.feature_projection0": r"c1_bottleneck",
    r"decoder\.decoder_conv(\d+)_(depthwise|pointwise)": r"sep_bottleneck.\1.\2_conv",
}
# Convolutions of a unit in deeplab-pytorch.
_CAFFE_CONVS = {0: "shortcut", 1: "reduce", 2: "conv3x3", 3: "increase"}
# Blocks of MobileNetV2 that the repository calls low-level features.
_LOW_LEVEL_BLOCKS = 4


class PyTorchNames:
    """The rule between the names of a state dict and a model's variable paths.

    Args:
        model: says which modules there are, from which PyTorch numbers them.
        names: of the state dict. The sources name the head differently.
    """

    def __init__(self, model: keras.Model, names: Collection[str]):
        self._layers = {layer.name for layer in model.layers}
        config = model.get_config()
        self._rates = len(config.get("atrous_rates") or ())
        self._convs = config.get("head_num_convs", 0)
        self._decoder_convs = None
        if config.get("decoder_output_stride"):
            self._decoder_convs = config.get("decoder_num_convs", 2)
        wrapped = any(name.startswith("classifier.classifier.0.convs.") for name in names)
        self._head = "classifier.classifier" if wrapped else "classifier"
        self._mmseg = any(name.startswith(_MMSEG_HEAD) for name in names)
        self._caffe = any(".reduce.conv." in name for name in names)
        # What shares a network between scales calls it its base.
        self._base = "base." if any(name.startswith("base.") for name in names) else ""
        self._has_fc = "fc.weight" in names
        # The data set is in the name of VGG-16's last layer: fc8_voc12, fc8_pascal.
        found = next(filter(None, (re.match(r"fc8_[a-z]\w*?(?=(_\d)?\.)", n) for n in names)), None)
        self._fc8 = found[0] if found else "fc8"
        self._paths = {self.source_name(w.path, model): w.path for w in model.weights}
        if self._has_fc and "logits.semantic_1" in self._layers:
            # The initial weights of v2: a network without ASPP. Only its backbone is of use here.
            scope = BACKBONES[config["backbone"]].scope
            self._paths |= {f"fc.{v}": f"{scope}.logits/{v}" for v in ("weight", "bias")}

    def variable_path(self, name: str, model: keras.Model) -> str:
        """Our path of a variable; a name that the model doesn't have stays as it is."""
        return self._paths.get(name, name)

    def source_name(self, path: str, model: keras.Model) -> str:
        """The name in the state dict of one of our variables."""
        layer, _, variable = path.rpartition("/")
        batch_norm = layer.endswith(".BatchNorm")
        modules = self._modules(layer.removesuffix(".BatchNorm"))
        return f"{modules[batch_norm]}.{_VARIABLES.get(variable, variable)}"

    def is_weight(self, name: str, model: keras.Model) -> bool:
        """False for counters, and for an auxiliary head where the model has none."""
        if (
            name.startswith((_AUXILIARY, _MMSEG_AUXILIARY))
            and "auxiliary.logits" not in self._layers
        ):
            return False
        return not name.endswith(".num_batches_tracked")

    def _modules(self, layer: str) -> tuple[str, str]:
        """(convolution, batch norm): PyTorch's modules for a convolution of ours."""
        for pattern, modules in (
            (r"resnet_\d+\.(.+)", self._caffe_resnet if self._caffe else self._resnet),
            (r"vgg_16\.(.+)", lambda layer: (layer, layer)),
            (r"fc8(.*)", lambda suffix: (self._fc8 + suffix,) * 2),
            (r"MobilenetV3\.(.+)", self._mobilenet_v3),
            (r"MobilenetV2\.(.+)", self._mobilenet_v2),
            (r"(auxiliary\..+)", self._mmseg_auxiliary if self._mmseg else self._auxiliary),
            (r"(.+)", self._head_rule()),
        ):
            found = re.fullmatch(pattern, layer)
            if found:
                return modules(found[1])
        return layer, f"{layer}.BatchNorm"

    def _head_rule(self) -> Callable[[str], tuple[str, str]]:
        if self._mmseg:
            return self._mmseg_head
        return self._caffe_head if self._caffe else self._head_modules

    def _resnet(self, layer: str) -> tuple[str, str]:
        if layer == "conv1":
            return "backbone.conv1", "backbone.bn1"
        if layer.startswith("conv1_"):  # of three: convolution, batch norm and activation each
            number = 3 * (int(layer.removeprefix("conv1_")) - 1)
            return f"backbone.stem.{number}", f"backbone.stem.{number + 1}"
        stage, unit, conv = _numbers(r"block(\d+)\.unit_(\d+)\.\w+\.(?:conv(\d)|shortcut)", layer)
        scope = f"backbone.layer{stage}.{unit - 1}"
        if not conv:
            return f"{scope}.downsample.0", f"{scope}.downsample.1"
        return f"{scope}.conv{conv}", f"{scope}.bn{conv}"

    def _caffe_resnet(self, layer: str) -> tuple[str, str]:
        if layer == "conv1":
            return f"{self._base}layer1.conv1.conv", f"{self._base}layer1.conv1.bn"
        stage, unit, conv = _numbers(r"block(\d+)\.unit_(\d+)\.\w+\.(?:conv(\d)|shortcut)", layer)
        module = f"{self._base}layer{stage + 1}.block{unit}.{_CAFFE_CONVS[conv]}"
        return f"{module}.conv", f"{module}.bn"

    def _caffe_head(self, layer: str) -> tuple[str, str]:
        found = re.fullmatch(r"logits\.semantic(?:_(\d+))?", layer)
        if not found:
            return layer, f"{layer}.BatchNorm"
        module = "fc" if self._has_fc else f"{self._base}aspp.c{int(found[1] or 0)}"
        return module, module

    def _mobilenet_v3(self, layer: str) -> tuple[str, str]:
        if layer == "Conv":
            return "backbone.0.0", "backbone.0.1"
        if layer == "Conv_1":
            last = sum(name.endswith(".project") for name in self._layers) + 1
            return f"backbone.{last}.0", f"backbone.{last}.1"
        block, part = layer.split(".", 1)
        scope = f"MobilenetV3.{block}"
        number = self._place(scope, part.split(".")[0])
        module = f"backbone.{_block_number(block)}.block.{number}"
        if part.startswith("squeeze_excite."):
            gate = f"{module}.{'fc2' if part.endswith('_1') else 'fc1'}"
            return gate, gate
        return f"{module}.0", f"{module}.1"

    def _mobilenet_v2(self, layer: str) -> tuple[str, str]:
        if layer == "Conv":
            return "backbone.low_level_features.0.0", "backbone.low_level_features.0.1"
        block, part = layer.split(".", 1)
        number, place = _block_number(block), self._place(f"MobilenetV2.{block}", part)
        kind = "low" if number < _LOW_LEVEL_BLOCKS else "high"
        module = f"backbone.{kind}_level_features.{number}.conv.{place}"
        if part == "project":  # neither wrapped nor followed by an activation
            return module, f"{module.rpartition('.')[0]}.{place + 1}"
        return f"{module}.0", f"{module}.1"

    def _place(self, scope: str, part: str) -> int:
        """Number of a part among those that its inverted residual has."""
        parts = ("expand", "depthwise", "squeeze_excite", "project")
        there = [p for p in parts if any(n.startswith(f"{scope}.{p}") for n in self._layers)]
        return there.index(part)

    def _auxiliary(self, layer: str) -> tuple[str, str]:
        if layer == "auxiliary.logits":
            return f"{_AUXILIARY}4", f"{_AUXILIARY}4"
        return f"{_AUXILIARY}0", f"{_AUXILIARY}1"

    def _mmseg_auxiliary(self, layer: str) -> tuple[str, str]:
        if layer == "auxiliary.logits":
            return (f"{_MMSEG_AUXILIARY}conv_seg",) * 2
        return f"{_MMSEG_AUXILIARY}convs.0.conv", f"{_MMSEG_AUXILIARY}convs.0.bn"

    def _mmseg_head(self, layer: str) -> tuple[str, str]:
        if layer == "logits.semantic":
            return (f"{_MMSEG_HEAD}conv_seg",) * 2
        for pattern, module in _MMSEG_MODULES.items():
            found = re.fullmatch(pattern, layer)
            if found:
                module = _MMSEG_HEAD + found.expand(module)
                return f"{module}.conv", f"{module}.bn"
        return layer, f"{layer}.BatchNorm"

    def _head_modules(self, layer: str) -> tuple[str, str]:
        plus = self._decoder_convs is not None
        pyramid = "classifier.aspp" if plus else f"{self._head}.0"
        # Convolution, batch norm and activation: three numbers each.
        first = "classifier.classifier" if plus else self._head
        number = 0 if plus else 1
        if layer == "logits.semantic":
            convs = self._decoder_convs if self._decoder_convs is not None else self._convs
            last = f"{first}.{number + 3 * convs}"
            return last, last
        if layer == "image_pooling":
            module = f"{pyramid}.convs.{self._rates + 1}"
            return f"{module}.1", f"{module}.2"
        if layer == "concat_projection":
            return f"{pyramid}.project.0", f"{pyramid}.project.1"
        if layer == "decoder.feature_projection0":
            return "classifier.project.0", "classifier.project.1"
        found = re.fullmatch(r"aspp(\d+)", layer)
        if found:
            return f"{pyramid}.convs.{found[1]}.0", f"{pyramid}.convs.{found[1]}.1"
        found = re.fullmatch(r"head\.conv(\d+)", layer)
        if found:
            number += 3 * int(found[1])
            return f"{first}.{number}", f"{first}.{number + 1}"
        found = re.fullmatch(r"decoder\.decoder_conv0\.decoder_conv0_(\d+)", layer)
        if found:
            number += 3 * (int(found[1]) - 1)
            return f"{first}.{number}", f"{first}.{number + 1}"
        return layer, f"{layer}.BatchNorm"


def _numbers(pattern: str, text: str) -> list[int]:
    """The numbers that a pattern's groups find; 0 for one that finds nothing."""
    found = re.fullmatch(pattern, text)
    assert found, text
    return [int(number or 0) for number in found.groups()]


def _block_number(scope: str) -> int:
    """`expanded_conv` is the first after the stem, `expanded_conv_1` the second."""
    return int(scope.removeprefix("expanded_conv").removeprefix("_") or 0) + 1


def read_pytorch(
    path: str | os.PathLike, model: keras.Model
) -> tuple[dict[str, np.ndarray], PyTorchNames, dict[str, str]]:
    """(arrays in TensorFlow's layout, their names' rule, names that lost a wrapper's prefix).

    Raises:
        InputError: the file can't be read, or holds anything but tensors.
    """
    arrays = read_state_dict(path)
    origins = {}
    if arrays and all(name.startswith(_WRAPPER) for name in arrays):
        origins = {name.removeprefix(_WRAPPER): name for name in arrays}
        arrays = {name.removeprefix(_WRAPPER): array for name, array in arrays.items()}
    names = PyTorchNames(model, arrays)
    return to_tensorflow(arrays, names, model), names, origins


def to_tensorflow(
    arrays: Mapping[str, np.ndarray], names: PyTorchNames, model: keras.Model
) -> dict[str, np.ndarray]:
    """Kernels [out, in, h, w] -> [h, w, in, out], depthwise [C, 1, h, w] -> [h, w, C, 1]."""
    depthwise = {x.name for x in model.layers if isinstance(x, layers.DepthwiseConv2D)}
    result = {}
    for name, array in arrays.items():
        if array.ndim == 4:
            layer = names.variable_path(name, model).rpartition("/")[0]
            array = array.transpose((2, 3, 0, 1) if layer in depthwise else (2, 3, 1, 0))
        result[name] = array
    return result
