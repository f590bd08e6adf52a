"""Raw files to TFRecords to batches."""
