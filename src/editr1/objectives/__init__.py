"""Pure tensor functions, one equation each. They know tensors, not models."""
