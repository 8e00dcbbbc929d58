"""Results of a step whose code changed are wrong hits, unless its version changed with it."""

import json
from pathlib import Path

import pytest
from support.node_sources import NODES, _module_fingerprint, declared, sources

GOLDEN = Path(__file__).with_name("node_sources.json")
WANTED: dict[str, dict[str, str]] = json.loads(GOLDEN.read_text("utf-8"))
RENEW = "python tests/support/node_sources.py > tests/evals/node_sources.json"


def test_each_step_has_a_version_and_is_watched_here() -> None:
    found = declared()
    assert found == {name: node.version for name, (node, _) in NODES.items()}
    assert all(found.values())
    assert all(node.name == name for name, (node, _) in NODES.items())


@pytest.mark.parametrize("name", NODES)
def test_its_source_does_not_change_without_its_version(name: str) -> None:
    now, then = sources()[name], WANTED.get(name, {})
    changed = sorted(part for part in {*now, *then} if now.get(part) != then.get(part))
    if not changed:
        return
    what = ", ".join(part for part in changed if part != "version") or "nothing"
    if "version" in changed:
        advice = f"its version was raised; then: {RENEW}"
    else:
        advice = (
            f"raise its version (now {now['version']!r}) if results would differ; then, in "
            f"either case: {RENEW}"
        )
    pytest.fail(f"{name}: the source of {what} changed: {advice}", pytrace=False)


def test_a_fingerprint_is_of_what_a_module_does(tmp_path: Path) -> None:
    def fingerprint(text: str) -> str:
        path = tmp_path / "module.py"
        path.write_text(text)
        return _module_fingerprint(path)

    plain = fingerprint("A = 1\ndef f(x):\n    return x\n")
    told = '"""What it is."""\nA = 1  # one\n"""Why."""\n\ndef f(x):\n    """Do it."""\n    return (x)\n'
    assert fingerprint(told) == plain
    assert fingerprint("A = 2\ndef f(x):\n    return x\n") != plain
    assert fingerprint("A = 1\ndef f(x):\n    return -x\n") != plain
    assert fingerprint("A = 1.0\ndef f(x):\n    return x\n") != plain
    assert fingerprint("A = 1\ndef f(x=0):\n    return x\n") != plain
