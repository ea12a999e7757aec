"""What operations on a map of 401 x 401 x 401 voxels take: make bench-maps.

Laue group mmm, and -1, for which four times as many voxels are different.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from large_map import SPACE_GROUPS, cost, make_apart

NO_MAP = "output.map=None"
CASES = {
    "read, write": [],
    "profile": [NO_MAP, "output.profile=p.csv"],
    "section": [NO_MAP, "sections.plane=hk0"],
    "isotropic": ["operations=isotropic"],
    "variational": ["operations=variational"],
    "minimum subtracted": ["operations=variational", "isotropic.kind=minimum"],
    "Bragg voxels punched, filled": ["operations=punch,fill"],
    "symmetrise 4/mmm": ["operations=symmetrise", "symmetrise.group=P422"],
    "difference": ["second.nxs", "operations=difference"],
    "correlation": ["second.nxs", NO_MAP, "output.correlation=c.csv"],
    "delta-PDF": [NO_MAP, "output.delta_pdf=pdf.ccp4"],
    "punch,fill,variational, delta-PDF": [NO_MAP, "operations=punch,fill,variational", "output.delta_pdf=pdf.ccp4"],
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        print("| Laue group | operation | time | CPU time | peak memory |\n| --- | --- | --- | --- | --- |")
        for laue_group in SPACE_GROUPS:
            make_apart(Path("merged.nxs"), laue_group)
            shutil.copy("merged.nxs", "second.nxs")
            for case, options in CASES.items():
                numbers = cost("dials.diffuse_map", ["merged.nxs", *options])
                print(f"| {laue_group} | {case} | {numbers} |", flush=True)
