"""Checkpoints of deeplab2, which are object-based (TF2), and the rule between their names and ours.

A name there is the path of Python attributes to a variable: `encoder/_stage2/_block1/...`. Parts
begin with an underscore, but for the first, for places in a list, and for those of Keras itself. A
convolution and its batch norm lie beside each other in a block, where ours are a layer and its
companion.
"""

import re
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from deeplab_tf.errors import InputError
from deeplab_tf.layers.axial_attention import AxialAttention
from deeplab_tf.layers.dual_path_transformer import JointAttention, LearnedMemory
from deeplab_tf.layers.normalization import BatchNorm

# Only object-based checkpoints have this key; every variable's ends like the other.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Beside the parts of a model, a trainer saves its step and its optimiser.
_PARTS = re.compile(
    r"(encoder|(semantic|instance|pixel|transformer)_decoder|"
    r"(semantic|instance_center|instance_regression)_"
    r"(head_without_last_layer|head_last_layer|last_layer)|"
    r"pixel_space_(head|feature_batch_norm|mask_batch_norm)|transformer_(mask|class)_head)/"
)
# MaX-DeepLab-L's encoder has a stacked decoder; models that take its backbone make no use of it.
_UNUSED = re.compile(r"encoder/_decoder_stage\d.*")
# Our layers by the block there. A number that is missing in a name is 0, see `_module`.
_BLOCKS = (
    (r"(\w+_decoder)\.aspp0", r"\1/_aspp/_conv_bn_act"),
    (r"(\w+_decoder)\.aspp(\d)", r"\1/_aspp/_aspp_conv\2/_conv_bn_act"),
    (r"(\w+_decoder)\.image_pooling", r"\1/_aspp/_aspp_pool/_conv_bn_act"),
    (r"(\w+_decoder)\.concat_projection", r"\1/_aspp/_proj_conv_bn_act"),
    (r"(\w+_decoder)\.feature_projection0_(\d)", r"\1/_low_level_conv{\2}"),
    (
        r"(\w+_decoder)\.decoder_conv0_(\d)_(depthwise|pointwise)",
        r"\1/_fusion_conv{\2}/_conv1_bn_act/_\3",
    ),
    (
        r"(\w+_decoder)\.decoder_conv0_(\d)\.decoder_conv0(?:_\d)?_1",
        r"\1/_fusion_conv{\2}/_conv1_bn_act",
    ),
    # ConvNeXt's lists count layers with weights.
    (r"encoder\.downsample_layers\.0\.conv", "encoder/downsample_layers/0/layer_with_weights-0"),
    (r"encoder\.downsample_layers\.0\.norm", "encoder/downsample_layers/0/layer_with_weights-1"),
    (
        r"encoder\.downsample_layers\.(\d)\.norm",
        r"encoder/downsample_layers/\1/layer_with_weights-0",
    ),
    (
        r"encoder\.downsample_layers\.(\d)\.conv",
        r"encoder/downsample_layers/\1/layer_with_weights-1",
    ),
    (r"encoder\.stages\.(\d)\.(\d+)\.layer_scale", r"encoder/stages/\1/layer_with_weights-\2"),
    (r"encoder\.stages\.(\d)\.(\d+)\.(\w+)", r"encoder/stages/\1/layer_with_weights-\2/\3"),
    (r"MobilenetV3\.Conv", "encoder/_blocks/0"),
    (r"MobilenetV3\.expanded_conv_(\d+)\.expand", r"encoder/_blocks/{\1}/_conv1_bn_act"),
    (r"MobilenetV3\.expanded_conv_(\d+)\.depthwise", r"encoder/_blocks/{\1}/_conv2_bn_act"),
    (r"MobilenetV3\.expanded_conv_(\d+)\.project", r"encoder/_blocks/{\1}/_conv3_bn"),
    (
        r"MobilenetV3\.expanded_conv_(\d+)\.squeeze_excite\.Conv",
        r"encoder/_blocks/{\1}/_squeeze_excitation/_se_reduce",
    ),
    (
        r"MobilenetV3\.expanded_conv_(\d+)\.squeeze_excite\.Conv_1",
        r"encoder/_blocks/{\1}/_squeeze_excitation/_se_expand",
    ),
)
# Of our names, before they are looked up. Where a stage is the first, its number is left out; and
# the parts of a separable convolution have one name with it.
_REWRITTEN = (
    (r"(\w+_decoder\.(?:feature_projection0|decoder_conv0))(?!_\d)", r"\1_0"),
    (r"(MobilenetV3\.expanded_conv)(?=\.)", r"\1_0"),
    (r"\.conv1_bn_act_(depthwise|pointwise)$", r".conv1_bn_act.\1"),
)
# Layers that have no block around them.
_BARE = re.compile(
    r".*(_last_layer|/_se_(reduce|expand|conv)|/convolution|/final_conv|"
    r"/layer_with_weights-\d+(/\w+)?)"
)
_CONVNEXT = re.compile(r"(downsample_layers|stages)/\d/")
_CONVNEXT_KERNEL = re.compile(
    r"encoder/stages/\d/layer_with_weights-\d+/(depthwise|pointwise)_conv\d?/kernel"
)
# Parts without an underscore.
_PLAIN = re.compile(r"convolution|conv_block|final_conv|\d+")


