"""The front door: reads the verb, checks its options, and only then imports what the verb needs."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from zoo.cli.interrupt import Stopped, raise_stopped
from zoo.cli.parsers import LIGHTNING_VERBS, OVERVIEW, PARSERS, lightning_parser
from zoo.errors import (
    EXIT_BUG,
    EXIT_DATA,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    UsageError,
    ZooError,
    unknown_name,
)
from zoo.version import __version__

VERBS = (*LIGHTNING_VERBS, *PARSERS)
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "DIFFUSERS_OFFLINE", "ZOO_OFFLINE")
# What the machine refuses, as opposed to a file that the program forgot: these are no bugs.
_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command line.

    Args:
        argv: The words after `zoo`; `sys.argv[1:]` where None.

    Returns:
        The exit code (see `zoo.errors`).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if "" not in sys.path:
        # A console script, unlike `python -m zoo`, finds no modules in the folder where it is run, such as that of
        # `--models mine.Mine`. The folder comes last, so that no file in it takes the place of what is installed.
        sys.path.append("")
    debug = "--debug" in words
    if "--offline" in words:
        os.environ.update(dict.fromkeys(OFFLINE, "1"))
    words = [word for word in words if word not in ("--debug", "--offline")]
    # Signals belong to the main thread; a program that calls this from another keeps its own handling.
    owner = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, raise_stopped) if owner else None
    try:
        code = _dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader has had enough (zoo list models | head). Nothing may be flushed into the closed pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except BaseException as error:
        if debug:
            import traceback

            traceback.print_exc()
        return _explain(error, debug)
    finally:
        if owner:
            signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(OVERVIEW, end="")
        return EXIT_OK
    if words[0] == "--version":
        print(f"inpainting-zoo {__version__}")
        return EXIT_OK
    verb, rest = words[0], words[1:]
    if verb in LIGHTNING_VERBS:
        return _lightning(verb, rest)
    if verb not in PARSERS:
        if verb.startswith("-"):
            raise UsageError(f"the verb comes first, got '{verb}'", remedy="zoo --help lists the verbs")
        raise unknown_name("verb", verb, list(VERBS))
    parser = PARSERS[verb]()
    if "-h" in rest or "--help" in rest:
        print(parser.format_help(), end="")
        return EXIT_OK
    arguments = parser.parse_all(rest)
    code: int = importlib.import_module(f"zoo.cli.{verb if verb != 'list' else 'lists'}").run(arguments)
    return code


def _lightning(verb: str, rest: list[str]) -> int:
    if "-h" in rest or "--help" in rest:
        print(lightning_parser(verb).format_help(), end="")
        return EXIT_OK
    if "--help-all" in rest:
        from zoo.cli.lightning import full_help

        print(full_help(), end="")
        return EXIT_OK
    from zoo.cli.expand import explain

    expansion = explain([verb, *rest])
    for note in expansion.notes if os.environ.get("LOCAL_RANK", "0") == "0" else ():
        print(f"zoo {verb}: {note}", file=sys.stderr)
    if verb == "fit":
        from zoo.cli.fit import run_fit

        return run_fit(expansion.argv, rest)
    from zoo.cli.evaluate import run_evaluation

    return run_evaluation(expansion.argv)


def _explain(error: BaseException, debug: bool) -> int:
    """Says what happened on stderr, in a few lines, and gives the exit code."""
    if isinstance(error, ZooError):
        print(f"zoo: {error}", file=sys.stderr)
        return error.exit_code
    if isinstance(error, Stopped):
        if os.environ.get("LOCAL_RANK", "0") != "0":  # a helper process of a distributed fit: the first one speaks
            return error.exit_code
        name = "terminated" if error.exit_code == EXIT_TERMINATED else "interrupted"
        print(f"zoo: {name}" + (f"; {error.advice}" if error.advice else ""), file=sys.stderr)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        print("zoo: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else EXIT_BUG
    if isinstance(error, OSError) and error.errno in _MACHINE:
        where = str(Path(os.fsdecode(error.filename))) if error.filename else ""
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the permissions"
        refused = ZooError(error.strerror or str(error), where, f"{remedy}, or write elsewhere with --out")
        print(f"zoo: {refused}", file=sys.stderr)
        return EXIT_DATA
    print(f"zoo: unexpected {type(error).__name__}: {error}", file=sys.stderr)
    if not debug:
        print("  this is a bug; the same command with --debug shows where, please report that", file=sys.stderr)
    return EXIT_BUG


if __name__ == "__main__":
    sys.exit(main())
