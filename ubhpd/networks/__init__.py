"""Networks in plain torch: backbones by family, the layers that several models share, and the contract of a model."""
