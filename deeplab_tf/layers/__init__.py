"""Building blocks: backend-agnostic Keras."""
