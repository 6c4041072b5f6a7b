"""What can go wrong, in a sentence that names the thing, the value and the remedy."""


class DeepGPSError(Exception):
    """Any failure deepGPS explains itself; the command line ends with exit code 1."""


class InputError(DeepGPSError):
    """A user's file, sequence, image or option cannot be used; exit code 2."""


class BundleError(InputError):
    """A model bundle is missing, damaged, or of an unknown schema version."""


class MissingExtraError(DeepGPSError):
    """A command needs an optional part of deepGPS that is not installed."""
