"""Visitors, told apart by their network address, which is not stored.

A visitor is a keyed hash of an IPv4 address or of the /64 network of an IPv6 address, whose last 64 bits a
visitor chooses at will. The key is a file of the site's storage; without it, a hash leads to no address.
"""

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_address, ip_network
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, Lock
from starlette.requests import Request

from opengps.storage import Storage

KEY_FILE = "visitors.key"
_KEY_BYTES = 32
_DIGEST_BYTES = 12
_NETWORK_BITS = 64


def network(address: str) -> str:
    """Return what limits count by: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        # A test client, or a server on a socket without addresses.
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((parsed, _NETWORK_BITS), strict=False))


def visitor_key(storage: Storage) -> bytes:
    """Return the key of a site; it is made when the site is first opened."""
    try:
        return storage.read(KEY_FILE)
    except FileNotFoundError:
        storage.write({KEY_FILE: secrets.token_bytes(_KEY_BYTES)})
    # Another process may have written its own at the same time: the last one counts.
    return storage.read(KEY_FILE)


def visitor_of(request: Request) -> str:
    """Return the visitor who sent a request."""
    address = network(request.client.host) if request.client else ""
    key: bytes = request.app.state.site.visitor_key
    return hmac.new(key, address.encode(), hashlib.sha256).hexdigest()[: 2 * _DIGEST_BYTES]


class UploadLimits:
    """Limits of reading uploads in a server process: one of a visitor at a time, and a few of all.

    Parameters
    ----------
    at_once
        How many of all.

    Attributes
    ----------
    limiter
        Limits the threads that read uploads.
    """

    def __init__(self, at_once: int) -> None:
        self.limiter = CapacityLimiter(at_once)
        self._locks: WeakValueDictionary[str, Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, visitor: str) -> AsyncIterator[None]:
        """Wait until no other upload of the visitor is being read."""
        lock = self._locks.get(visitor)
        if lock is None:
            lock = self._locks[visitor] = Lock()
        async with lock:
            yield
