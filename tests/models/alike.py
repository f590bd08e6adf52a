"""Backbones that are another's network, in another width, depth, activation or name."""

ALIKE = {
    *("swidernet", "max_deeplab_l_backbone", "axial_resnet_m", "axial_resnet_l"),
    *("axial_deeplab_m", "axial_deeplab_l", "axial_deeplab_xl"),
    *("axial_resnet50", "convnext_small", "convnext_base", "convnext_large"),
}
