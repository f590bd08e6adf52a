"""Labels and segmenter metadata inside a .tflite file, so that MediaPipe Tasks loads it as it is.

Two things are added to the model. A buffer named TFLITE_METADATA says what the tensors mean, in
the layout of the published `metadata_schema.fbs` and `image_segmenter_metadata_schema.fbs`. And
the files it names, the list of labels above all, follow the model as an uncompressed zip archive:
a .tflite file is also a zip file. Our own record of the model travels there too, and a checksum.

MediaPipe's segmenter reads one map. A panoptic file has three, whose names and meanings are
written all the same; it is for `deeplab_tf.inference.litert`, which merges them.
"""

import dataclasses
import io
import json
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from deeplab_tf import __version__, keys
from deeplab_tf.errors import InputError
from deeplab_tf.export.flatbuffer import Reader, byte_vector, offset_vector, table
from deeplab_tf.inference.intact import CHECKSUM_FILE, INFO_FILE, checksum
from deeplab_tf.models.info import ModelInfo

LABELS_FILE = "labels.txt"
_METADATA = "TFLITE_METADATA"
_SEGMENTER = "SEGMENTER_METADATA"
# The oldest reader that knows custom metadata.
_PARSER_VERSION = "1.5.0"
_ACTIVATIONS = ("none", "sigmoid", "softmax")
# Values of enums and unions in the two schemas.
_IMAGE_PROPERTIES, _FEATURE_PROPERTIES = 2, 1
_NORMALIZATION_OPTIONS = 1
_RGB = 1
_TENSOR_AXIS_LABELS = 2
# What an output is, by name; those of a panoptic file are all there.
_OUTPUTS = {
    keys.PROBABILITIES: "Probability of each class, [1, h, w, classes].",
    "labels": "Class of each pixel.",
    keys.CENTER_HEATMAP: "How surely a pixel is the centre of an instance, [1, h, w, 1].",
    keys.OFFSET_MAP: "(y, x) in pixels of this map to the centre of the instance, [1, h, w, 2].",
}
# A zip archive made twice is the same twice.
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclasses.dataclass(frozen=True)
class FileMetadata:
    """What a file says of itself.

    Attributes:
        name, description, license: in words.
        labels: class names by value.
        activation: what a reader has to apply to the output: "none", "sigmoid", "softmax"; None
            if the file isn't meant for a segmenter.
        mean, std: input = (pixel - mean) / std; None where raw pixels go in.
        info: our own record, None in files of others.
    """

    name: str
    description: str
    license: str
    labels: tuple[str, ...]
    activation: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    info: ModelInfo | None


def class_names(info: ModelInfo, num_classes: int) -> tuple[str, ...]:
    """The names of all classes; those without one are called by their value."""
    known = info.classes[:num_classes]
    return (*known, *(f"class_{value}" for value in range(len(known), num_classes)))


def add_metadata(
    model: bytes, info: ModelInfo, labels: tuple[str, ...], *, name: str, segmenter: bool = True
) -> bytes:
    """The file's content with metadata and labels.

    Args:
        model: of a .tflite file with one picture input, and one output or a panoptic model's.
        info: travels in the archive; its `image_size` shall be the file's.
        labels: a name for each class.
        name: of the model.
        segmenter: whether the output is [1, h, w, classes]; a label map is nothing that
            MediaPipe's segmenter could read.
    """
    content = schema.ModelT.InitFromPackedBuf(model)
    graph = content.subgraphs[0]
    image = graph.tensors[graph.inputs[0]]
    metadata = _model_metadata(
        info,
        name=name,
        size=(int(image.shape[1]), int(image.shape[2])),
        float_input=image.type == schema.TensorType.FLOAT32,
        outputs=_output_names(content) or ("probabilities" if segmenter else "labels",),
        segmenter=segmenter,
    )
    entry = schema.MetadataT()
    entry.name, entry.buffer = _METADATA, len(content.buffers)
    content.metadata = [*(content.metadata or []), entry]
    content.buffers.append(schema.BufferT(data=np.frombuffer(metadata, np.uint8)))
    content.buffers = [_AlignedBuffer.of(buffer) for buffer in content.buffers]
    builder = flatbuffers.Builder(len(model) + len(metadata) + 4096)
    builder.Finish(content.Pack(builder), b"TFL3")
    record = json.dumps(info.to_json(), ensure_ascii=False, indent=1)
    packed = bytes(builder.Output())
    return _with_files(
        packed,
        {
            LABELS_FILE: "".join(f"{label}\n" for label in labels),
            INFO_FILE: record,
            CHECKSUM_FILE: checksum(packed),
        },
    )


def _output_names(content: schema.ModelT) -> tuple[str, ...]:
    """By the file's signature, in the order of the outputs; empty if it doesn't name them all."""
    names = {
        output.tensorIndex: output.name.decode()
        for signature in (content.signatureDefs or [])[:1]
        for output in signature.outputs
    }
    found = [names.get(index) for index in content.subgraphs[0].outputs]
    return tuple(name for name in found if name in _OUTPUTS) if None not in found else ()


