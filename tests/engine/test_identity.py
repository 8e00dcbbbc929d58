"""What a name and a version stand for: one function, in a program and across programs."""

import functools
import importlib
import json
import linecache
import logging
import os
import subprocess
import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.faulty import FaultyBackend

from cachedeval import Engine, InputError, Node, node
from cachedeval.engine import origin
from cachedeval.engine.origin import module_name, place_of, release_of

SCORE = """
from cachedeval import node
@node(version="1"{options})
def score(text: str) -> int:
    return {result}
"""


def module(folder: Path, name: str, source: str) -> Any:
    """Import a module from a folder, or run it if its name is `__main__`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{'run' if name == '__main__' else name}.py"
    path.write_text(source, "utf-8")
    made = types.ModuleType(name)
    made.__file__ = str(path)
    sys.modules[name] = made
    exec(compile(source, path, "exec"), vars(made))  # noqa: S102
    return made


@pytest.fixture(autouse=True)
def _own_modules() -> Iterator[None]:
    before = {**sys.modules}
    yield
    for name in [*sys.modules]:
        if name not in before and name in {"run", "made", "other"}:
            del sys.modules[name]
    sys.modules["__main__"] = before["__main__"]


def score(result: str, options: str = "") -> str:
    return SCORE.format(result=result, options=options)


# Live nodes.


def test_two_functions_of_one_name_in_a_file_are_an_error(tmp_path: Path) -> None:
    source = score("len(text)", ", name='score'")
    second = source.replace("def score", "def other").replace("len(text)", "0")
    with pytest.raises(InputError, match=r"score \(.*made\.py:3\) and other \(.*:8\) .*name="):
        module(tmp_path, "made", source + second)
    assert module(tmp_path, "other", source + source.replace("def score", "def more")).more


def test_two_inner_functions_of_one_name_never_share() -> None:
    @node(version="1", name="inner")
    def one(x: int) -> int:
        return x

    @node(version="1", name="inner")
    def two(x: int) -> int:
        return x + 1

    message = r"one \(.* and .*two \(.* are nodes of the name 'inner' .*name="
    with Engine() as engine:
        with pytest.raises(InputError, match=message):
            engine.run([one(1), two(1)])
        assert engine.run([one(1), two(2)]) == [1, 3]
        for calls in ([two(1)], [two(1), two(3)], [one(2), one(3)]):
            with pytest.raises(InputError, match="are nodes of the name 'inner'"):
                engine.run(calls)


def test_two_functions_of_one_name_in_two_files_never_share(tmp_path: Path) -> None:
    first = module(tmp_path, "made", score("len(text)", ", name='score'"))
    other = module(tmp_path, "other", score("0", ", name='score'"))
    message = r"score \(.*made\.py:3\) and score \(.*other\.py:3\) are nodes .*name="
    for calls in (
        [first.score("a"), other.score("a")],
        [first.score("a"), other.score("b"), other.score("a")],
    ):
        with Engine() as engine:
            with pytest.raises(InputError, match=message):
                engine.run(calls)
            assert engine.run(first.score("a")) == 1
            with pytest.raises(InputError, match=message):
                engine.run(other.score("a"))
            with pytest.raises(InputError, match=message):
                engine.run([other.score("a"), other.score("b")])
            assert engine.run(other.score("c")) == 0


def test_the_same_function_twice_is_one_node(tmp_path: Path) -> None:
    source = score("len(text)", ", name='score'")
    first = module(tmp_path, "made", source)
    second = module(tmp_path, "other", source.replace("return", "# the length\n    return"))
    with Engine() as engine:
        assert engine.run([first.score("a"), second.score("a")]) == [1, 1]
        assert engine.stats["score"].computed == 1


def test_a_node_that_is_gone_takes_no_name(tmp_path: Path) -> None:
    source = score("len(text)", ", name='score'") + "del score"
    source += score("0", ", name='score'").replace("def score", "def other")
    assert module(tmp_path, "made", source).other.name == "score"


def test_other_versions_and_names_are_other_nodes(tmp_path: Path) -> None:
    source = score("len(text)", ", name='score'")
    first = module(tmp_path, "made", source)
    other = module(tmp_path, "other", source.replace('"1"', '"2"').replace("len(text)", "0"))
    third = module(tmp_path, "other", score("7", ", name='else'"))
    with Engine() as engine:
        assert engine.run([m.score("a") for m in (first, other, third)]) == [1, 0, 7]


def test_without_a_version_two_of_one_name_do_not_share(tmp_path: Path) -> None:
    source = score("len(text)", ", name='score'").replace('version="1", ', "")
    first = module(tmp_path, "made", source)
    other = module(tmp_path, "other", source.replace("len(text)", "0"))
    with Engine() as engine:
        assert engine.run([first.score("a"), other.score("a")]) == [1, 0]


def test_a_cell_that_runs_again_replaces_the_node(caplog: pytest.LogCaptureFixture) -> None:
    """A notebook keeps old definitions alive, and has no file."""
    cells: dict[str, Any] = {"__name__": "__main__"}
    sys.modules["__main__"] = types.ModuleType("__main__")
    exec(score("len(text)"), cells)  # noqa: S102
    old, call = cells["score"], cells["score"]("ab")
    with Engine() as engine, caplog.at_level(logging.WARNING, "cachedeval"):
        assert engine.run(call) == 2
        exec(score("len(text)"), cells)  # noqa: S102  unchanged
        assert engine.run([cells["score"]("ab"), old("ab")]) == [2, 2]
        assert not caplog.records
        exec(score("0"), cells)  # noqa: S102
        assert engine.run(cells["score"]("c")) == 0
        with pytest.raises(InputError, match=r"was defined again, with other source .* new def"):
            engine.run([call, cells["score"]("ab")])
        assert engine.run(cells["score"]("ab")) == 2  # the version says so, and a warning
        assert "has changed since results of its version '1' were stored" in caplog.text
        exec(score("0").replace('"1"', '"2"'), cells)  # noqa: S102
        assert engine.run(cells["score"]("ab")) == 0


def test_a_cell_without_a_version_runs_again() -> None:
    lines = score("len(text)").replace('(version="1")', "")
    cells: dict[str, Any] = {"__name__": "__main__"}
    sys.modules["__main__"] = types.ModuleType("__main__")

    def cell(number: int, text: str) -> None:
        name = f"<cell {number}>"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), cells)  # noqa: S102

    cell(1, lines)
    old = cells["score"]
    with Engine() as engine:
        assert engine.run(old("ab")) == 2
        cell(2, lines.replace("len(text)", "0"))
        assert engine.run([cells["score"]("ab"), old("ab")]) == [0, 2]
        cell(3, "def helper(text): return 1\n" + lines.replace("len", "helper"))
        assert engine.run(cells["score"]("ab")) == 1
        cell(4, "def helper(text): return 3\n")
        assert engine.run(cells["score"]("ab")) == 3


def test_a_reloaded_module_replaces_its_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "made.py").write_text(score("len(text)"))
    first: Any = importlib.import_module("made")
    old = first.score
    (tmp_path / "made.py").write_text(score("len(text) * 10").replace('"1"', '"2"'))
    importlib.reload(first)
    with Engine() as engine:
        assert engine.run([old("a"), first.score("a")]) == [1, 10]


# Records of other programs.


def test_a_script_and_its_import_are_one_node(tmp_path: Path) -> None:
    backend = FaultyBackend()
    script = module(tmp_path, "__main__", score("len(text)"))
    with Engine(backend) as engine:
        assert engine.run(script.score("a")) == 1
    imported = module(tmp_path, "run", score("len(text)"))
    assert imported.score.name == script.score.name == "run.score"
    with Engine(backend) as engine:
        assert engine.run([imported.score("a"), script.score("a")]) == [1, 1]
        assert engine.stats["run.score"].computed == 0


def computed(backend: FaultyBackend, source: Any) -> tuple[int, int]:
    """Return a score, and how many were computed."""
    with Engine(backend) as engine:
        return engine.run(source.score("abc")), engine.stats[source.score.name].computed


def forget(*names: str) -> None:
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("options", ["", ", name='score'"])
def test_scripts_of_one_name_in_two_folders_do_not_share(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: str
) -> None:
    backend = FaultyBackend()
    with caplog.at_level(logging.WARNING, "cachedeval"):
        one = module(tmp_path / "a", "__main__", score("len(text)", options))
        assert computed(backend, one) == (3, 1)
        del one
        forget("__main__")
        assert not caplog.records
        other = module(tmp_path / "b", "__main__", score("text.count('b') * 1000", options))
        assert computed(backend, other) == (1000, 1)
        assert "another function of this name and version computed it, in " in caplog.text
        assert "@node(name=…)" in caplog.text
        assert computed(backend, other) == (1000, 0)


def test_the_output_of_another_function_is_no_input(tmp_path: Path) -> None:
    more = """
