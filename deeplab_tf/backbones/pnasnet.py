"""PNASNet-5 (https://arxiv.org/abs/1712.00559) as the DeepLab encoder uses it: 12 cells."""

from deeplab_tf.backbones.genotype import Genotype
from deeplab_tf.backbones.nas_network import nas_network, nas_options
from deeplab_tf.errors import InputError

_CELL = Genotype(
    operations=(
        *("separable_5x5_2", "max_pool_3x3"),
        *("separable_7x7_2", "max_pool_3x3"),
        *("separable_5x5_2", "separable_3x3_2"),
        *("separable_3x3_2", "max_pool_3x3"),
        *("separable_3x3_2", "none"),
    ),
    inputs=(1, 1, 0, 0, 0, 0, 4, 0, 1, 0),
    outputs=(2, 3, 4, 5, 6),
)
_LEVELS = {
    8: (1,) * 12,
    16: (1,) * 4 + (2,) * 8,
    32: (1,) * 4 + (2,) * 4 + (3,) * 4,
}


def nas_pnasnet(x, *, output_stride: int, nas_architecture_options: dict | None = None) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 5 * filters of the last level.

    Args:
        x: normalised pixels.
        output_stride: 8, 16 or 32. A smaller one leaves strides out, without atrous convolution.
        nas_architecture_options: `nas_stem_output_num_conv_filters`, 20 if left out;
            `nas_use_classification_head`, what ImageNet training puts on top:
            "res5" has 2048 channels then.

    Raises:
        InputError: an option that this network doesn't have.
    """
    options = nas_options(nas_architecture_options)
    for option in ("nas_remove_os32_stride", "nas_genotype", "nas_levels"):
        if options[option] not in (None, False):
            raise InputError(f"{option}: only nas_hnasnet has it; leave it out.")
    x, outputs = nas_network(
        x,
        _CELL,
        _LEVELS[output_stride],
        output_stride=output_stride,
        options=options,
        scope="pnasnet",
    )
    return {"res2": outputs[0], "res3": outputs[4], "res4": outputs[8], "res5": x}
