"""Renderers: the project's ray tracer in PyTorch and Triton, and Mitsuba."""
