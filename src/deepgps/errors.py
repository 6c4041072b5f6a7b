"""The errors of deepGPS; each message names the thing, the value and the remedy."""


class DeepGPSError(Exception):
    """An error that deepGPS explains; the command line exits with code 1."""


class InputError(DeepGPSError):
    """A user's file, sequence, image or option cannot be used; the command line exits with code 2."""


class BundleError(InputError):
    """A model bundle is missing, damaged, or of an unknown schema version."""


class MissingExtraError(DeepGPSError):
    """A command needs an optional part of deepGPS that is not installed."""
