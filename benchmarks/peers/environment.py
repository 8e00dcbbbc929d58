"""Makes the peers' environment: `python -m benchmarks.peers.environment`."""

import subprocess
import sys
from pathlib import Path

import platformdirs

__all__ = ["PYTHON", "make"]

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = platformdirs.user_cache_path("cachedeval") / "benchmark-peers"
PYTHON = FOLDER / "bin" / "python"


def make() -> dict[str, str]:
    """Install each requirement that can be installed; return why the others could not be."""
    subprocess.run([sys.executable, "-m", "venv", str(FOLDER)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if subprocess.run([*pip, "-r", str(REQUIREMENTS)], check=False).returncode == 0:
        return {}
    failed = {}
    for line in REQUIREMENTS.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            done = subprocess.run([*pip, line], check=False, capture_output=True, text=True)
            if done.returncode:
                failed[line] = (done.stderr.strip() or "pip failed").splitlines()[-1]
    return failed


def main() -> None:
    """Make it, and say what is missing."""
    for line, reason in make().items():
        print(f"{line}: {reason}")
    print(PYTHON)


if __name__ == "__main__":
    main()
