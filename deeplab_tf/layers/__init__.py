"""Building blocks: backend-agnostic Keras."""

import keras

if keras.backend.backend() == "torch":
    from deeplab_tf.layers.torch_names import allow_dots

    allow_dots()
