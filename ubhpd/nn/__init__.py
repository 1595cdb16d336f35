"""Network layers and backbones that several models share, and the contract of a model."""
