"""The names that `deepgps` exports: typed, lazily imported, and documented with examples that run."""

import ast
import doctest
import inspect
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import deepgps

EXCEPTIONS = ("BundleError", "DeepGPSError", "InputError")


def has_section(documented: object, *titles: str) -> bool:
    lines = [line.strip() for line in (inspect.getdoc(documented) or "").splitlines()]
    return any(line in titles and set(below) == {"-"} for line, below in pairwise(lines))


def public_functions() -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name in deepgps.__all__:
        value = getattr(deepgps, name)
        if inspect.isclass(value):
            members = vars(value).items()
            found += [
                (f"{name}.{key}", getattr(value, key))
                for key, member in members
                if not key.startswith("_") and isinstance(member, classmethod | type(has_section))
            ]
        else:
            found.append((name, value))
    return found


def test_the_exported_names_are_those_for_the_type_checker():
    tree = ast.parse(Path(deepgps.__file__).read_text(encoding="utf-8"))
    (guard,) = (node for node in tree.body if isinstance(node, ast.If))
    typed = {alias.name: node.module for node in guard.body for alias in node.names}
    assert typed == deepgps._MODULES
    assert sorted(typed) == sorted(deepgps.__all__)
    assert set(deepgps.__all__) <= set(dir(deepgps))


def test_importing_deepgps_loads_nothing_heavy():
    code = "import sys, deepgps; print(sorted({'numpy', 'onnxruntime', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'deepgps' has no attribute 'Nucleus'"):
        _ = deepgps.Nucleus


@pytest.mark.parametrize("name", [name for name in deepgps.__all__ if name not in EXCEPTIONS])
def test_a_public_class_documents_its_fields(name):
    value = getattr(deepgps, name)
    if inspect.isclass(value):
        assert has_section(value, "Parameters", "Attributes")


def test_public_functions_document_parameters_results_and_errors():
    functions = public_functions()
    assert len(functions) > 10
    for name, function in functions:
        signature = inspect.signature(function)
        parameters = [key for key in signature.parameters if key != "self"]
        documented = inspect.getdoc(function) or ""
        assert documented, name
        if parameters:
            assert has_section(function, "Parameters"), name
            for key in parameters:
                assert key in documented, f"{name}: {key}"
        if signature.return_annotation not in (None, "None"):
            assert has_section(function, "Returns", "Yields"), name
        if "raise " in inspect.getsource(function):
            assert has_section(function, "Raises"), name


@pytest.mark.parametrize("name", ["deepgps", *(name for name in deepgps.__all__ if name not in EXCEPTIONS)])
def test_each_public_name_has_an_example_that_runs(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    value = deepgps if name == "deepgps" else getattr(deepgps, name)
    finder = doctest.DocTestFinder(recurse=inspect.isclass(value))
    tests = [each for each in finder.find(value, name) if each.examples]
    assert tests, f"{name} has no example"
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in tests:
        assert runner.run(test).failed == 0, test.name