@node(version="1", name="shout")
def shout(n: int) -> str:
    return "!" * n
"""
    backend = FaultyBackend()
    one = module(tmp_path / "a", "__main__", score("len(text)") + more)
    with Engine(backend) as engine:
        assert engine.run(one.shout(one.score("abc"))) == "!!!"
    del one
    forget("__main__")
    other = module(tmp_path / "b", "__main__", score("1") + more)
    with Engine(backend) as engine:
        assert engine.run(other.shout(other.score("abc"))) == "!"
        plan = engine.plan([other.shout(other.score("abc"))])
        assert plan["shout"].hits == 1


def test_a_copy_of_a_script_shares(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = FaultyBackend()
    with caplog.at_level(logging.WARNING, "cachedeval"):
        one = module(tmp_path / "a", "__main__", score("len(text)"))
        assert computed(backend, one) == (3, 1)
        copy = module(tmp_path / "b", "__main__", score("len(text)  # the length"))
        assert computed(backend, copy) == (3, 0)
    assert not caplog.records


def test_an_edited_script_with_a_version_hits_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = FaultyBackend()
    one = module(tmp_path, "__main__", score("len(text)"))
    assert computed(backend, one) == (3, 1)
    del one
    forget("__main__")
    edited = module(tmp_path, "__main__", score("len(text) + 0"))
    with caplog.at_level(logging.WARNING, "cachedeval"):
        assert computed(backend, edited) == (3, 0)
    assert "has changed since results of its version '1' were stored" in caplog.text


def test_an_edited_file_in_another_checkout_hits_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache may be shared by checkouts, of which one is behind."""
    backend = FaultyBackend()
    for user, result, wanted in (("a", "len(text)", 1), ("b", "len(text) + 0", 0)):
        project = tmp_path / user / "project"
        (project / ".git").mkdir(parents=True)
        made = module(project / "src", "__main__", score(result))
        assert computed(backend, made) == (3, wanted)
        del made
        forget("__main__")
    assert "has changed since results" in caplog.text


