"""EXIF rotation inside a TensorFlow graph, whose decoders leave it out.

Phones store pictures as the sensor saw them and note which side is up. Without this a served
model would get people lying on their side.
"""

import tensorflow as tf

# The tag (0x0112), its type (3: 16 bits) and count (1) in both byte orders; the value follows.
_LITTLE_ENDIAN = (0x12, 0x01, 0x03, 0x00, 0x01, 0x00, 0x00, 0x00)
_BIG_ENDIAN = (0x01, 0x12, 0x00, 0x03, 0x00, 0x00, 0x00, 0x01, 0x00)
# EXIF data come first in a JPEG and are at most 64 kB.
_SEARCHED = 1 << 16


def upright(image: tf.Tensor, content: tf.Tensor) -> tf.Tensor:
    """Turns a decoded picture [H, W, C] as the EXIF data of its file say.

    Args:
        image: as decoded.
        content: the file, a scalar string.
    """
    orientation = read_orientation(content)

    def among(*values):
        return tf.reduce_any(tf.equal(orientation, values))

    image = tf.cond(among(5, 6, 7, 8), lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    image = tf.cond(among(2, 3, 6, 7), lambda: image[:, ::-1], lambda: image)
    return tf.cond(among(3, 4, 7, 8), lambda: image[::-1], lambda: image)


def read_orientation(content: tf.Tensor) -> tf.Tensor:
    """The EXIF orientation of a JPEG file, 1 to 8; 1 where nothing is said: int32 []."""
    data = tf.cast(tf.io.decode_raw(tf.strings.substr(content, 0, _SEARCHED), tf.uint8), tf.int32)
    is_jpeg = tf.equal(tf.strings.substr(content, 0, 2), b"\xff\xd8")
    little, big = _value_after(data, _LITTLE_ENDIAN), _value_after(data, _BIG_ENDIAN)
    value = tf.where(little > 0, little, big)
    return tf.where(is_jpeg & (value >= 1) & (value <= 8), value, 1)


def _value_after(data: tf.Tensor, pattern: tuple[int, ...]) -> tf.Tensor:
    """The byte behind the first occurrence of `pattern` in [N] bytes, 0 if there is none."""
    places = tf.maximum(tf.size(data) - len(pattern), 0)
    found = tf.ones([places], tf.bool)
    for offset, byte in enumerate(pattern):
        found &= tf.equal(data[offset : offset + places], byte)
    # Something is always found: the last place, behind which there are only zeros.
    first = tf.argmax(tf.cast(tf.concat([found, [True]], 0), tf.int32), output_type=tf.int32)
    return tf.pad(data, [[0, len(pattern) + 1]])[first + len(pattern)]
