"""Modules that are edited: each kind of code that a step may depend on, with a value `$V` in it."""

import importlib
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["HEAD", "KINDS", "REFUSED", "Kind", "load", "modules_of"]

HEAD = "import functools\nimport re\nfrom cachedeval import node\n"


class Kind(NamedTuple):
    """One way in which a step depends on code or data outside of it.

    Attributes:
        prelude: what stands above the step in its module.
        result: the expression that the step returns.
        other: the text of another module, `edited_lib`.
        argument: the expression of the step's argument, evaluated in the module.
    """

    prelude: str
    result: str
    other: str = ""
    argument: str = "3"


KINDS: dict[str, Kind] = {
    "the step itself": Kind("", "x + $V"),
    "helper": Kind("def h(x): return x + $V\n", "h(x)"),
    "helper of a helper": Kind("def i(x): return x + $V\ndef h(x): return i(x)\n", "h(x)"),
    "constant": Kind("K = $V\n", "x + K"),
    "nested data": Kind("T = {'a': [1, ($V, 2)]}\n", "x + T['a'][1][0]"),
    "template": Kind("T = 'say $V {}'\n", "T.format(x)"),
    "complex constant": Kind("K = $V + 2j\n", "str(x + K)"),
    "lambda": Kind("h = lambda x: x + $V\n", "h(x)"),
    "lambdas on one line": Kind(
        "a, b = (lambda x: x + 1), (lambda x: x + 2)\nh = (a, b)[$V % 2]\n", "h(x)"
    ),
    "closure": Kind("def make(k):\n    return lambda x: x + k\nh = make($V)\n", "h(x)"),
    "default argument": Kind("D = $V\ndef h(x, k=D): return x + k\n", "h(x)"),
    "keyword default": Kind("D = $V\ndef h(x, *, k=D): return x + k\n", "h(x)"),
    "attribute of a function": Kind("def h(x): return x + h.k\nh.k = $V\n", "h(x)"),
    "function that was replaced": Kind(
        "def h(x): return x + 1\ndef other(x): return x + $V\nh.__code__ = other.__code__\n", "h(x)"
    ),
    "inner function": Kind("", "(lambda y: y + $V)(x)"),
    "decorator of an inner function": Kind(
        "def add(k):\n    return lambda f: lambda x: f(x) + k\n"
        "def h(x):\n    @add($V)\n    def inner(y): return y\n    return inner(x)\n",
        "h(x)",
    ),
    "generator expression": Kind("K = $V\n", "sum(x + K for _ in range(2))"),
    "comprehension in a class body": Kind("K = $V\n", "type('C', (), {'k': K})().k + x"),
    "wrapped helper": Kind(
        "def deco(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a)\n    return w\n"
        "@deco\ndef h(x): return x + $V\n",
        "h(x)",
    ),
    "decorator": Kind(
        "def deco(f):\n    @functools.wraps(f)\n    def w(*a): return f(*a) + $V\n    return w\n"
        "@deco\ndef h(x): return x\n",
        "h(x)",
    ),
    "decorator without wraps": Kind(
        "def deco(f):\n    def w(*a): return f(*a)\n    return w\n@deco\ndef h(x): return x + $V\n",
        "h(x)",
    ),
    "decorator that is a class": Kind(
        "class deco:\n    def __init__(self, f): self.f = f\n"
        "    def __call__(self, x): return self.f(x)\n@deco\ndef h(x): return x + $V\n",
        "h(x)",
    ),
    "argument of a decorator": Kind(
        "def add(k):\n    def deco(f):\n        return lambda x: f(x) + k\n    return deco\n"
        "@add($V)\ndef h(x): return x\n",
        "h(x)",
    ),
    "decorator below the node": Kind("K = $V\n", "x + K", argument="4"),
    "lru_cache": Kind("@functools.lru_cache\ndef h(x): return x + $V\n", "h(x)"),
    "context manager": Kind(
        "import contextlib\n@contextlib.contextmanager\ndef h():\n    yield $V\n"
        "def use(x):\n    with h() as k:\n        return x + k\n",
        "use(x)",
    ),
    "partial": Kind("def g(k, x): return x + k\nh = functools.partial(g, $V)\n", "h(x)"),
    "function of a partial": Kind(
        "def g(x, *, k): return x + k + $V\nh = functools.partial(g, k=1)\n", "h(x)"
    ),
    "reduce over functions": Kind(
        "def a(x): return x + $V\nh = functools.partial(map, a)\n", "list(h([x]))"
    ),
    "dispatch table": Kind("def a(x): return x + $V\nT = {'a': a}\n", "T['a'](x)"),
    "order of a table": Kind(
        "def a(x): return x + 1\ndef b(x): return x + 2\nT = [(a, b), (b, a)][$V % 2]\n", "T[0](x)"
    ),
    "list of functions": Kind("def a(x): return x + $V\nT = [[a], 1]\n", "T[0][0](x)"),
    "set of functions": Kind(
        "def a(x): return x + $V\nT = frozenset({a})\n", "sum(f(x) for f in T)"
    ),
    "singledispatch": Kind(
        "@functools.singledispatch\ndef h(x): return 0\n"
        "@h.register\ndef _(x: int): return x + $V\n",
        "h(x)",
    ),
    "class method": Kind("class C:\n    def go(self, x): return x + $V\n", "C().go(x)"),
    "inherited method": Kind(
        "class B:\n    def go(self, x): return x + $V\nclass C(B):\n    pass\n", "C().go(x)"
    ),
    "overridden method": Kind(
        "class B:\n    def go(self, x): return x + self.k()\n    def k(self): return 1\n"
        "class C(B):\n    def k(self): return $V\n",
        "C().go(x)",
    ),
    "class attribute": Kind("class C:\n    K = $V\n", "x + C.K"),
    "class attribute that is set": Kind("class C:\n    K = 0\nC.K = $V\n", "x + C.K"),
    "static method": Kind("class C:\n    @staticmethod\n    def go(x): return x + $V\n", "C.go(x)"),
    "class method of the class": Kind(
        "class C:\n    @classmethod\n    def go(cls, x): return x + $V\n", "C.go(x)"
    ),
    "property": Kind("class C:\n    @property\n    def k(self): return $V\n", "x + C().k"),
    "cached property": Kind(
        "class C:\n    @functools.cached_property\n    def k(self): return $V\nc = C()\n", "x + c.k"
    ),
    "descriptor": Kind(
        "class D:\n    def __get__(self, o, t): return $V\nclass C:\n    k = D()\n", "x + C().k"
    ),
    "metaclass": Kind(
        "class M(type):\n    def k(cls): return $V\nclass C(metaclass=M):\n    pass\n", "x + C.k()"
    ),
    "registry of subclasses": Kind(
        "class B:\n    known = {}\n"
        "    def __init_subclass__(cls): B.known[cls.__name__] = cls\n"
        "class C(B):\n    def go(self, x): return x + $V\n",
        "B.known['C']().go(x)",
    ),
    "slots": Kind("class C:\n    __slots__ = ('k',)\nc = C()\nc.k = $V\n", "x + c.k"),
    "partialmethod": Kind(
        "class C:\n    def go(self, k, x): return x + k\n"
        "    add = functools.partialmethod(go, $V)\n",
        "C().add(x)",
    ),
    "singledispatchmethod": Kind(
        "class C:\n    @functools.singledispatchmethod\n    def go(self, x): return 0\n"
        "    @go.register\n    def _(self, x: int): return x + $V\n",
        "C().go(x)",
    ),
    "class that code makes": Kind(
        "C = type('C', (), {'go': lambda self, x: x + $V})\n", "C().go(x)"
    ),
    "instance": Kind("class C:\n    def __init__(self, k): self.k = k\nc = C($V)\n", "x + c.k"),
    "class of an instance": Kind(
        "class C:\n    def go(self, x): return x + $V\nc = C()\n", "c.go(x)"
    ),
    "bound method": Kind(
        "class C:\n    def __init__(self, k): self.k = k\n    def go(self, x): return x + self.k\n"
        "go = C($V).go\n",
        "go(x)",
    ),
    "instance that contains itself": Kind(
        "class C:\n    pass\nc = C()\nc.c = c\nc.k = $V\n", "x + c.c.k"
    ),
    "list with attributes": Kind("class L(list):\n    pass\nc = L([$V])\nc.k = 1\n", "x + c[0]"),
    "chain of attributes": Kind(
        "class C:\n    pass\nc = C()\nc.d = C()\nc.d.f = lambda x: x + $V\n", "c.d.f(x)"
    ),
    "method that is not python": Kind("h = [1, 2, $V].index\n", "x + h($V)\n".strip()),
    "regex": Kind("R = re.compile('$V|0')\n", "R.findall('0 1 2 3 4 5 6 7 8 9')"),
    "flags of a regex": Kind("R = re.compile('a', $V % 2 * re.I)\n", "R.findall('aA')"),
    "method of a regex": Kind("find = re.compile('$V').findall\n", "find('0 1 2 3 4 5 6 7 8 9')"),
    "enum": Kind("import enum\nclass E(enum.Enum):\n    A = $V\n", "x + E.A.value"),
    "method of an enum": Kind(
        "import enum\nclass E(enum.Enum):\n    A = 1\n    def go(self, x): return x + $V\n",
        "E.A.go(x)",
    ),
    "enum member": Kind(
        "import enum\nclass E(enum.Enum):\n    A = 1\n    @property\n    def k(self): return $V\n"
        "member = E.A\n",
        "x + member.k",
    ),
    "dataclass method": Kind(
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n"
        "    def go(self): return self.a + $V\n",
        "P(x).go()",
    ),
    "dataclass default": Kind(
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n    k: int = $V\n",
        "P(x).k",
    ),
    "dataclass factory": Kind(
        "from dataclasses import dataclass, field\n@dataclass\nclass P:\n"
        "    k: list[int] = field(default_factory=lambda: [$V])\n",
        "P().k",
    ),
    "dataclass instance": Kind(
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n"
        "    def go(self): return self.a + $V\np = P(1)\n",
        "p.go() + x",
    ),
    "named tuple": Kind(
        "from typing import NamedTuple\nclass P(NamedTuple):\n    a: int\n    k: int = $V\n",
        "P(x).k",
    ),
    "method of a struct": Kind(
        "from msgspec import Struct\nclass P(Struct):\n    a: int\n"
        "    def go(self): return self.a + $V\n",
        "P(x).go()",
    ),
    "default of a struct": Kind(
        "from msgspec import Struct\nclass P(Struct):\n    a: int\n    k: int = $V\n", "P(x).k"
    ),
    "factory of a struct": Kind(
        "from msgspec import Struct, field\nclass P(Struct):\n"
        "    k: list[int] = field(default_factory=lambda: [$V])\n",
        "P().k",
    ),
    "option of a struct": Kind(
        "import msgspec\nclass P(msgspec.Struct, array_like=$V % 2 == 0):\n    a: int\n",
        "msgspec.json.encode(P(x)).decode()",
    ),
    "method of a model": Kind(
        "from pydantic import BaseModel\nclass P(BaseModel):\n    a: int\n"
        "    def go(self): return self.a + $V\n",
        "P(a=x).go()",
    ),
    "default of a model": Kind(
        "from pydantic import BaseModel\nclass P(BaseModel):\n    a: int\n    k: int = $V\n",
        "P(a=x).k",
    ),
    "field of a model": Kind(
        "from pydantic import BaseModel, Field\nclass P(BaseModel):\n"
        "    a: int = Field(multiple_of=1, alias='k$V')\n",
        "P(**{'k$V': x}).a",
    ),
    "validator of a model": Kind(
        "from pydantic import BaseModel, field_validator\nclass P(BaseModel):\n    a: int\n"
        "    @field_validator('a')\n    @classmethod\n    def check(cls, a): return a + $V\n",
        "P(a=x).a",
    ),
    "method of an argument": Kind(
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n"
        "    def go(self): return self.a + $V\n",
        "x.go()",
        argument="P(1)",
    ),
    "method of an argument within": Kind(
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n"
        "    def go(self): return self.a + $V\n",
        "x['p'][0].go()",
        argument="{'p': [P(1)]}",
    ),
    "method of an output": Kind(
        "from dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n"
        "    def go(self): return self.a + $V\n"
        "@node(version='1', name='edited.make')\ndef make(a: int) -> P:\n    return P(a)\n",
        "x.go()",
        argument="make(1)",
    ),
    "array": Kind("import array\nA = array.array('i', [$V])\n", "x + A[0]"),
    "bytearray": Kind("A = bytearray([$V])\n", "x + A[0]"),
    "numpy array": Kind("import numpy as np\nA = np.array([[1, $V]])\n", "int(x + A[0, 1])"),
    "type of a numpy array": Kind(
        "import numpy as np\nA = np.zeros(1, ('i4', 'i8')[$V % 2])\n", "A.dtype.itemsize"
    ),
    "numpy objects": Kind("import numpy as np\nA = np.array([None, $V])\n", "x + A[1]"),
    "date": Kind("import datetime\nD = datetime.date(2000, 1, 1 + $V)\n", "D.isoformat()"),
    "decimal": Kind("import decimal\nD = decimal.Decimal('$V')\n", "str(D)"),
    "ordered dict": Kind("import collections\nD = collections.OrderedDict(a=$V)\n", "x + D['a']"),
    "deque": Kind("import collections\nD = collections.deque([$V])\n", "x + D[0]"),
    "itemgetter": Kind("import operator\nh = operator.itemgetter($V)\n", "h(list(range(20)))"),
    "range": Kind("R = range($V)\n", "len(R)"),
    "logger": Kind(
        "import logging\nlog = logging.getLogger(__name__)\nK = $V\n", "[x + K, log.debug('x')]"
    ),
    "own name": Kind("K = $V\n", "[x + K, __name__ != '']"),
    "type variable": Kind(
        "from typing import Generic, TypeVar\nT = TypeVar('T')\n"
        "class C(Generic[T]):\n    k: T = $V\n",
        "x + C().k",
    ),
    "sentinel": Kind("ABSENT = object()\nK = $V\n", "x + K + (ABSENT is None)"),
    "lock": Kind("import threading\nL = threading.Lock()\nK = $V\n", "x + K + L.locked()"),
    "another node": Kind(
        "@node(name='edited.other')\ndef other(x): return x + $V\n", "other.function(x)"
    ),
    "another node with a version": Kind(
        "@node(version='$V', name='edited.other')\ndef other(x): return x + $V\n",
        "other.function(x)",
    ),
    "global that code sets": Kind(
        "K = 0\ndef set_it():\n    global K\n    K = $V\nset_it()\n", "x + K"
    ),
    "builtin that is shadowed": Kind("def len(x): return x + $V\n", "len(x)"),
    "function of another module": Kind(
        "from edited_lib import h\n", "h(x)", "def h(x): return x + $V\n"
    ),
    "function of a function of another module": Kind(
        "from edited_lib import h\n", "h(x)", "def i(x): return x + $V\ndef h(x): return i(x)\n"
    ),
    "attribute of another module": Kind(
        "import edited_lib\n", "edited_lib.h(x)", "def h(x): return x + $V\n"
    ),
    "constant of another module": Kind("import edited_lib as lib\n", "lib.K + x", "K = $V\n"),
    "attribute by getattr": Kind(
        "import edited_lib\n", "getattr(edited_lib, 'h')(x)", "def h(x): return x + $V\n"
    ),
    "module in a table": Kind(
        "import edited_lib\nT = [edited_lib]\n", "T[0].h(x)", "def h(x): return x + $V\n"
    ),
    "class of another module": Kind(
        "from edited_lib import C\nclass D(C):\n    pass\n",
        "D().go(x)",
        "class C:\n    def go(self, x): return x + $V\n",
    ),
    "import in the body": Kind(
        "def h(x):\n    from edited_lib import i\n    return i(x)\n",
        "h(x)",
        "def i(x): return x + $V\n",
    ),
    "constant of an import in the body": Kind(
        "def h(x):\n    import edited_lib\n    return edited_lib.K + x\n", "h(x)", "K = $V\n"
    ),
    "function of a package that was replaced": Kind(
        "import json\nclass Fake:\n    pass\n"
        "def dumps(x): return x + $V\njson.edited_dumps = dumps\n",
        "json.edited_dumps(x)",
    ),
}
"""Kinds that count: an edit of `$V` is a miss."""

