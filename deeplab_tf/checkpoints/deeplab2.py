"""Checkpoints of deeplab2, which are object-based (TF2), and the rule between their names and ours.

A name there is the path of Python attributes to a variable: `encoder/_stage2/_block1/...`. Parts
begin with an underscore, but for the first and for those of Keras itself. A convolution and its
batch norm lie beside each other in a block, where ours are a layer and its companion.
"""

import re
from collections.abc import Mapping

import keras
import numpy as np
from keras import layers

from deeplab_tf.errors import InputError
from deeplab_tf.layers.axial_attention import AxialAttention

# Only object-based checkpoints have this key; every variable's ends like the other.
OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Beside the parts of a model, a trainer saves its step and its optimiser.
_PARTS = re.compile(
    r"(encoder|(semantic|instance)_decoder|(semantic|instance_center|instance_regression)_"
    r"(head_without_last_layer|head_last_layer|last_layer))/"
)
# MaX-DeepLab-L's backbone has a stacked decoder that Panoptic-DeepLab makes no use of.
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
    (r"(\w+)\.conv1_bn_act_(depthwise|pointwise)", r"\1/_conv1_bn_act/_\2"),
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
# Where a stage's number is left out in our names because it is the first.
_FIRST = (
    (r"(\w+_decoder\.(?:feature_projection0|decoder_conv0))(?!_\d)", r"\1_0"),
    (r"(MobilenetV3\.expanded_conv)(?=\.)", r"\1_0"),
)
# Convolutions that have no block around them.
_BARE = re.compile(r".*(_last_layer|/_se_(reduce|expand|conv)|/convolution)")


class Deeplab2Names:
    """The rule between a checkpoint's keys, without their suffix, and a model's variable paths.

    Args:
        model: says which layers there are.
    """

    def __init__(self, model: keras.Model):
        self._layers = {layer.name: layer for layer in model.layers}
        self._paths = {self.source_name(w.path, model): w.path for w in model.weights}

    def variable_path(self, name: str, model: keras.Model) -> str:
        """Our path of a variable; a name that the model doesn't have stays as it is."""
        return self._paths.get(name, name)

    def source_name(self, path: str, model: keras.Model) -> str:
        """The key of one of our variables."""
        name, _, variable = path.partition("/")
        if name.endswith(".BatchNorm"):
            return f"{self._module(name.removesuffix('.BatchNorm'))}/_batch_norm/{variable}"
        module, layer = self._module(name), self._layers.get(name)
        if isinstance(layer, AxialAttention):
            if variable.endswith("_rpe"):
                return f"{module}/_{variable}/embeddings"
            return f"{module}/{'_' if '/' in variable else ''}{variable}"
        if isinstance(layer, layers.DepthwiseConv2D):
            return f"{module}/_depthwise_conv/{variable.replace('kernel', 'depthwise_kernel')}"
        if _BARE.fullmatch(module):
            return f"{module}/{variable}"
        return f"{module}/_conv/{variable.replace('switch/', '_switch/')}"

    def is_weight(self, name: str, model: keras.Model) -> bool:
        """False for what isn't a part of the model: steps, optimisers, an unused decoder."""
        return bool(_PARTS.match(name)) and not _UNUSED.fullmatch(name)

    def _module(self, layer: str) -> str:
        """The path of a layer's block."""
        for pattern, replacement in _FIRST:
            layer = re.sub(pattern, replacement, layer)
        if layer == "MobilenetV3.Conv_1":
            blocks = [n for n in self._layers if re.fullmatch(r"MobilenetV3\..*\.project", n)]
            return f"encoder/_blocks/{len(blocks) + 1}"
        for pattern, block in _BLOCKS:
            if match := re.fullmatch(pattern, layer):
                # There the first one has the number 1.
                return re.sub(r"\{(\d+)\}", lambda m: str(int(m[1]) + 1), match.expand(block))
        first, *rest = layer.split(".")
        return "/".join([first, *(p if p == "convolution" else f"_{p}" for p in rest)])


def by_attributes(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The variables of an object-based checkpoint, by their paths of attributes.

    What was saved below a root of its own, as trainers do, loses that part of its name.

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
    if not any(map(_PARTS.match, found)):
        raise InputError(
            f"{prefix}: a TF2 (object-based) checkpoint, but none of deeplab2's models: it has no "
            f"encoder/…; its first variable is {min(found, default='missing')}."
        )
    return found
