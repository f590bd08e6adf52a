"""Names of outputs, targets and record features. Strings only, so any room may import them."""

# Keys of an example and names of model inputs and outputs.
IMAGE = "image"
NAME = "name"
SEMANTIC_LABEL = "semantic_label"
SEMANTIC_LOGITS = "semantic_logits"
CLASS_LOGITS = "class_logits"
AUXILIARY_LOGITS = "auxiliary_logits"
PANOPTIC_LABEL = "panoptic_label"
CENTER_HEATMAP = "center_heatmap"
OFFSET_MAP = "offset_map"
INSTANCE_MAP = "instance_map"
INSTANCE_SCORE = "instance_score"
SEMANTIC_SCORE = "semantic_score"
PROBABILITIES = "probabilities"

# Of the mask transformers: what each slot is a mask of, and what it is learnt from.
PIXEL_FEATURE = "pixel_space_normalized_feature"
MASK_LOGITS = "pixel_space_mask_logits"
MASK_CLASS_LOGITS = "transformer_class_logits"
THING_ID_MASK = "thing_id_mask"
THING_ID_CLASS = "thing_id_class"
SEMANTIC_WEIGHT = "semantic_weight"
# Of an earlier answer that is learnt from too: AUXILIARY.format(number, MASK_LOGITS).
AUXILIARY = "auxiliary_{}_{}"

# Features of a TFRecord, as the official code writes and reads them.
RECORD_IMAGE = "image/encoded"
RECORD_FILENAME = "image/filename"
RECORD_FORMAT = "image/format"
RECORD_HEIGHT = "image/height"
RECORD_WIDTH = "image/width"
RECORD_CHANNELS = "image/channels"
RECORD_LABEL = "image/segmentation/class/encoded"
RECORD_LABEL_FORMAT = "image/segmentation/class/format"
