import importlib.util
import itertools
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from cachedeval import Engine, InputError
from cachedeval.engine.source import code_fingerprint, drifted, source_fingerprint

_count = itertools.count()


def module(folder: Path, source: str) -> Any:
    """Import a source as a module of its own."""
    name = f"made_{next(_count)}"
    path = folder / f"{name}.py"
    path.write_text(source, "utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


BASE = '''
def f(x, y=1):
    """Say."""
    total = x * 2  # twice
    return total + y
'''


def fingerprints(folder: Path, source: str) -> tuple[str, str]:
    function = module(folder, source).f
    return source_fingerprint([function]), code_fingerprint(function)


@pytest.mark.parametrize(
    "edited",
    [
        BASE.replace("# twice", "# two times"),
        BASE.replace('"""Say."""', '"""Say something\n\n    else.\n    """'),
        BASE.replace('    """Say."""\n', ""),
        BASE.replace("x * 2", "(x\n        * 2)"),
        BASE.replace("    ", "  ").replace('  """Say."""\n', '  """Say."""\n\n\n'),
        "import functools\n\n\ndef mark(f): return f\n\n\n@mark\n" + BASE.lstrip(),
        BASE.replace("def f(x, y=1):", "def f(\n    x,\n    y=1,\n):"),
    ],
)
def test_layout_comments_and_docstrings_are_no_source(tmp_path: Path, edited: str) -> None:
    assert edited != BASE
    assert fingerprints(tmp_path, edited)[0] == fingerprints(tmp_path, BASE)[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [("x * 2", "x * 3"), ("x * 2", "2 * x"), ("y=1", "y=2"), ("total", "sum_"), ("+ y", "+ -y"),
     ("x * 2", "x * 2.0"), ("def f(x, y=1)", "def f(x, *, y=1)"), ("x * 2", "x * True")],
)  # fmt: skip
def test_code_is_source(tmp_path: Path, old: str, new: str) -> None:
    edited = BASE.replace(old, new)
    assert fingerprints(tmp_path, edited)[0] != fingerprints(tmp_path, BASE)[0]


def test_ellipsis_is_no_string(tmp_path: Path) -> None:
    one, other = "def f(x):\n    return ...\n", "def f(x):\n    return '...'\n"
    assert fingerprints(tmp_path, one) != fingerprints(tmp_path, other)


def test_what_has_no_source_is_refused() -> None:
    made: dict[str, Any] = {}
    exec("def f(x): return x", made)  # noqa: S102  that is the case
    with pytest.raises(InputError, match=r"the source of 'f' cannot be read .* give the node one"):
        source_fingerprint([made["f"]])
    with pytest.raises(InputError, match="cannot be read"):
        source_fingerprint([len])


def test_a_class_may_help(tmp_path: Path) -> None:
    one, same, other = (
        module(tmp_path, f"class f:\n    '''Doc.'''\n    def g(self): return {n}  # {c}\n").f
        for n, c in ((1, "a"), (1, "b"), (2, "a"))
    )
    assert source_fingerprint([one]) == source_fingerprint([same]) != source_fingerprint([other])


NODE = '''
from cachedeval import node
from cachedeval.engine import encoding

ran = []

def helper(x):
    """Help."""
    return x + 1

@node
def f(x):
    """Say."""
    ran.append(x)
    return helper(x) * 2
'''


def computed(folder: Path, engine: Engine, source: str) -> bool:
    """Say whether the node f of a module, known by a fixed name, is computed."""
    made = module(folder, source.replace("@node\n", '@node(name="f")\n'))
    engine.run(made.f(1))
    return bool(made.ran)


@pytest.mark.parametrize(
    ("old", "new"), [("Say.", "Tell."), ("return helper", "# a comment\n    return helper")]
)
def test_a_cosmetic_edit_hits(tmp_path: Path, old: str, new: str) -> None:
    with Engine() as engine:
        assert computed(tmp_path, engine, NODE)
        assert not computed(tmp_path, engine, NODE.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [("* 2", "* 3"), ("x + 1", "x + 2")])
def test_an_edit_of_the_code_or_of_a_helper_misses(tmp_path: Path, old: str, new: str) -> None:
    with Engine() as engine:
        assert computed(tmp_path, engine, NODE)
        assert computed(tmp_path, engine, NODE.replace(old, new))


def test_an_edit_of_a_declared_helper_elsewhere_misses(tmp_path: Path) -> None:
    def source(helper: types.ModuleType) -> str:
        return (
            f"from cachedeval import node\nfrom {helper.__name__} import helper\nran = []\n"
            "@node(name='f', helpers=[helper])\ndef f(x):\n    ran.append(x)\n    return helper(x)\n"
        )

    with Engine() as engine:
        first, same, other = (
            module(tmp_path, f"def helper(x):  # {c}\n    return x + {n}\n")
            for n, c in ((1, "a"), (1, "b"), (2, "a"))
        )
        assert computed(tmp_path, engine, source(first))
        assert not computed(tmp_path, engine, source(same))
        assert computed(tmp_path, engine, source(other))


def test_a_file_that_is_edited_while_it_runs_is_known_by_what_runs(tmp_path: Path) -> None:
    with Engine() as engine:
        made = module(tmp_path, NODE.replace("@node", "@node(name='f')"))
        path = Path(made.__file__)
        path.write_text(path.read_text("utf-8").replace("* 2", "* 3").replace("x + 1", "x + 2"))
        os.utime(path, (0, 0))
        assert engine.run(made.f(1)) == 4
        assert not computed(tmp_path, engine, NODE)  # it was kept for what ran
        assert computed(tmp_path, engine, NODE.replace("* 2", "* 3").replace("x + 1", "x + 2"))


def test_a_stale_version_is_explained_by_the_source(tmp_path: Path) -> None:
    function = module(tmp_path, BASE).f
    code, source = code_fingerprint(function), source_fingerprint([function])
    assert not drifted(function, code, source)
    assert not drifted(function, code, "")
    assert not drifted(function, "cpython-999:0", source)
    assert not drifted(function, "cpython-999:0", "")  # another Python says nothing
    documented = module(tmp_path, BASE.replace("Say.", "Tell.")).f
    assert not drifted(documented, code, source)
    edited = module(tmp_path, BASE.replace("x * 2", "x * 3")).f
    assert drifted(edited, code, source)
    assert drifted(edited, "cpython-999:0", source)
