"""The names of `import modelassay`."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import modelassay as ma

SOURCE = Path(ma.__file__)


def in_new_process(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_public_name_is_where_the_table_says():
    for name, place in ma.PUBLIC.items():
        module, _, attribute = place.partition(":")
        assert getattr(ma, name) is getattr(sys.modules[module], attribute)


def test_type_checkers_are_told_the_same_table():
    branch = next(
        node for node in ast.parse(SOURCE.read_text("utf-8")).body if isinstance(node, ast.If)
    )
    told = {}
    for node in branch.body:
        if isinstance(node, ast.ImportFrom):
            told |= {name.asname or name.name: f"{node.module}:{name.name}" for name in node.names}
        elif isinstance(node, ast.Assign):
            told[node.targets[0].id] = told.pop(node.value.id)
    assert told == ma.PUBLIC


def test_importing_loads_no_torch():
    assert in_new_process("import sys, modelassay; print('torch' in sys.modules)") == "False"


def test_the_check_for_torch_can_fail():
    program = "import sys, modelassay; modelassay.Codes; print('torch' in sys.modules)"
    assert in_new_process(program) == "True"


@pytest.mark.parametrize("name", ["audit", "report"])
def test_a_function_survives_the_import_of_the_package_of_its_name(name):
    program = (
        f"import sys, types; import modelassay.{name}; import modelassay as ma; "
        f"assert isinstance(sys.modules['modelassay.{name}'], types.ModuleType); "
        f"from modelassay import {name}; assert {name} is ma.{name}; "
        f"print(isinstance(ma.{name}, types.FunctionType))"
    )
    assert in_new_process(program) == "True"


def test_other_subpackages_are_bound_as_usual():
    assert in_new_process(
        "import modelassay.core.errors, modelassay as m; print(m.core.__name__)"
    ) == ("modelassay.core")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'autid'"):
        ma.autid  # noqa: B018 - the access is the test


def test_dir_lists_the_public_names():
    assert set(ma.PUBLIC) <= set(dir(ma))


def test_the_version_is_the_installed_one():
    assert ma.__version__.count(".") == 2
