"""Text on its way to a model: documents, tokens, blocks for training, windows for measuring."""