REFUSED: dict[str, tuple[Kind, str]] = {
    "globals()": (Kind("K = $V\n", "x + globals()['K']"), "uses 'globals'"),
    "eval": (Kind("K = $V\n", "eval('x + K', {'x': x, 'K': 1})"), "uses 'eval'"),
    "exec": (Kind("", "exec('pass')"), "uses 'exec'"),
    "__import__": (Kind("", "__import__('edited_lib').h(x)", "def h(x): return x\n"), "__import__"),
    "import_module": (
        Kind("import importlib\n", "importlib.import_module('json').dumps(x)"),
        "uses 'importlib.import_module'",
    ),
    "import_module by name": (
        Kind("from importlib import import_module as load\n", "load('json').dumps(x)"),
        "uses 'load'",
    ),
    "sys.modules": (
        Kind("import sys\n", "sys.modules[__name__].step"),
        "uses 'sys.modules'",
    ),
    "context variable": (
        Kind("import contextvars\nV = contextvars.ContextVar('V', default=$V)\n", "x + V.get()"),
        "reads 'V', a ContextVar that cannot be part of a key",
    ),
    "iterator": (Kind("I = iter([1, 2, 3])\n", "x + next(I)"), "reads 'I', a list_iterator"),
    "generator": (Kind("I = (i for i in 'abc')\n", "next(I)"), "reads 'I', a generator"),
    "open file": (Kind("F = open(__file__)\n", "F.read()"), "reads 'F', a TextIOWrapper"),
    "socket in an instance": (
        Kind(
            "import socket\nclass C:\n    def __init__(self): self.s = socket.socket()\n"
            "    def go(self, x): return x\nc = C()\n",
            "c.go(x)",
        ),
        "reads 'c / s', a socket",
    ),
    "thread-local data": (
        Kind("import threading\nL = threading.local()\nL.k = $V\n", "x + L.k"),
        "reads 'L', a _local",
    ),
    "weak reference": (
        Kind("import weakref\nclass C:\n    k = 1\nc = C()\nw = weakref.ref(c)\n", "w().k + x"),
        "reads 'w', a ReferenceType",
    ),
    "helper that uses it": (
        Kind("F = open(__file__)\ndef h(x): return F.read()\n", "h(x)"),
        "reads 'h / F', a TextIOWrapper",
    ),
    "client of another module": (
        Kind("import edited_lib\n", "edited_lib.F.read()", "F = open(__file__)\n"),
        "reads 'edited_lib.F', a TextIOWrapper",
    ),
}
"""Kinds that are refused, with a part of the error."""


