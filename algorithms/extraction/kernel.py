"""The hot loop: mask, index and accumulate every pixel of a run of frames.

A row of pixels is done in two passes. The first computes the voxel of every pixel without a branch, so that the
compiler makes vector instructions of it. The second finds the runs of neighbouring pixels in the same voxel and adds
each run to the voxel's sums at once. All frames of a run are done for one row before the next row, so that the rays and
the sums of a row stay in the processor's cache.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dials_diffuse.algorithms.masking.ellipsoid import mahalanobis, sees_bragg

#: Codes in a row of voxels: masked, and -2 - voxel where the pixel may see a Bragg peak and needs a closer look.
MASKED = np.int32(-1)
#: Columns of the sums.
COUNTS, PIXELS, X, Y, Z, EXPOSURE = range(6)
#: Doubles a row of sums: one cache line.
WIDTH = 8


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "nsz", "arcp", "reassoc"})
def index_row(raw, good, x, y, z, m, c, lowest, highest, n_max, ndiv, weight, largest, voxels):
    """The voxel of every pixel in a row.

    Parameters
    ----------
    raw, good : ndarray, shape (n,)
        Raw values, and whether the static mask leaves them.
    x, y, z : ndarray, shape (n,), float32
        Unit rays.
    m, c : ndarray, shape (3, 3) and (3,), float32
        h = m u + c.
    lowest, highest
        Trusted range, inclusive.
    n_max : tuple of 3 int32
        Largest voxel index along each axis.
    ndiv : tuple of 3 float32
    weight, largest
        Shape and largest radius squared of the Bragg ellipsoids.
    voxels : ndarray, shape (n + 1,), int32
        Filled with keys (row-major in the box of 2 n_max + 1 voxels) or the codes above.
    """
    half, shift = np.float32(0.5), np.float32(4096.5)
    n0, n1, n2 = n_max
    s0, s1, s2 = np.int32(2 * n0 + 1), np.int32(2 * n1 + 1), np.int32(2 * n2 + 1)
    # A positive number is cut to the next lower integer: shift before the cast, and halves round up.
    f0, f1, f2 = np.float32(n0) + half, np.float32(n1) + half, np.float32(n2) + half
    d0, d1, d2 = ndiv
    m00, m01, m02, c0 = m[0, 0], m[0, 1], m[0, 2], c[0]
    m10, m11, m12, c1 = m[1, 0], m[1, 1], m[1, 2], c[1]
    m20, m21, m22, c2 = m[2, 0], m[2, 1], m[2, 2], c[2]
    for i in range(raw.shape[0]):
        h = m00 * x[i] + m01 * y[i] + m02 * z[i] + c0
        k = m10 * x[i] + m11 * y[i] + m12 * z[i] + c1
        l = m20 * x[i] + m21 * y[i] + m22 * z[i] + c2
        v0, v1, v2 = h * d0 + f0, k * d1 + f1, l * d2 + f2
        i0, i1, i2 = np.int32(v0), np.int32(v1), np.int32(v2)
        inside = (v0 >= 0) & (i0 < s0) & (v1 >= 0) & (i1 < s1) & (v2 >= 0) & (i2 < s2)
        e0 = h + half - np.float32(np.int32(h + shift) - np.int32(4096)) - half
        e1 = k + half - np.float32(np.int32(k + shift) - np.int32(4096)) - half
        e2 = l + half - np.float32(np.int32(l + shift) - np.int32(4096)) - half
        near = mahalanobis(e0, e1, e2, weight) < largest
        key = (i0 * s1 + i1) * s2 + i2
        key = np.int32(-2) - key if near else key
        use = inside & (raw[i] >= lowest) & (raw[i] <= highest) & good[i]
        voxels[i] = key if use else MASKED


@njit(cache=True, nogil=True)
def find_slot(keys, key):
    """The slot of a key in an open-addressing table: its own, or the empty one (-1) where it belongs."""
    mask = np.uint64(keys.shape[0] - 1)
    slot = (np.uint64(key) * np.uint64(11400714819323198485)) >> np.uint64(32) & mask
    while keys[slot] != key and keys[slot] != -1:
        slot = (slot + np.uint64(1)) & mask
    return np.int64(slot)


@njit(cache=True, nogil=True)
def grow(keys, sums):
    """The same table with twice the slots."""
    new_keys = np.full(2 * keys.shape[0], -1, np.int64)
    new_sums = np.zeros((2 * keys.shape[0], WIDTH))
    for old in range(keys.shape[0]):
        if keys[old] != -1:
            slot = find_slot(new_keys, keys[old])
            new_keys[slot] = keys[old]
            new_sums[slot] = sums[old]
    return new_keys, new_sums


@njit(cache=True, nogil=True, error_model="numpy")
def accumulate_row(
    raw, voxels, first_key, left, y, z, exposure, keys, sums, used, rays, m, c, weight, radius_squared, cumulative, ends
):
    """Add pixels of a row, whose voxels :func:`index_row` has found, to the sums; the number of slots used.

    ``raw`` and ``voxels`` begin at pixel ``left`` of the row, ``rays`` at its first.
    """
    n = raw.shape[0]
    total = cumulative[0] * 0
    for i in range(n):
        cumulative[i] = total
        total += raw[i] if voxels[i] != MASKED else 0
    cumulative[n] = total

    runs = 0
    for i in range(n - 1):
        ends[runs] = i + 1
        runs += voxels[i] != voxels[i + 1]
    ends[runs] = n
    runs += 1

    start = 0
    for run in range(runs):
        end = ends[run]
        code = voxels[start]
        if code >= 0:
            slot = find_slot(keys, first_key + code)
            if keys[slot] == -1:
                keys[slot] = first_key + code
                used += 1
            pixels = np.float64(end - start)
            sums[slot, COUNTS] += cumulative[end] - cumulative[start]
            sums[slot, PIXELS] += pixels
            sums[slot, X] += pixels * (left + 0.5 * (start + end))
            sums[slot, Y] += pixels * y
            sums[slot, Z] += pixels * z
            sums[slot, EXPOSURE] += pixels * exposure
        elif code != MASKED:
            key = first_key - 2 - code
            for i in range(start, end):
                x = left + i
                if not sees_bragg(rays[0, x], rays[1, x], rays[2, x], m, c, weight, radius_squared):
                    slot = find_slot(keys, key)
                    if keys[slot] == -1:
                        keys[slot] = key
                        used += 1
                    sums[slot, COUNTS] += raw[i]
                    sums[slot, PIXELS] += 1
                    sums[slot, X] += x + 0.5
                    sums[slot, Y] += y
                    sums[slot, Z] += z
                    sums[slot, EXPOSURE] += exposure
        start = end
    return used


@njit(cache=True, nogil=True, error_model="numpy")
def accumulate_frames(
    raw, good, rays, m, c, z, exposure, lowest, highest, n_max, ndiv, weight, radius_squared, largest,
    first_key, keys, sums, used, cumulative,
):  # fmt: skip
    """Add the pixels of a run of frames of one panel to the sums.

    Parameters
    ----------
    raw : ndarray, shape (frames, slow, fast)
    good : ndarray, shape (slow, fast), bool
    rays : ndarray, shape (slow, 3, fast), float32
    m, c : ndarray, shape (frames, 3, 3) and (frames, 3), float32
    z, exposure : ndarray, shape (frames,), float64
    lowest, highest, n_max, ndiv, weight, largest
        See :func:`index_row`.
    radius_squared : ndarray, float32
        Of every Bragg ellipsoid.
    first_key : int64
        Added to the voxel's key: where this panel's keys start.
    keys, sums : ndarray, shape (slots,), int64 and (slots, WIDTH), float64
        The hash table; slots is a power of two, empty slots have the key -1.
    used : int64
        Slots in use.
    cumulative : ndarray, shape (fast + 1,), int64 or float64
        Work space, in whose type the counts of a row are summed.

    Returns
    -------
    keys, sums, used
        The table, larger if it was half full.
    """
    frames, nslow, nfast = raw.shape
    voxels = np.empty(nfast, np.int32)
    ends = np.empty(nfast + 1, np.int32)
    for row in range(nslow):
        left, right = 0, nfast
        while left < right and not good[row, left]:
            left += 1
        while right > left and not good[row, right - 1]:
            right -= 1
        if left == right:
            continue
        x, y, z_ray = rays[row, 0, left:right], rays[row, 1, left:right], rays[row, 2, left:right]
        for frame in range(frames):
            if used + nfast > keys.shape[0] // 2:
                keys, sums = grow(keys, sums)
            pixels = raw[frame, row, left:right]
            index_row(
                pixels, good[row, left:right], x, y, z_ray, m[frame], c[frame],
                lowest, highest, n_max, ndiv, weight, largest, voxels,
            )  # fmt: skip
            used = accumulate_row(
                pixels, voxels, first_key, left, row + 0.5, z[frame], exposure[frame], keys, sums, used,
                rays[row], m[frame], c[frame], weight, radius_squared, cumulative, ends,
            )  # fmt: skip
    return keys, sums, used


@njit(cache=True, nogil=True, error_model="numpy")
def select_pixels(
    raw, good, rays, m, c, lowest, highest, n_max, ndiv, weight, radius_squared, largest, voxel_of_pixel
):  # fmt: skip
    """The voxel of every pixel of one frame of one panel, -1 where it is masked: for extraction pixel by pixel.

    Parameters are those of :func:`accumulate_frames` for a single frame; ``voxel_of_pixel``, shape (slow, fast), int32,
    is filled.
    """
    for row in range(raw.shape[0]):
        voxels = voxel_of_pixel[row]
        index_row(
            raw[row], good[row], rays[row, 0], rays[row, 1], rays[row, 2], m, c, lowest, highest, n_max, ndiv, weight,
            largest, voxels,
        )  # fmt: skip
        for i in range(raw.shape[1]):
            if voxels[i] < MASKED:
                seen = sees_bragg(rays[row, 0, i], rays[row, 1, i], rays[row, 2, i], m, c, weight, radius_squared)
                voxels[i] = MASKED if seen else -2 - voxels[i]
