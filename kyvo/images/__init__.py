"""The image modality: pictures to discrete codes and back with a VQGAN, and its training."""
