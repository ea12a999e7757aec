"""Memory of large arrays is not cleared for each of them."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

#: Pages that the system clears for ten arrays of 40 MB, the first left out.
SCRIPT = """
import resource, sys
import dials_diffuse
from dials.array_family import flex
from dials_diffuse.freed_memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
flex.int(10_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    flex.int(10_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the C library that is told")
def test_memory_of_large_arrays_is_used_again():
    pages = [
        int(subprocess.run([sys.executable, "-c", SCRIPT, how], capture_output=True, check=True).stdout)
        for how in ("given back", "kept")
    ]
    assert pages[0] > 100  # of 4 kB: 100000
    assert pages[1] < 0.02 * pages[0]
