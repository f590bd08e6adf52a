"""Auto-DeepLab (https://arxiv.org/abs/1901.02985): a searched cell in a searched network.

The official code calls it HNASNet, for the hierarchy of its search: cells, and the resolution of
each. Its width F (Table 2) is `nas_stem_output_num_conv_filters`, 20, 32 or 48.
"""

from deeplab_tf.backbones.genotype import Genotype, check_levels
from deeplab_tf.backbones.nas_network import nas_network, nas_options

# Fig. 3 of the paper: the cell to the right, the path through the levels to the left.
_CELL = Genotype(
    operations=(
        *("atrous_5x5", "separable_3x3_2"),
        *("separable_3x3_2", "atrous_3x3"),
        *("separable_3x3_2", "separable_3x3_2"),
        *("separable_5x5_2", "separable_5x5_2"),
        *("separable_5x5_2", "atrous_5x5"),
    ),
    inputs=(1, 0, 1, 0, 3, 1, 4, 2, 3, 5),
    outputs=(2, 3, 4, 5, 6),
)
_LEVELS: tuple[int, ...] = (0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1)


def nas_hnasnet(x, *, output_stride: int, nas_architecture_options: dict | None = None) -> dict:
    """[B, H, W, 3] in [-1, 1] -> endpoints; "res5" has 5 * 40 channels, with the head 2048.

    Low-level features are those of the last cell at each level before the deepest one is reached.

    Args:
        x: normalised pixels.
        output_stride: the stride of the last cell, which is 8 in the published network. With
            the classification head any up to 32.
        nas_architecture_options: `nas_stem_output_num_conv_filters`, 20 if left out;
            `nas_use_classification_head`, what ImageNet training puts on top;
            `nas_remove_os32_stride`, which keeps cells of stride 32 at 16;
            `nas_genotype`, another cell: {"operations": […], "inputs": […], "outputs": […]} as in
            `Genotype`; `nas_levels`, another path: one number per cell, 0 (stride 4) to 3 (32).

    Raises:
        InputError: an option that there isn't, a genotype or levels that make no network, or an
            output stride that these don't lead to.
    """
    options = nas_options(nas_architecture_options)
    genotype, levels = _CELL, _LEVELS
    if options["nas_genotype"] is not None:
        genotype = Genotype.from_json(options["nas_genotype"])
    if options["nas_levels"] is not None:
        levels = check_levels(options["nas_levels"])
    x, outputs = nas_network(
        x, genotype, levels, output_stride=output_stride, options=options, scope="hnasnet"
    )
    # The stem, level 0, is the first of the outputs.
    on_the_way_down = (0, *levels[: levels.index(max(levels))])
    endpoints = {
        f"res{level + 2}": output for level, output in zip(on_the_way_down, outputs, strict=False)
    }
    return {**endpoints, "res5": x}
