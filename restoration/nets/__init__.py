"""Network architectures, one file each; tensors keep the names their weight files use."""
