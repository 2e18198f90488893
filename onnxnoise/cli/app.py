"""The command line: its commands, and errors as exit codes."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from onnxnoise.cli.commands import apply, bench, cards, compare, doctor, gate, layers, margin, merge, plan, report
from onnxnoise.cli.options import Commands, add
from onnxnoise.errors import InputError, OnnxNoiseError, UsageError

INTERRUPTED, BUG = 130, 70


class _Commands(Commands):
    """Turns a command's errors into exit codes before Typer does, which knows other codes and has no message for Ctrl-C."""

    def invoke(self, ctx: Any) -> Any:
        with _exit_codes():
            return super().invoke(ctx)


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


for _command in (
    bench.bench,
    compare.compare,
    gate.gate,
    margin.margin,
    plan.plan,
    apply.apply,
    report.report,
    layers.layers,
    merge.merge,
    doctor.doctor,
):
    add(app, _command)
app.add_typer(cards.cards, name="cards")


def main() -> None:
    """The `onnxnoise` command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a model's names may have letters that the terminal's encoding lacks
    logging.getLogger().addHandler(logging.NullHandler())  # what libraries log is not for who must act
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what schedulers send ends a run as Ctrl-C does
    with _exit_codes():
        sys.exit(app(prog_name="onnxnoise", standalone_mode=False))


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Every error becomes one line for the person who must act, and its exit code."""
    try:
        yield
    except typer.Exit:
        raise
    except OnnxNoiseError as error:
        _say(str(error))
        code = error.exit_code
    except KeyboardInterrupt:
        _say("interrupted; whatever was measured is kept in the run file: the same command goes on from there")
        code = INTERRUPTED
        if _is_running():  # Python would wait until ONNX Runtime has done with its node
            sys.stderr.flush()
            os._exit(code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        _say(
            f"{error.filename or 'a file'}: {error.strerror or error}; check the path, its permissions and the free space"
        )
        code = InputError.exit_code
    except Exception as error:
        if hasattr(error, "format_message"):
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


def _is_running() -> bool:
    """Whether ONNX Runtime still works on something in this process."""
    session = sys.modules.get("onnxnoise.runtime.session")
    return session is not None and session.is_running()


def _usage(error: Any) -> str:
    """What typer's parser found (its error classes moved between versions), and where to look."""
    found = error.format_message().rstrip(".")
    command = getattr(getattr(error, "ctx", None), "command_path", "onnxnoise")
    return f"{found[:1].lower()}{found[1:]}; `{command} --help` shows what it takes"


def _say(message: str) -> None:
    from onnxnoise.cli.output import terminal

    terminal.error_message(terminal.consoles(quiet=False)[1], message)
