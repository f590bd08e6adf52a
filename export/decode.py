"""Files of pictures inside a TensorFlow graph, decoded to the very pixels that `predict` sees."""

import tensorflow as tf

# Where a PNG says what its pixels are made of (4 grey and alpha, 6 RGB and alpha); a shorter file
# is padded to ask. The chunk of transparent colours comes before the pixels.
_PNG_KIND, _PADDING, _PNG_SEARCHED = 25, b"\0" * 26, 1 << 16


def decode(content: tf.Tensor) -> tf.Tensor:
    """JPEG, PNG, BMP, WebP, the first frame of a GIF -> uint8 [H, W, 3], as `predict` reads it."""

    def starts_with(mark: bytes) -> tf.Tensor:
        return tf.equal(tf.strings.substr(content, 0, len(mark)), mark)

    image = tf.case(
        [
            # The fast transform, its default, changes the class of one pixel in sixty.
            (
                starts_with(b"\xff\xd8"),
                lambda: tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"),
            ),
            (
                starts_with(b"\x89PNG") & _has_alpha(content),
                lambda: _over_white(tf.io.decode_png(content, channels=4)),
            ),
        ],
        default=lambda: tf.io.decode_image(content, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _has_alpha(content: tf.Tensor) -> tf.Tensor:
    """Whether a PNG has transparency, as a channel or as a chunk; TensorFlow garbles others if
    they are asked for it."""
    kind = tf.strings.substr(tf.strings.join([content, _PADDING]), _PNG_KIND, 1)
    channel = tf.reduce_any(tf.equal(kind, [b"\x04", b"\x06"]))
    parts = tf.strings.split(tf.strings.substr(content, 0, _PNG_SEARCHED), b"tRNS")
    return channel | (tf.size(parts) > 1)


def _over_white(image: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 4] -> [H, W, 3]: colours under transparency aren't meant to be seen."""
    color, alpha = tf.cast(image[..., :3], tf.int32), tf.cast(image[..., 3:], tf.int32)
    return tf.cast((color * alpha + 255 * (255 - alpha) + 127) // 255, tf.uint8)