def modules_of(kind: Kind, value: int) -> dict[str, str]:
    """Return the texts of the modules of a kind, with a value in them."""
    above = "def deco(f):\n    return functools.wraps(f)(lambda x: f(x) + $V)\n"
    decorated = kind is KINDS["decorator below the node"]
    step = (
        f"{above if decorated else ''}ran = []\n@node\n"
        f"{'@deco' if decorated else ''}\ndef step(x):\n    ran.append(1)\n"
        f"    return {kind.result}\ndef argument():\n    return {kind.argument}\n"
    )
    texts = {"edited": HEAD + kind.prelude + step, "edited_lib": kind.other}
    return {name: text.replace("$V", str(value)) for name, text in texts.items()}


@contextmanager
def load(folder: Path, texts: dict[str, str], *, main: bool = False) -> Iterator[Any]:
    """Write modules to a folder and import `edited`, as a new process would; forget them after.

    Args:
        folder: where to write them.
        texts: the modules by name.
        main: run `edited` as a program does, not as an import.
    """
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    before = sys.modules["__main__"]
    try:
        if main:
            module = types.ModuleType("__main__")
            module.__file__ = str(folder / "edited.py")
            sys.modules["__main__"] = module
            exec(compile(texts["edited"], module.__file__, "exec"), vars(module))  # noqa: S102
            yield module
        else:
            yield importlib.import_module("edited")
    finally:
        sys.modules["__main__"] = before
        sys.path.remove(str(folder))
        for name in texts:
            sys.modules.pop(name, None)
