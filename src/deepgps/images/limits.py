"""What an image may be, so that a strange file is refused in a sentence and never fills the memory."""

MAX_PIXELS = 100_000_000
"""Values (height × width × channels) read from one image, judged by its header before anything is decoded."""

MIN_EDGE_PX = 16
"""A nucleus needs more pixels than this in either direction."""

PLAUSIBLE_PIXEL_UM = (0.01, 10.0)
"""Pixel sizes of microscopes, in micrometres; what a file claims beyond is print resolution or a default."""
