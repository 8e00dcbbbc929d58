"""Results as JSON: the machine, the versions, and every sample."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

__all__ = ["Results", "machine", "new", "read", "write"]

Results = dict[str, Any]

_VERSIONS = ("cachedeval", "mlx", "mlx-lm", "msgspec", "xxhash", "diskcache")


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: metadata.version(name) for name in _VERSIONS},
        "load": round(os.getloadavg()[0], 2),
    }


def new(mode: str) -> Results:
    """Return results without measurements.

    Args:
        mode: `quick` or `default`.
    """
    return {
        "mode": mode,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "command": " ".join(["python -m benchmarks", *sys.argv[1:]]),
        "machine": machine(),
        "profiles": {},
    }


def write(path: Path, results: Results) -> None:
    """Write results to a file."""
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Read results from a file."""
    found: Results = json.loads(path.read_text(encoding="utf-8"))
    return found


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
