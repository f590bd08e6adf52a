"""Runs an exported .tflite file in MediaPipe's ImageSegmenter and compares it with LiteRT.

A command, not a test: MediaPipe lives in an environment of its own.

    python -m venv mp && mp/bin/pip install mediapipe ai-edge-litert
    mp/bin/python tests/export/mediapipe_check.py FILE.tflite PHOTO.jpg

Prints the share of each category and the agreement with LiteRT; exit code 1 if more than one pixel
in a hundred differs.
"""

import sys
import zipfile

import mediapipe as mp
import numpy as np
from ai_edge_litert.interpreter import Interpreter
from mediapipe.tasks.python import BaseOptions, vision
from PIL import Image, ImageOps


def run_litert(path: str, image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of the model's size -> probabilities [H, W, C]."""
    interpreter = Interpreter(path)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(source["index"], image[None].astype(source["dtype"]))
    interpreter.invoke()
    output = interpreter.get_tensor(target["index"])[0].astype(np.float32)
    scale, zero = target["quantization"]
    return (output - zero) * scale if scale else output


def run_mediapipe(path: str, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """-> probabilities [H, W, C], categories [H, W], labels."""
    options = vision.ImageSegmenterOptions(
        base_options=BaseOptions(model_asset_path=path),
        output_confidence_masks=True,
        output_category_mask=True,
    )
    with vision.ImageSegmenter.create_from_options(options) as segmenter:
        picture = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        result = segmenter.segment(picture)
        masks = [np.squeeze(mask.numpy_view()).copy() for mask in result.confidence_masks]
        category = np.squeeze(result.category_mask.numpy_view()).copy()
        return np.stack(masks, axis=-1), category, list(segmenter.labels)


def main(path: str, photo: str) -> int:
    with zipfile.ZipFile(path) as archive:
        written = archive.read("labels.txt").decode().splitlines()
    shape = Interpreter(path).get_input_details()[0]["shape"]
    image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    image = np.asarray(image.resize((int(shape[2]), int(shape[1]))))
    expected = run_litert(path, image)
    probabilities, category, labels = run_mediapipe(path, image)
    print(f"labels read by MediaPipe: {labels}")
    for value, label in enumerate(written):
        print(f"  {value} {label}: {(category == value).mean():.4f} of the pixels")
    agreement = (category == expected.argmax(-1)).mean()
    error = np.abs(probabilities - expected).max()
    print(f"agreement with LiteRT: {agreement:.5f} (largest difference in probability {error:.5f})")
    return 0 if labels == written and agreement >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
