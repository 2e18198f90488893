"""Makes commands of functions: a command's options are the flags of the records that its function takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer
from typer.core import TyperArgument, TyperGroup

from onnxnoise.cli.config import from_config
from onnxnoise.errors import RunFileError, UsageError
from onnxnoise.fields import Flag, flag, flags_of
from onnxnoise.files import check_output, make_place
from onnxnoise.flags import Given, bench_flags, record

if TYPE_CHECKING:
    from rich.console import Console

    from onnxnoise.cli.output.progress import LiveProgress
    from onnxnoise.records import Notice


class Commands(TyperGroup):
    """Makes a command's options when the command is asked for: the list of commands comes without them, in half the time."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        run = getattr(getattr(command, "callback", None), "made_from", None)
        return name, command if run is None else _made(run, name or ""), rest


def add(app: typer.Typer, run: Callable[..., None], name: str = "") -> None:
    """Add the command that a function is, with its docstring and its name (or another `name`), to an app of class Commands.

    The function's parameters are dataclasses of flags, or Given for the flags of BenchSpec that the command takes; `--help` shows
    the flags in the parameters' order.
    """

    def listed() -> None: ...

    listed.__doc__ = run.__doc__
    listed.made_from = run  # type: ignore[attr-defined]
    first = " ".join((run.__doc__ or "").partition("\n\n")[0].split()).partition(". ")[0].rstrip(".")
    app.command(name or run.__name__, short_help=f"{first}.")(listed)  # given whole, since Typer would cut it


def _made(run: Callable[..., None], name: str) -> Any:
    """A command of Typer with the options that the function's parameters have as flags."""
    command = run.__name__
    kinds = {name: kind for name, kind in get_type_hints(run).items() if name != "return"}
    flags = {name: _taken(kind, command) for name, kind in kinds.items()}

    every = {field: each for taken in flags.values() for field, each in taken.items()}

    def called(**given: Any) -> None:
        texts = {field: text for field, text in given.items() if text is not None and text != []}
        if _CONFIG in texts:
            asked = {field: each for field, each in every.items() if field != _CONFIG}
            texts = {**from_config(Path(texts.pop(_CONFIG)), asked), **texts}
        if lacking := [each.metavar for field, each in every.items() if each.required and field not in texts]:
            raise UsageError(f"missing argument {lacking[0]!r}; `onnxnoise {name} --help` shows what it takes")
        mine = {name: {field: texts[field] for field in flags[name] if field in texts} for name in kinds}
        run(**{name: Given(mine[name]) if kind is Given else record(kind, mine[name]) for name, kind in kinds.items()})

    configured = _CONFIG in every
    parameters = [_parameter(field, each, required=each.required and not configured) for field, each in every.items()]
    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    called.__doc__ = run.__doc__
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name)(called)
    made = typer.main.get_command(alone)
    for parameter in made.params:
        if isinstance(parameter, TyperArgument):
            _plain(parameter, every[str(parameter.name)])
    parse = made.parse_args

    def parsed(context: Any, words: list[str]) -> list[str]:
        try:
            return parse(context, words)
        except Exception as error:
            if getattr(error, "ctx", context) is None:  # as that of a flag without its value, which so names no command
                error.ctx = context  # type: ignore[attr-defined]
            raise

    made.parse_args = parsed  # type: ignore[assignment,method-assign]
    return made


def _plain(argument: Any, each: Flag) -> None:
    """Make help say an argument as an option's value: `MODEL`, `[MODEL]` where it may be left out; not `{MODEL} <str>`."""
    said = f"{each.metavar}..." if each.many else each.metavar
    argument.get_usage_pieces = lambda _: [said if argument.required else f"[{said}]"]
    argument.get_help_record = lambda _: (each.metavar, argument.help)


_WRITES = {"init_gate": "rules"}
"""A command that takes the flags of a file that it writes: its function, and where these flags are taken."""


def _taken(kind: type, command: str) -> dict[str, Flag]:
    if kind is Given:
        return bench_flags(_WRITES.get(command, command))
    return {field: each for field, each in flags_of(kind).items() if each.taken_by(command)}


