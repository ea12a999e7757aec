"""Chunks of HDF5 as the filter bitshuffle with LZ4 makes them (number 32008), which Eiger detectors use.

A writer of its own, because HDF5's plug-in is not everywhere where images are simulated; reading needs it (the packages
hdf5plugin or bitshuffle). Sources: Masui et al. (2015), Astron. Comput. 12, 181, and src/bitshuffle.c and
src/bshuf_h5filter.c of bitshuffle 0.5; the LZ4 block format description.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FILTER = 32008
LZ4 = 2
#: Bytes that are shuffled and compressed at once, as bitshuffle chooses them.
BLOCK = 8192


def compress(array: np.ndarray) -> bytes:
    """One chunk: the header of 12 bytes, then blocks with their sizes, then what is left of eight elements.

    Parameters
    ----------
    array : ndarray
        Of little-endian numbers.
    """
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    header = raw.size.to_bytes(8, "big") + BLOCK.to_bytes(4, "big")
    return header + _compress(raw, array.itemsize).tobytes()


@njit(cache=True)
def _compress(raw, size):
    whole = raw.size // (8 * size) * 8 * size
    out = np.empty(2 * raw.size + 64, np.uint8)
    shuffled = np.empty(BLOCK, np.uint8)
    at = 0
    for start in range(0, whole, BLOCK):
        length = min(BLOCK, whole - start)
        _shuffle(raw[start : start + length], size, shuffled)
        end = _lz4(shuffled[:length], out, at + 4)
        for byte in range(4):
            out[at + byte] = (end - at - 4) >> (24 - 8 * byte) & 255
        at = end
    for rest in range(whole, raw.size):
        out[at] = raw[rest]
        at += 1
    return out[:at]


@njit(cache=True)
def _shuffle(raw, size, out):
    """Bits to planes: first bit 0 of byte 0 of all elements (their number is a multiple of 8), then bit 1, ..."""
    groups = raw.size // size // 8
    for byte in range(size):
        for group in range(groups):
            x = np.uint64(0)
            for element in range(8):
                x |= np.uint64(raw[(8 * group + element) * size + byte]) << np.uint64(8 * element)
            # transposes 8 x 8 bits (Warren, Hacker's Delight, section 7-3)
            t = (x ^ (x >> np.uint64(7))) & np.uint64(0x00AA00AA00AA00AA)
            x ^= t ^ (t << np.uint64(7))
            t = (x ^ (x >> np.uint64(14))) & np.uint64(0x0000CCCC0000CCCC)
            x ^= t ^ (t << np.uint64(14))
            t = (x ^ (x >> np.uint64(28))) & np.uint64(0x00000000F0F0F0F0)
            x ^= t ^ (t << np.uint64(28))
            for bit in range(8):
                out[(8 * byte + bit) * groups + group] = (x >> np.uint64(8 * bit)) & np.uint64(255)


@njit(cache=True)
def _lz4(raw, out, at):
    """An LZ4 block in which only repeats of a single byte are compressed; where it ends in ``out``."""
    n, anchor, i = raw.size, 0, 1
    while i < n - 12:  # the format's rules: no match begins in the last 12 bytes or reaches into the last 5
        end = i
        while end < n - 5 and raw[end] == raw[i - 1]:
            end += 1
        if end - i >= 8:
            at = _sequence(raw[anchor:i], end - i - 4, out, at)
            anchor = end
        i = end + 1
    return _sequence(raw[anchor:], -1, out, at)


@njit(cache=True)
def _sequence(literals, match, out, at):
    """Literals, then a match of ``match`` + 4 bytes with the byte before; -1 for none."""
    token = at
    at = _length(literals.size, out, at + 1)
    for byte in literals:
        out[at] = byte
        at += 1
    out[token] = min(literals.size, 15) << 4
    if match >= 0:
        out[token] |= min(match, 15)
        out[at], out[at + 1] = 1, 0
        at = _length(match, out, at + 2)
    return at


@njit(cache=True)
def _length(length, out, at):
    """What does not fit into the token's four bits."""
    if length >= 15:
        length -= 15
        while length >= 255:
            out[at] = 255
            at, length = at + 1, length - 255
        out[at] = length
        at += 1
    return at
