"""Where the demo's adapters and questions lie: in the wheel, or in the repository."""

from pathlib import Path

__all__ = ["ADAPTERS", "adapter_folder", "questions_file"]

# The best first.
ADAPTERS = ("triage", "triage-undertrained")

# The wheel has them beside this module (pyproject.toml, force-include); an editable install leaves
# them where the repository keeps them.
_PACKAGED = Path(__file__).parent / "examples"
_REPOSITORY = Path(__file__).parents[3] / "examples"


def questions_file() -> Path:
    """Return the JSONL file of the demo's questions and reference answers."""
    return _folder() / "demo.jsonl"


def adapter_folder(name: str) -> Path:
    """Return the folder of one of `ADAPTERS`, LoRA adapters of the demo model."""
    return _folder() / "adapters" / name


def _folder() -> Path:
    return _PACKAGED if _PACKAGED.is_dir() else _REPOSITORY
