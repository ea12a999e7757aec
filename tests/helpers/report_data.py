"""A report of scaling of any size, as dials.diffuse_scale writes it in JSON."""

from __future__ import annotations

import numpy as np


def scaling_report(sweeps: int = 3, panels: int = 1, seed: int = 0) -> dict:
    """What dials.diffuse_scale.json holds after sweeps of 180 degrees on a detector of some panels."""
    random = np.random.default_rng(seed)
    q, phi = np.linspace(0.05, 0.8, 16), np.linspace(0, 180, 19)
    x, y = np.linspace(-0.6, 0.6, 13), np.linspace(-0.5, 0.5, 11)
    fast, slow = np.arange(41) * 60.0, np.arange(43) * 60.0
    shape = (len(slow) - 1, len(fast) - 1)

    def curve(number: int) -> dict:
        value = 1 + 0.2 * np.sin(np.radians(phi) + number)
        return {"phi": phi.tolist(), "value": value.tolist(), "error": np.full(len(phi), 0.01).tolist()}

    def absorption(number: int) -> dict:
        value = 1 + 0.1 * np.sin(np.radians(phi) + number)[:, None, None] * x * y[:, None]
        return {"x": x.tolist(), "y": y.tolist(), "phi": phi.tolist(), "value": value.tolist()}

    def offset() -> dict:
        value = np.exp(-10 * (q - 0.3) ** 2) * (1 + np.radians(phi)[:, None])
        return {"q": q.tolist(), "phi": phi.tolist(), "value": value.tolist()}

    def bins(edges: np.ndarray, chi_squared: float) -> list[dict]:
        pairs = zip(edges[:-1].tolist(), edges[1:].tolist())
        return [{"low": a, "high": b, "observations": 1000, "chi_squared": chi_squared} for a, b in pairs]

    def error_tables(chi_squared: float) -> dict:
        edges = {
            "q": np.append(q, 0.85),
            "counts": np.geomspace(0.1, 100, 9),
            "i_over_sigma": np.geomspace(0.01, 10, 9),
        }
        return {name: bins(values, chi_squared) for name, values in edges.items()}

    def panel_maps(**values: np.ndarray) -> list[dict]:
        maps = {name: value.tolist() for name, value in values.items()}
        return [{"panel": n, "fast": fast.tolist(), "slow": slow.tolist(), **maps} for n in range(panels)]

    mean = random.normal(0, 0.05, shape)
    mean = np.where(random.random(shape) < 0.1, None, mean)
    cycles = [
        {
            "objective": 1e6 * (1 + 0.1**n),
            "chi_squared": 1.02 + 0.5 * 0.1**n,
            "change": 0.1**n,
            "shift": 0.3 * 0.1**n,
            "smoothness": {"scale.phi": 10.0 + n, "offset.q": 3.0, "offset.phi": 100.0},
        }
        for n in range(6)
    ]
    return {
        "cycles": cycles,
        "terms": {
            "chosen": ["scale", "absorption", "offset"],
            "trials": [
                {"terms": ["scale"], "gain": 1234.5, "error": 30.1, "accepted": True},
                {"terms": ["scale", "decay"], "gain": -2.1, "error": 3.0, "accepted": False},
            ],
        },
        "sweeps": [
            {
                "observations": 100_000 + number,
                "observations_used": 99_000,
                "mean": 1.25,
                "terms": {"scale": curve(number), "absorption": absorption(number), "offset": offset()},
            }
            for number in range(sweeps)
        ],
        "detector": {
            "tiles": [
                {"panel": 0, "fast": [f, f + 487], "slow": [s, s + 195], "value": 1 + 1e-4 * (f - s), "error": 0.003}
                for s in range(0, 12 * 212, 212)
                for f in range(0, 5 * 494, 494)
            ]
        },
        "residuals": {
            "detector": {
                "panels": panel_maps(
                    mean=mean, chi_squared=np.abs(random.normal(1, 0.1, shape)), observations=np.full(shape, 100)
                )
            },
            "phi": [
                {
                    "experiment": n,
                    "phi": phi.tolist(),
                    "mean": (0 * phi).tolist(),
                    "chi_squared": (0 * phi + 1).tolist(),
                }
                for n in range(sweeps)
            ],
            "q": {"q": q.tolist(), "mean": (0 * q).tolist(), "chi_squared": (0 * q + 1).tolist()},
        },
        "error_model": {
            "a": 1.0312345678,
            "a_error": 0.0021,
            "b": 0.01,
            "b_error": 0.003,
            "before": error_tables(1.1),
            "after": error_tables(1.0),
        },
        "outliers": {
            "counts": {"high": 120, "low": 30, "voxel": 7},
            "detector": {reason: panel_maps(number=random.poisson(0.1, shape)) for reason in ("high", "low", "voxel")},
            "bad_frames": [
                {
                    "experiment": 0,
                    "first": 31,
                    "last": 36,
                    "reason": "low",
                    "ratio": 0.52,
                    "chi_squared": 3.4,
                    "where": "all",
                }
            ],
        },
    }
