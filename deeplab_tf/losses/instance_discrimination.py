"""Pixels of one mask get features alike, those of different masks don't.

`mask_contrast` is MaX-DeepLab's (https://arxiv.org/abs/2012.00759, Sec. 3.4), `pixel_contrast`
CMT-DeepLab's (https://arxiv.org/abs/2206.08948), which kMaX-DeepLab uses too.
"""

from keras import ops

from deeplab_tf.losses.mask_targets import Masks
from deeplab_tf.losses.parts import mean_of_nonzero, take_each, without_target

# A logit that softmax turns to nothing.
NEVER = -99999.0


def mask_contrast(feature, masks: Masks, temperature: float):
    """How well a thing's pixels are told by their features' similarity to each mask's mean.

    Args:
        feature: of pixels, of length 1: float32 [B, P, D].
        masks: of the labels.
        temperature: of the softmax over the masks.

    Returns:
        float32 [B]: mean over the pixels of things.
    """
    mean = ops.einsum("bpd,bpm->bmd", feature, masks.of_pixel)
    mean = mean / ops.maximum(masks.area, 1.0)[..., None]
    squares = ops.sum(ops.square(mean), axis=-1, keepdims=True)
    mean = mean * ops.rsqrt(ops.maximum(squares, 1e-12))
    logits = ops.einsum("bpd,bmd->bpm", feature, mean) / temperature
    logits = ops.where(masks.present[:, None], logits, NEVER)
    losses = ops.logsumexp(logits, axis=-1) - take_each(logits, masks.number)
    return mean_of_nonzero(ops.where(masks.thing, losses, 0.0))


def pixel_contrast(feature, masks: Masks, temperature: float, sample):
    """How well features tell which of the sampled pixels belong to the same mask.

    Args:
        feature, temperature: see `mask_contrast`.
        masks: of the labels.
        sample: places of pixels, int32 [B, K]. Crowds among them, and what isn't labelled if all
            else was too little, stand for what others aren't alike; they lose nothing themselves.

    Returns:
        float32 [B]: mean over the sampled pixels that belong to a mask.
    """
    feature, mask = take_rows(feature, sample), take_rows(masks.of_pixel, sample)
    logits = ops.einsum("bkd,bjd->bkj", feature, feature) / temperature
    total = ops.logsumexp(logits, axis=-1)
    # The target of a pixel is the same share for each of its mask. The mean of its logits there is
    # its similarity to their mean feature: no matrix of targets is needed.
    count = ops.sum(mask, axis=1)
    mean = ops.einsum("bkm,bkd->bmd", mask, feature) / ops.maximum(count, 1.0)[..., None]
    alike = ops.sum(ops.einsum("bkm,bmd->bkd", mask, mean) * feature, axis=-1) / temperature
    return mean_of_nonzero(ops.where(ops.any(mask > 0, -1), total - alike, without_target(total)))


def sample_pixels(masks: Masks, count: int, temperature: float, uniform):
    """Pixels drawn without replacement: Gumbel top-k, small masks before large ones.

    Args:
        masks: of the labels.
        count: how many; if there are fewer, all.
        temperature: a pixel's chance is its mask's area to the power of minus this, and nearly
            nothing if it isn't labelled.
        uniform: numbers in [0, 1), float32 [B, P], that make the draw.

    Returns:
        Their places: int32 [B, min(count, P)].
    """
    pixels = ops.shape(masks.number)[1]
    area = ops.maximum(ops.einsum("bpm,bm->bp", masks.of_pixel, masks.area), 1.0)
    logits = ops.log(ops.cast(pixels, "float32") / area) * temperature
    logits = logits + ops.where(masks.labelled, 0.0, NEVER)
    noise = -ops.log(-ops.log(uniform))
    count = min(count, pixels) if isinstance(pixels, int) else ops.minimum(count, pixels)
    return ops.cast(ops.top_k(logits + noise, count)[1], "int32")


def take_rows(x, index):
    """Rows of each picture's own: [B, P, D] at int32 [B, K] -> [B, K, D]."""
    batch, pixels = ops.shape(x)[:2]
    index = index + pixels * ops.arange(batch, dtype="int32")[:, None]
    return ops.take(ops.reshape(x, (-1, x.shape[-1])), index, axis=0)
