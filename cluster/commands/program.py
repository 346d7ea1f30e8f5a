"""The Typer program: every command of `clusterofone`, and how its errors are told."""

from __future__ import annotations

import signal
import sys
from importlib.metadata import version

import click
import typer
from rich.markup import escape

from cluster.commands import console
from cluster.errors import ClusterError
from fitting.errors import FittingError

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
    from cluster.commands import access, check, files, jobs, localise, roles, simulate, start

    for part in (start, localise, jobs, roles, access, simulate, files, check):
        part.register(app)


def _show_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"clusterofone {version('clusterofone')}\n")
        raise typer.Exit


def run(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    _register()
    _let_signals_interrupt()
    try:
        status = app(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        return _interrupted()
    except KeyboardInterrupt:
        return _interrupted()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except console.Refused as error:
        console.err.print(f"[bold red]error:[/] {escape(str(error))}")
        return error.status
    except (ClusterError, FittingError) as error:
        console.err.print(f"[bold red]error:[/] {escape(str(error))}")
        return console.FAILED
    except BrokenPipeError:
        return console.FAILED
    except OSError as error:
        console.err.print(f"[bold red]error:[/] {escape(_told(error))}")
        return console.FAILED
    return status if isinstance(status, int) else 0


def _let_signals_interrupt() -> None:
    """Have a polite kill end a command as Ctrl-C does, also where a shell started it in the background."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)


def _interrupted() -> int:
    console.err.print("stopped")
    return console.INTERRUPTED


def _told(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"
