"""Backbones that are another's network in another width, depth or name: built by the same code."""

ALIKE = {
    *("swidernet", "max_deeplab_l_backbone", "axial_resnet_m", "axial_resnet_l"),
    *("axial_deeplab_m", "axial_deeplab_l", "axial_deeplab_xl"),
}