def test_another_session_does_not_share_what_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FaultyBackend()
    for session, result, wanted in (
        ("1", "len(text)", (3, 1)),
        ("2", "0", (0, 1)),
        ("3", "0", (0, 0)),
    ):
        monkeypatch.setattr(origin, "_session", lambda session=session: session)
        cells = types.ModuleType("__main__")
        sys.modules["__main__"] = cells
        exec(score(result), vars(cells))  # noqa: S102
        assert computed(backend, cells) == wanted
        vars(cells).clear()


PROGRAM = """
from dataclasses import dataclass
from cachedeval import Engine, node
@dataclass
class Text:
    text: str
@node(version="1")
def score(text: Text) -> int:
    return len(text.text)
@node
def double(n: int) -> Text:
    return Text("x" * n * 2)
def main():
    with Engine("disk:cache") as engine:
        print(engine.run(score(double(score(Text("abc"))))), sum(s.computed for s in engine.stats.values()))
if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_program_in_every_way_to_start_it(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "pipe.py").write_text(PROGRAM)
    ways = [
        ["package/pipe.py"],
        ["-m", "package.pipe"],
        ["-c", "from package.pipe import main; main()"],
        ["-c", "import runpy; runpy.run_path('package/pipe.py', run_name='__main__')"],
    ]
    found: list[str] = []
    for way in ways:
        done = subprocess.run(
            [sys.executable, *way],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONHASHSEED": str(len(found))},
        )
        assert not done.stderr
        found.append(done.stdout)
    assert found == ["6 3\n", *["6 0\n"] * 3]


@pytest.mark.parametrize(
    ("files", "spec", "wanted"),
    [
        (["pipe.py"], None, "pipe"),
        (["my-script.py"], None, "my-script"),
        (["a/__init__.py", "a/b/__init__.py", "a/b/pipe.py"], None, "a.b.pipe"),
        (["app/__main__.py"], None, "app.__main__"),
        (["app/__main__.py"], "__main__", "app.__main__"),
        (["a/__init__.py", "a/__main__.py"], "a.__main__", "a.__main__"),
        (["pipe.py"], "package.pipe", "package.pipe"),
    ],
)
def test_main_is_named_by_its_file(
    tmp_path: Path, files: list[str], spec: str | None, wanted: str
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    found = None if spec is None else importlib.machinery.ModuleSpec(spec, None)
    names = {"__file__": str(tmp_path / files[-1]), "__spec__": found}
    for name in ("__main__", "__mp_main__"):
        assert module_name(name, names) == wanted
    assert module_name("__main__", {}) == "__main__"
    assert module_name("a.b", names) == "a.b"


def test_who_installed_a_module() -> None:
    assert release_of("json.decoder") == release_of("sys") == release_of("math")
    assert release_of(json.__name__) == f"python {sys.version_info[0]}.{sys.version_info[1]}"
    assert release_of("numpy.random") == f"numpy {np.__version__}"
    importlib.import_module("markdown_it.token")
    wanted = f"markdown_it_py {metadata.version('markdown-it-py')}"
    assert str(release_of("markdown_it.token")).replace("-", "_") == wanted
    assert str(release_of("cachedeval.engine.node")).startswith("cachedeval ")
    assert release_of(__name__) is None
    assert release_of("no such module") is None


def test_a_place_is_the_same_in_each_checkout(tmp_path: Path) -> None:
    made = module(tmp_path / "x", "made", score("0")).score.function
    assert place_of(made) == str(tmp_path / "x" / "made.py")
    (tmp_path / "pyproject.toml").write_text("")
    assert place_of(made) == f"{tmp_path.name}/x/made.py"
    wrapper: Any = functools.wraps(made)(lambda: None)
    assert place_of(wrapper) == f"{tmp_path.name}/x/made.py"


# Methods.


def test_a_method_is_refused_when_the_class_is_made() -> None:
    decorators: list[Any] = [node, node(version="1"), node(version="1", name="x")]
    for decorate in decorators:
        with pytest.raises(InputError, match=r"A\.f: a method cannot be a node.*@staticmethod"):

            class A:
                @decorate  # type: ignore[untyped-decorator]
                def f(self, x: int = 1) -> int:
                    return x


def test_a_method_with_another_first_name_is_refused() -> None:
    with pytest.raises((InputError, RuntimeError)) as raised:

        class A:
            @node(version="1")
            def f(this, x: int = 1) -> int:  # noqa: N805  that is the case
                return x

    error = raised.value if isinstance(raised.value, InputError) else raised.value.__cause__
    assert isinstance(error, InputError)
    assert "a method cannot be a node" in str(error)


@pytest.mark.parametrize("wrap", [classmethod, property, functools.cached_property])
def test_a_wrapped_method_is_refused(wrap: Any) -> None:
    with pytest.raises(InputError, match="a method cannot be a node"):

        class A:
            @wrap  # type: ignore[untyped-decorator]
            @node(version="1")
            def f(cls) -> int:  # noqa: N805  that is the case
                return 1


@pytest.mark.parametrize("wrap", [staticmethod, classmethod])
def test_a_node_of_a_wrapper_is_refused(wrap: Any) -> None:
    with pytest.raises(InputError, match=r"not of a (static|class)method: write @node below"):

        class A:
            @node(version="1")
            @wrap  # type: ignore[untyped-decorator]
            def f(x: int) -> int:  # noqa: N805  that is the case
                return x


def test_what_is_no_method_stays_a_node() -> None:
    @node(version="1")
    def double(x: int) -> int:
        return 2 * x

    @dataclass
    class Point:
        x: int

        def norm(self, by: int = 1) -> int:
            return self.x * by

        @staticmethod
        @node(version="1")
        def static(x: int) -> int:
            return x + 1

    class Pipeline:
        step = double

    norm: Node[int] = node(version="1", name="norm")(Point.norm)
    with Engine() as engine:
        assert engine.run(Point.static(5)) == engine.run(Point(1).static(5)) == 6
        assert engine.run(Pipeline().step(5)) == 10
        assert engine.run([norm(Point(3), 4), norm(Point(2))]) == [12, 2]
