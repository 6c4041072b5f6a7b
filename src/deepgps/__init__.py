"""deepGPS: where in the cell does this protein go?"""

__version__ = "0.1.0"
