"""The command line: its commands, and errors as exit codes."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from onnxnoise.cli import streams
from onnxnoise.cli.commands import (
    apply,
    bench,
    cards,
    compare,
    doctor,
    gate,
    init_gate,
    layers,
    ls,
    margin,
    merge,
    noise,
    plan,
    protocols,
    report,
    show,
)
from onnxnoise.cli.options import Commands, Decided, add
from onnxnoise.errors import InputError, Interrupted, OnnxNoiseError, RunFileError, UsageError
from onnxnoise.text import shortened_paths

INTERRUPTED, BUG = 130, 70


class _Commands(Commands):
    """Turns a command's errors into exit codes before Typer does, which knows other codes and has no message for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        with _exit_codes():
            try:
                return super().invoke(ctx)
            except (Exception, KeyboardInterrupt):
                raise
            except BaseException as stray:  # of somebody's code that runs inside a command: its exit code is no verdict
                said = f"sys.exit({stray.code!r}) was called" if isinstance(stray, SystemExit) else repr(stray)
                raise RuntimeError(said) from stray


app = typer.Typer(
    name="onnxnoise",
    cls=_Commands,
    help="Which trained network survives the noise of analog hardware, and which of its layers break first.",
    epilog="`onnxnoise bench resnet20-cifar10` works at once, with weights and images that come with the package.",
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"onnxnoise {version('onnxnoise')}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


_COMMANDS: dict[str, Callable[..., None]] = {
    "bench": bench.bench,
    "compare": compare.compare,
    "gate": gate.gate,
    "init-gate": init_gate.init_gate,
    "margin": margin.margin,
    "plan": plan.plan,
    "apply": apply.apply,
    "report": report.report,
    "show": show.show_runs,
    "ls": ls.ls,
    "layers": layers.layers,
    "merge": merge.merge,
    "protocols": protocols.protocols,
    "doctor": doctor.doctor,
}
for _name, _command in _COMMANDS.items():
    add(app, _command, _name)
app.add_typer(cards.cards, name="cards", short_help=str(cards.cards.info.help).partition("\n")[0])
app.add_typer(noise.noise, name="noise", short_help=str(noise.noise.info.help).partition("\n")[0])


def main() -> None:
    """The `onnxnoise` command."""
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log is not for who must act
    _interrupts.clear()
    for number in (signal.SIGINT, signal.SIGTERM):  # what schedulers send ends a run as Ctrl-C does
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job never hears Ctrl-C
            signal.signal(number, _interrupt)
    with streams.steady(), _exit_codes():
        code = app(prog_name="onnxnoise", standalone_mode=False)
        if error := streams.failure():
            raise RunFileError(f"standard output can't be written: {error.strerror}; what was to be shown is lost")
        sys.exit(code)


_interrupts: list[int] = []
"""The signals that were to end this process."""


def _interrupt(number: int, _: object) -> None:
    _interrupts.append(number)
    raise KeyboardInterrupt


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Every error becomes one line for the person who must act, and its exit code."""
    try:
        yield
    except Decided as verdict:
        if error := streams.failure():
            _say(f"standard output can't be written: {error.strerror}; the exit code says what was decided")
        code = verdict.exit_code
    except typer.Exit:
        raise
    except OnnxNoiseError as error:
        _say(str(error))
        code = error.exit_code
    except Interrupted as error:
        _say(f"interrupted; {error}")
        code = INTERRUPTED
    except KeyboardInterrupt:
        _say("interrupted")
        code = INTERRUPTED
    except MemoryError as error:
        from onnxnoise.machine import memory

        _say(
            f"memory ran out ({str(error).rstrip('.') or 'the system gave no more'}); a run keeps to about "
            f"{memory().budget >> 20:,} MiB unless --memory says otherwise: give less there (--memory 500MB), or fewer images "
            "(--limit)"
        )
        code = InputError.exit_code
    except OSError as error:
        _say(
            f"{error.filename or 'a file'}: {error.strerror or error}; check the path, its permissions and the free space"
        )
        code = InputError.exit_code
    except Exception as error:
        if _interrupts:  # in the middle of an import a library may make another error of it
            _say("interrupted")
            code = INTERRUPTED
        elif hasattr(error, "format_message"):
            _say(_usage(error))
            code = UsageError.exit_code
        else:
            if os.environ.get("ONNXNOISE_TRACEBACK"):
                traceback.print_exc()
            _say(
                f"a bug in onnxnoise, not in what you did: {type(error).__name__}: {error}; "
                "please report it with the output of the same command under ONNXNOISE_TRACEBACK=1"
            )
            code = BUG
    else:
        return
    sys.exit(code)


def _usage(error: Any) -> str:
    """The message for an error of typer's parser (whose classes moved between versions): what it found, and where to look."""
    found = error.format_message().rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "onnxnoise")
    return f"{found[:1].lower()}{found[1:]}; `{command} --help` shows what it takes"


def _say(message: str) -> None:
    from onnxnoise.cli.output import terminal

    terminal.error_message(terminal.consoles(quiet=False)[1], shortened_paths(message))