class Deeplab2Names:
    """The rule between a checkpoint's keys, without their suffix, and a model's variable paths.

    Args:
        model: says which layers there are.
    """

    def __init__(self, model: keras.Model):
        self._layers = {layer.name: layer for layer in model.layers}
        self._paths = {self.source_name(w.path, model): w.path for w in model.weights}
        self._is_stacked = any(map(_UNUSED.fullmatch, self._paths))

    def variable_path(self, name: str, model: keras.Model) -> str:
        """Our path of a variable; a name that the model doesn't have stays as it is."""
        return self._paths.get(name, name)

    def source_name(self, path: str, model: keras.Model) -> str:
        """The key of one of our variables."""
        name, _, variable = path.partition("/")
        if name.endswith(".BatchNorm"):
            return f"{self._module(name.removesuffix('.BatchNorm'))}/_batch_norm/{variable}"
        module, layer = self._module(name), self._layers.get(name)
        if isinstance(layer, LearnedMemory):  # what has the variable, has it as its own
            return f"{module.rpartition('/')[0]}/{variable}"
        if isinstance(layer, AxialAttention | JointAttention):
            if variable.endswith("_rpe"):
                return f"{module}/_{variable}/embeddings"
            return f"{module}/{'_' if '/' in variable else ''}{variable}"
        norm = isinstance(layer, BatchNorm | layers.LayerNormalization)
        if norm or _BARE.fullmatch(module):
            return f"{module}/{variable}"
        if isinstance(layer, layers.DepthwiseConv2D):
            return f"{module}/_depthwise_conv/{variable.replace('kernel', 'depthwise_kernel')}"
        return f"{module}/_conv/{variable.replace('switch/', '_switch/')}"

    def is_weight(self, name: str, model: keras.Model) -> bool:
        """False for what isn't a part of the model: steps, optimisers, an unused decoder."""
        unused = not self._is_stacked and _UNUSED.fullmatch(name)
        return bool(_PARTS.match(name)) and not unused

    def _module(self, layer: str) -> str:
        """The path of a layer's block."""
        for pattern, replacement in _REWRITTEN:
            layer = re.sub(pattern, replacement, layer)
        if layer == "MobilenetV3.Conv_1":
            blocks = [n for n in self._layers if re.fullmatch(r"MobilenetV3\..*\.project", n)]
            return f"encoder/_blocks/{len(blocks) + 1}"
        for pattern, block in _BLOCKS:
            if match := re.fullmatch(pattern, layer):
                # There the first one has the number 1.
                return re.sub(r"\{(\d+)\}", lambda m: str(int(m[1]) + 1), match.expand(block))
        first, *rest = layer.split(".")
        return "/".join([first, *(p if _PLAIN.fullmatch(p) else f"_{p}" for p in rest)])


def in_our_layout(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A checkpoint's arrays by name, its few kernels of another layout as they are here.

    In ConvNeXt's blocks, what is a depthwise convolution here is one in groups there, and what is a
    1x1 convolution is a dense layer.
    """
    result = dict(arrays)
    for name, array in arrays.items():
        match = _CONVNEXT_KERNEL.fullmatch(name)
        if match and match[1] == "depthwise" and array.ndim == 4:
            result[name] = array.swapaxes(2, 3)
        elif match and match[1] == "pointwise" and array.ndim == 2:
            result[name] = array[None, None]
    return result


def by_attributes(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The variables of an object-based checkpoint, by their paths of attributes.

    What was saved below a root of its own, as trainers do, loses that part of its name; a ConvNeXt
    that was saved by itself gets "encoder", which it has as a part of a model.

    Args:
        arrays: key -> array.
        prefix: of the checkpoint's files, for the error.

    Raises:
        InputError: none of them is of a part of deeplab2's models.
    """
    found = {
        name.removesuffix(_VARIABLE): array
        for name, array in arrays.items()
        if name.endswith(_VARIABLE) and "/.OPTIMIZER_SLOT/" not in name
    }
    roots = {name.partition("/")[0] for name in found if _PARTS.match(name.partition("/")[2])}
    for root in roots - {""}:
        found = {name.removeprefix(f"{root}/"): array for name, array in found.items()}
    if any(map(_CONVNEXT.match, found)):
        found = {
            f"encoder/{name}" if _CONVNEXT.match(name) else name: array
            for name, array in found.items()
        }
    if not any(map(_PARTS.match, found)):
        raise InputError(
            f"{prefix}: a TF2 (object-based) checkpoint, but none of deeplab2's models: it has no "
            f"encoder/…; its first variable is {min(found, default='missing')}."
        )
    return in_our_layout(found)
