"""The image modality: images to discrete codes and back with a VQGAN."""
