"""What a CLEVR-style scene is: its objects, where they may stand, and what the picture shows."""
