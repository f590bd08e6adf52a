"""What several losses are made of."""

from keras import ops


def safe_mean(total, count):
    """total / count, and 0 with zero gradient where nothing counts."""
    return ops.where(count > 0.0, total / ops.maximum(count, 1.0), ops.zeros_like(total))


def mean_of_nonzero(losses):
    """The mean of those that aren't zero, and 0 with zero gradient if all are: [B, N] -> [B]."""
    count = ops.sum(ops.cast(losses != 0.0, "float32"), axis=1)
    return safe_mean(ops.sum(losses, axis=1), count)


def take_each(logits, index):
    """One logit of each pixel: [B, P, N] at int32 [B, P] -> [B, P]; the first where it is < 0."""
    return ops.take_along_axis(logits, ops.maximum(index, 0)[..., None], axis=-1)[..., 0]


def without_target(total):
    """The loss of a softmax that nothing is the target of, from its logits' logsumexp: 0.

    It still pushes every logit down, with the gradient of the softmax: the official kernel takes
    for granted that targets sum to 1.
    """
    return total - ops.stop_gradient(total)
