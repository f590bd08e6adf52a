"""Pictures through a model: presets, SavedModels and .tflite files, one interface for all.

Nothing here imports TensorFlow or Keras before a model that needs them is opened.
"""