def read_metadata(content: bytes) -> FileMetadata:
    """Reads what `add_metadata` wrote, and what other writers of the same schema did.

    Raises:
        InputError: the file holds no metadata, or it is broken.
    """
    try:
        packed = _find_metadata(content)
        root = Reader.root(packed)
        graph = root.tables(3)[0]
        image, outputs = graph.tables(2)[0], graph.tables(3)
        files = _read_files(content)
        normalization = [unit.table(1) for unit in image.tables(4) if unit.byte(0) == 1]
        mean = normalization[0].floats(0) if normalization else None
        std = normalization[0].floats(1) if normalization else None
        custom = {entry.string(0): entry.raw(1) for entry in graph.tables(9)}
        options = custom.get(_SEGMENTER)
        named = [file.string(0) for output in outputs for file in output.tables(6)]
        labels = files.get(named[0], "").splitlines() if named else []
        info = files.get(INFO_FILE)
        return FileMetadata(
            name=root.string(0),
            description=root.string(1),
            license=root.string(5),
            labels=tuple(labels),
            activation=_ACTIVATIONS[Reader.root(options).byte(0)] if options else None,
            mean=mean,
            std=std,
            info=ModelInfo.from_json(json.loads(info)) if info else None,
        )
    except InputError:
        raise
    except Exception as error:  # offsets are followed blindly and may lead anywhere
        raise InputError(
            f"the metadata of this TFLite file can't be read ({error!r}); export it again."
        ) from None


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data start at a multiple of 16, as the schema says and kernels may expect.

    The generated writer aligns to the type only, that is, not at all for bytes.
    """

    @classmethod
    def of(cls, buffer: schema.BufferT) -> "_AlignedBuffer":
        return cls(data=buffer.data, offset=buffer.offset, size=buffer.size)

    def Pack(self, builder):  # noqa: N802  (called by this name)
        data = None
        if self.data is not None:
            data = byte_vector(builder, np.asarray(self.data, np.uint8).tobytes())
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        schema.BufferAddOffset(builder, self.offset)
        schema.BufferAddSize(builder, self.size)
        return schema.BufferEnd(builder)


def _model_metadata(
    info: ModelInfo,
    *,
    name: str,
    size: tuple[int, int],
    float_input: bool,
    outputs: tuple[str, ...],
    segmenter: bool,
) -> bytes:
    """A `ModelMetadata` buffer. Inner objects come first: the format is written back to front."""
    b = flatbuffers.Builder(4096)
    text = b.CreateString
    graph: dict[int, int] = {
        2: offset_vector(b, [_input_metadata(b, size, float_input=float_input)]),
        3: offset_vector(b, [_output_metadata(b, output) for output in outputs]),
    }
    if segmenter:
        data = byte_vector(b, _segmenter_options())
        graph[9] = offset_vector(b, [table(b, {0: text(_SEGMENTER), 1: data})])
    kind = "Panoptic" if keys.CENTER_HEATMAP in outputs else "Semantic"
    fields = {
        0: text(name),
        1: text(info.source or f"{kind} segmentation: a class for each pixel."),
        2: text(__version__),
        3: offset_vector(b, [table(b, graph)]),
        4: text("deeplab-tf"),
        7: text(_PARSER_VERSION),
    }
    if info.license:
        fields[5] = text(info.license)
    b.Finish(table(b, fields), b"M001")
    return bytes(b.Output())


def _input_metadata(b: flatbuffers.Builder, size: tuple[int, int], *, float_input: bool) -> int:
    """`TensorMetadata` of the picture."""
    text = b.CreateString
    shape = table(b, uints={0: size[1], 1: size[0]})
    image = table(b, {1: shape}, bytes_={0: _RGB})
    content = table(b, {1: image}, bytes_={0: _IMAGE_PROPERTIES})
    fields = {
        0: text(keys.IMAGE),
        1: text("RGB picture, 0..255; normalisation is inside the model."),
        3: content,
    }
    if float_input:
        # Readers insist on it for float pixels: here, that 0..255 goes in unchanged.
        numbers = [b.CreateNumpyVector(np.array([v], np.float32)) for v in (0.0, 1.0)]
        options = table(b, dict(enumerate(numbers)))
        unit = table(b, {1: options}, bytes_={0: _NORMALIZATION_OPTIONS})
        fields[4] = offset_vector(b, [unit])
    return table(b, fields)


def _output_metadata(b: flatbuffers.Builder, name: str) -> int:
    """`TensorMetadata` of an output; that of classes has their names with it."""
    text = b.CreateString
    content = table(b, {1: table(b)}, bytes_={0: _FEATURE_PROPERTIES})
    fields = {0: text(name), 1: text(_OUTPUTS[name]), 3: content}
    if name in (keys.PROBABILITIES, "labels"):
        labels = table(
            b,
            {0: text(LABELS_FILE), 1: text("Class names by value.")},
            bytes_={2: _TENSOR_AXIS_LABELS},
        )
        fields[6] = offset_vector(b, [labels])
    return table(b, fields)


def _segmenter_options() -> bytes:
    """An `ImageSegmenterOptions` buffer: the softmax is in the model, so no activation is left."""
    b = flatbuffers.Builder(64)
    fields = {1: b.CreateString("1.0.0")}
    b.Finish(table(b, fields, bytes_={0: _ACTIVATIONS.index("none")}), b"V001")
    return bytes(b.Output())


def _with_files(model: bytes, files: dict[str, str]) -> bytes:
    """The model with an archive behind it. Readers map the files, so they stay uncompressed."""
    buffer = io.BytesIO(model)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), text.encode())
    return buffer.getvalue()


def _read_files(content: bytes) -> dict[str, str]:
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def _find_metadata(content: bytes) -> bytes:
    model = schema.Model.GetRootAsModel(content, 0)
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name() == _METADATA.encode():
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    raise InputError("this TFLite file has no metadata; export it again to get labels inside.")
