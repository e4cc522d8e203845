"""Help without torch, exit codes, and one line for what a user can cause."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from modelassay.cli import main
from modelassay.core.errors import ValueRangeError

COMMANDS = [
    "audit",
    "harvest",
    "fit",
    "plan",
    "probe",
    "history",
    "patch",
    "steer",
    "examples",
    "contrast",
    "report",
    "convert",
    "visualize",
    "atlas",
    "cite",
    "doctor",
]
PROGRAM = str(Path(sys.executable).parent / "modelassay")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)])
def test_help_loads_no_torch(arguments: list[str]):
    program = (
        "import sys\n"
        "from modelassay.cli.main import app\n"
        f"app({[*arguments, '--help']!r}, standalone_mode=False)\n"
        "heavy = {'torch', 'transformers', 'numpy', 'scipy'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Usage: " in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_the_common_options_and_an_example(command: str):
    text = CliRunner().invoke(main.app, [command, "--help"]).stdout
    for option in ("--json", "--seed", "--device", "--out"):
        assert f"  {option} " in text
    assert f"Examples:\n    modelassay {command}" in text


def test_every_registered_command_is_tested_here():
    registered = main.app.registered_commands
    assert [command.name or command.callback.__name__ for command in registered] == COMMANDS


def test_an_unknown_command_is_a_usage_error_with_a_suggestion():
    done = run("audti")
    assert done.returncode == 2
    assert "Did you mean 'audit'?" in done.stderr
    assert done.stdout == ""


def test_an_unknown_option_is_a_usage_error_with_a_suggestion():
    done = run("audit", "--sitee", "x")
    assert done.returncode == 2
    assert "--site" in done.stderr.splitlines()[-1]


def test_a_kind_of_dictionary_that_does_not_exist_is_a_usage_error():
    done = run("audit", "--fit", "topp")
    assert done.returncode == 2
    assert "'topp' is not one of 'topk', 'batchtopk'" in done.stderr


def test_a_number_below_its_bound_is_a_usage_error():
    assert run("audit", "--tokens", "0").returncode == 2


def test_the_version_is_printed():
    assert run("--version").stdout.startswith("modelassay 0.")


def raising(error: BaseException):
    def command() -> None:
        raise error

    return command


@pytest.fixture
def app_that_raises(monkeypatch: pytest.MonkeyPatch):
    """A function that runs a one-off command which raises, and gives the result."""

    def invoke(error: BaseException, name: str = "audit"):
        commands = main.typer.Typer(
            cls=main.Commands, pretty_exceptions_enable=False, rich_markup_mode=None
        )
        commands.callback()(lambda: None)
        commands.command(name=name)(raising(error))
        return CliRunner().invoke(commands, [name])

    return invoke


def test_our_errors_are_one_line_on_stderr_and_code_1(app_that_raises):
    result = app_that_raises(ValueRangeError("k must be at least 1; got 0. Raise it."))
    assert result.exit_code == 1
    assert result.stderr == "modelassay: k must be at least 1; got 0. Raise it.\n"
    assert result.stdout == ""


def test_a_missing_file_is_one_line_that_names_it(app_that_raises):
    result = app_that_raises(FileNotFoundError(2, "No such file or directory", "texts.txt"))
    assert result.exit_code == 1
    assert result.stderr.startswith("modelassay: 'texts.txt' must be accessible; got 'No such file")


def test_an_interruption_says_how_to_go_on(app_that_raises):
    result = app_that_raises(KeyboardInterrupt())
    assert result.exit_code == 1
    assert "--resume" in result.stderr


def test_where_nothing_can_be_resumed_an_interruption_does_not_promise_it(app_that_raises):
    result = app_that_raises(KeyboardInterrupt(), name="doctor")
    assert result.exit_code == 1
    assert "--resume" not in result.stderr


def test_our_own_bugs_keep_their_traceback(app_that_raises):
    result = app_that_raises(ZeroDivisionError("a bug"))
    assert isinstance(result.exception, ZeroDivisionError)