def _parameter(field: str, each: Flag, *, required: bool) -> Parameter:
    """A flag as Typer takes it: its value is None where it is not given, since the record knows the default."""
    kind: Any = bool if each.syntax == "switch" else list[str] if each.many else str
    said = f"{each.help} (default: {each.shown_default})." if each.shown_default else f"{each.help}."
    more: dict[str, Any] = {"help": said, "autocompletion": completing(each.choices) if each.choices else None}
    if each.syntax != "switch":
        more["metavar"] = each.metavar
    info: Any = typer.Option(*each.names.split(), **more) if each.names else typer.Argument(**more)
    if required:
        return Parameter(field, Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info])
    return Parameter(field, Parameter.KEYWORD_ONLY, annotation=Annotated[kind | None, info], default=None)


def completing(choices: Sequence[str]) -> Callable[[str], list[str]]:
    """A completion for Typer that completes the last of comma-separated words."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + choice for choice in choices if choice.startswith(last)]

    return complete


class Decided(typer.Exit):
    """Ends a command that has come to a verdict, with the verdict's exit code, whatever became of what was printed."""


@dataclass(frozen=True)
class OutputFile:
    """A file that an option names: it begins with `first` and is `what`; `or_else` says what else the option takes."""

    option: str
    first: bytes
    what: str
    or_else: str = ""

    def check(self, target: str) -> None:
        """Raise RunFileError, before any work is done, for a file that can't be written or that holds something else."""
        path = Path(target)
        check_output(path, f"{self.option}{self.or_else}")
        if path.is_file() and path.stat().st_size:
            with path.open("rb") as file:
                if not file.read(64).lstrip().startswith(self.first):
                    raise RunFileError(
                        f"{target}: is there and no {self.what}, so it stays; name another file with {self.option}"
                    )

    def write(self, target: str, text: str) -> None:
        """Write `text` to the file, checked again since it may have changed; raises RunFileError where that can't be done."""
        self.check(target)
        try:
            make_place(Path(target))
            Path(target).write_text(text, encoding="utf-8", newline="\n")
        except OSError as error:
            raise RunFileError(
                f"{target}: can't be written: {error.strerror or error}; name another file with {self.option} "
                "(what was measured is in the run file, and the command will not measure it again)"
            ) from error


_JSON = OutputFile("--json", b"{", "JSON result", ", or - for standard output")


_CONFIG = "config"
"""The field of Printer whose flag names a file with flags."""


@dataclass(frozen=True, kw_only=True)
class Printer:
    """The way out for a command's result and its warnings: JSON, standard output and standard error."""

    json: str | None = flag(
        "--json",
        "FILE|-",
        "Write the result as JSON; - for standard output",
        default=None,
        at="bench compare gate margin plan show_runs ls layers doctor",
    )
    config: str | None = flag(
        "--config",
        "FILE",
        "TOML with any of these flags, as draws = 10; the command line overrides it",
        default=None,
        at="bench compare gate",
    )
    quiet: bool = flag(
        "-q --quiet",
        None,
        "No progress, and of the warnings only those that change what the figures mean",
        default=False,
        at="bench compare gate margin plan init_gate show_runs layers report",
    )

    def __post_init__(self) -> None:
        if self.json not in (None, "-"):
            _JSON.check(self.json or "")

    @cached_property
    def _consoles(self) -> tuple[Console, Console]:
        from onnxnoise.cli.output import terminal

        return terminal.consoles(quiet=self.quiet)

    @property
    def shown(self) -> Console:
        """Standard output, for results."""
        return self._consoles[0]

    @property
    def aside(self) -> Console:
        """Standard error, for progress and warnings."""
        return self._consoles[1]

    def progress(self) -> LiveProgress:
        from onnxnoise.cli.output.progress import LiveProgress

        return LiveProgress(self.aside)

    def result(
        self, as_json: Callable[[], str], as_tables: Callable[[Console], None], warnings: Sequence[Notice] = ()
    ) -> None:
        """Write the JSON where it is asked for, show the tables unless the JSON took their place, then the warnings."""
        from onnxnoise.cli.output import terminal

        if self.json == "-":
            sys.stdout.write(as_json())
            sys.stdout.flush()
        else:
            if self.json is not None:
                _JSON.write(self.json, as_json())
            as_tables(self.shown)
        terminal.warnings(self.aside, warnings)
