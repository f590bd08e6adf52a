"""Writes a model of ours as the official tools would: names, folding, ends of the graph."""

import keras
import numpy as np

from deeplab_tf.checkpoints.tf1 import source_name


def folded_kernels(model) -> dict[str, np.ndarray]:
    """TF1 name of each kernel -> its values with batch norm multiplied in."""
    layers = {layer.name: layer for layer in model.layers}
    result = {}
    for layer in model.layers:
        if not hasattr(layer, "kernel"):
            continue
        kernel, norm = np.asarray(layer.kernel), layers.get(f"{layer.name}.BatchNorm")
        if norm is not None:
            scale = np.asarray(norm.gamma) / np.sqrt(
                np.asarray(norm.moving_variance) + norm.epsilon
            )
            kernel = kernel * (scale[:, None] if kernel.shape[3] == 1 else scale)
        result[source_name(layer.kernel.path, model)] = kernel
    return result


def _frozen(function):
    """A concrete function whose variables became constants."""
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    return convert_variables_to_constants_v2(function)


def write_lite_file(path, model, side: int):
    """Takes float32 [1, side, side, 3] in [-1, 1], gives logits [1, side, side, classes]."""
    import tensorflow as tf
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    preprocessed, logits = (
        model.get_layer(model.endpoints[name]).output for name in ("preprocessed", "logits")
    )
    network, resize = keras.Model(preprocessed, logits), model.get_layer("semantic_logits")
    function = tf.function(lambda pixels: resize([network(pixels, training=False), pixels]))
    signature = tf.TensorSpec((1, side, side, 3), tf.float32)
    frozen = _frozen(function.get_concrete_function(signature))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
    file = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(converter.convert(), 0))
    unnamed = folded_kernels(model)
    for tensor in file.subgraphs[0].tensors:
        data = file.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None or len(tensor.shape) != 4:
            continue
        values = np.frombuffer(bytes(data), np.float32).reshape(tensor.shape)
        values = values.transpose(1, 2, 3, 0)
        for name, kernel in unnamed.items():
            if kernel.shape == values.shape and np.allclose(kernel, values, atol=1e-5):
                tensor.name = name.encode()
                del unnamed[name]
                break
    assert not unnamed, f"not in the file: {[*unnamed]}"
    builder = Builder(1024)
    builder.Finish(file.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def write_frozen_graph(path, model, side: int):
    """Constants are named like variables, as freezing a TF1 graph leaves them."""
    import tensorflow as tf

    def official(image):
        height, width = tf.shape(image)[1], tf.shape(image)[2]
        pixels = tf.cast(image, tf.float32) - 127.5
        pixels = tf.pad(pixels, [(0, 0), (0, side - height), (0, side - width), (0, 0)]) + 127.5
        pixels = tf.ensure_shape(pixels, (1, side, side, 3))
        labels = tf.argmax(model(pixels, training=False), -1, output_type=tf.int32)
        return tf.identity(labels[:, :height, :width], name="SemanticPredictions")

    signature = tf.TensorSpec((1, None, None, 3), tf.uint8, name="ImageTensor")
    function = tf.function(official).get_concrete_function(signature)
    graph = _frozen(function).graph.as_graph_def()
    arrays = {source_name(weight.path, model): np.asarray(weight) for weight in model.weights}
    renamed = {}
    for node in graph.node:
        if node.op != "Const":
            continue
        values = tf.make_ndarray(node.attr["value"].tensor)
        for name, array in arrays.items():
            if array.shape == values.shape and np.array_equal(array, values):
                renamed[node.name] = name
                del arrays[name]
                break
    assert not arrays, f"not in the graph: {[*arrays]}"
    for node in graph.node:
        node.name = renamed.get(node.name, node.name)
        for index, source in enumerate(node.input):
            node.input[index] = renamed.get(source, source)
    path.write_bytes(graph.SerializeToString())
    return path
