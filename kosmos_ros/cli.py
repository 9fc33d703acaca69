# Copyright 2026 Kosmos ROS maintainers
# SPDX-License-Identifier: Apache-2.0
"""kosmos: describe images and answer questions about them without ROS, ask a log, prepare a model.

Results are JSON objects, one per line, on standard output. Progress and errors go to standard
error. The folder `commands` has a module for each group of subcommands.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # before the imports that take long
    from kosmos_ros.entry import kosmos

    sys.exit(kosmos())

import argparse
from typing import Any, NoReturn

from kosmos_ros import __version__
from kosmos_ros.commands import bag, bags, check, evaluate, images, recall, tasks
from kosmos_ros.commands import options as opts
from kosmos_ros.commands import report as report_command
from kosmos_ros.commands.output import report, write
from kosmos_ros.entry import ENVIRONMENT, INSTALL_WEB, INTERRUPTED, PACKAGES, missing_package
from kosmos_ros.errors import ConfigError, KosmosError, RequestError

DESCRIPTION = """\
Describe images and answer questions about them with KOSMOS-2, without ROS.
Results are JSON objects, one per line, on standard output.
"""
EXIT_CODES = """\
exit codes: 0 success; 1 an image, the model, the log or the output failed, or `kosmos recall`
found nothing; 2 an option or argument is invalid, or `kosmos recall` failed; 130 Ctrl-C; 141 the
program that reads standard output has ended.
"""


def main(args: list[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: success. 1: an image, the model, the log or the output failed, `kosmos check` found a
    difference, or `kosmos recall` found nothing. 2: an option or argument is invalid, or `kosmos
    recall` failed. As in shells, 130: Ctrl-C; 141: the program that reads standard output has
    ended. Other exceptions have the codes in entry.py.
    """
    try:
        options = _parser().parse_args(args)
        return int(options.run(options))
    except KosmosError as exc:
        report(opts.as_typed(exc))
        # Requests come from arguments. One that does not fit an image is a failure of that image.
        return 2 if isinstance(exc, ConfigError | RequestError) else 1
    except KeyboardInterrupt:
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    """Print errors in one line, without the usage, which would hide the error.

    Ends the program if the help cannot be written; argparse would hide that.
    """

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse unknown arguments here: only the parser of a subcommand knows whose they are."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return options, unknown

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is sys.stdout:
            write(message.removesuffix("\n"))
        else:
            super()._print_message(message, file)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kosmos",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kosmos {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    tasks.add(commands)
    images.add(commands)
    bag.add(commands)
    bags.add(commands)
    recall.add(commands)
    report_command.add(commands)
    check.add(commands)
    evaluate.add(commands)
    fetch = commands.add_parser(
        "fetch",
        help="download a model and check its files",
        description="Download a model from Hugging Face and check it. An interrupted download "
        "continues, and damaged files are downloaded again. HF_HOME sets the folder, HF_ENDPOINT "
        "the server.",
    )
    for name in ("model", "revision"):
        opts.add_setting(fetch, name)
    fetch.set_defaults(run=_fetch)
    agents = commands.add_parser(
        "mcp",
        help="let an agent look through the cameras of a running kosmos_node",
        description="Serve the Model Context Protocol on standard input and output, for an agent "
        "that starts this command. Its tools only look and ask: none publishes, sets a parameter "
        "or moves anything. Needs ROS 2 in this shell, and a running kosmos_node.",
    )
    agents.add_argument(
        "--node", default="/kosmos", help="full name of the kosmos_node; default: %(default)s"
    )
    agents.set_defaults(run=_mcp)
    return parser


def _fetch(options: argparse.Namespace) -> int:
    from kosmos_ros.kosmos2 import download, hub

    files = hub.fetch(options.model, options.revision)
    where = f"they are in {files.folder}"
    print(f"all files match the hashes of {download.address()}; {where}", file=sys.stderr)
    # Quotes keep YAML from reading a commit as a number.
    write(f'model: "{options.model}"\nrevision: "{files.commit}"')
    return 0


def _mcp(options: argparse.Namespace) -> int:
    if missing := missing_package({**PACKAGES, "mcp": f"run '{INSTALL_WEB}'"}):
        report(missing)
        return ENVIRONMENT
    from kosmos_ros.web import mcp_node

    return mcp_node.main(options.node)
