"""What tests call in a process for an upload."""

import time

import numpy as np

from deepgps.errors import InputError


def read_file(path):
    return path.read_bytes()


def write_and_read(path):
    path.write_bytes(b"own")
    return path.read_bytes()


def allocate(count):
    return len(np.ones(count, np.uint8))


def wait(seconds):
    time.sleep(seconds)


def fail_with(text):
    raise ValueError(text)


def refuse(text):
    raise InputError(text)
