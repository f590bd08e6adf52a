"""SavedModel, TFLite, quantisation and verification."""
