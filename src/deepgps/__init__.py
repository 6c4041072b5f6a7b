"""deepGPS tells where in the cell a protein goes: as a label, and as an image."""

__version__ = "0.1.0"
