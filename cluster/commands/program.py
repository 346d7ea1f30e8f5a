"""The Typer program: every command of `clusterofone`, and how its errors are told."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version
from typing import Any

import typer
from pydantic import ValidationError
from rich.markup import escape
from typer.main import get_command

from cluster.commands import console, surroundings
from cluster.errors import CallerError, ClusterError
from cluster.faults import invalid_message
from fitting.errors import FittingError, InvalidMetadata, InvalidSettings

app = typer.Typer(
    name="clusterofone",
    no_args_is_help=False,
    invoke_without_command=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register() -> None:
    from cluster.commands import (
        access,
        auto,
        cameramaps,
        check,
        drain,
        drift,
        files,
        jobs,
        lab,
        localise,
        psf,
        roles,
        shifts,
        simulate,
        start,
        worker,
    )

    parts = (
        start, localise, jobs, lab, roles, worker, access, auto, simulate, files, psf, shifts, cameramaps, drift, drain, check,
    )  # fmt: skip
    for part in parts:
        part.register(app)


def _command() -> Any:
    """Return the program for one run, whose help shows no type where an option takes no value."""
    program: Any = get_command(app)
    top = typer.Context(program, **program.context_settings)
    for command in (program, *program.commands.values()):
        shown = command.get_help_option(typer.Context(command, parent=top))
        for option in (shown, *command.params):
            if getattr(option, "is_flag", False):
                option.metavar = ""
    return program


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"clusterofone {version('clusterofone')}\n")
        raise typer.Exit


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status: 0 done, 1 failed, 2 what was given cannot be used, 130 interrupted."""
    _have_somewhere_to_write()
    _register()
    interrupted = _let_signals_interrupt()
    try:
        _command()(args=arguments)
    except SystemExit as leaving:  # typer has told its own errors: usage, abort
        status = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return console.INTERRUPTED if interrupted and status else status
    except KeyboardInterrupt:
        return console.INTERRUPTED
    except console.Refused as error:
        return _tell(str(error), error.status)
    except (ClusterError, FittingError) as error:
        return _tell(str(error), console.USAGE if _names_what_was_given(error) else console.FAILED)
    except ValidationError as error:
        return _tell(_of_options(error, sys.argv[1:] if arguments is None else arguments), console.USAGE)
    except BrokenPipeError:
        return console.FAILED
    except OSError as error:
        return _tell(_told(error), console.FAILED)
    return 0


def _have_somewhere_to_write() -> None:
    """Started without a console (Windows' `pythonw`), what is said goes to a log instead of nowhere."""
    if sys.stdout is not None and sys.stderr is not None:
        return
    log = surroundings.places().state / "logs" / "without-console.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    stream = log.open("a", encoding="utf-8", buffering=1)
    sys.stdout = sys.stdout or stream
    sys.stderr = sys.stderr or stream
    console.err.file = sys.stderr
    console.out.file = sys.stdout


def _names_what_was_given(error: ClusterError | FittingError) -> bool:
    """Whether an error is of a setting, a key or a file that was given, rather than of what became of it."""
    if isinstance(error, InvalidSettings | InvalidMetadata):
        return True
    return isinstance(error, CallerError) and not {"field", "keys"}.isdisjoint(error.facts)


def _of_options(error: ValidationError, given: list[str]) -> str:
    """Return what is wrong with a message that a command wanted to send, by the option that was given where there is one."""
    refused = invalid_message(error)
    field = refused.facts["field"]
    option = f"--{field.replace('_', '-')}"
    is_given = field and any(word == option or word.startswith(f"{option}=") for word in given)
    return refused.detail.replace(field, option, 1) if is_given else refused.detail


def _let_signals_interrupt() -> list[int]:
    """Have a polite kill end a command as Ctrl-C does, also where a shell started it in the background.

    Returns the list in which signals are noted as they come.
    """
    seen: list[int] = []

    def interrupt(number: int, _: object) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    return seen


def _tell(message: str, status: int) -> int:
    console.err.print(f"[bold red]error:[/] {escape(console.without_orders(message))}")
    return status


def _told(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
