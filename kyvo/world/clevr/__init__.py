"""What a CLEVR-style scene is: its objects, where they may be, and what the image shows."""
