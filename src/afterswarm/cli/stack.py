"""`afterswarm stack`: compose files in full, which the docker command line knows only a part of."""

from __future__ import annotations

import argparse
import asyncio
import sys

from afterswarm.http.errors import ConnectFailed, HttpError
from afterswarm.stack import deploy as deploying
from afterswarm.stack import reader
from afterswarm.stack.reader import Source, Unreadable
from afterswarm.stack.voice import Voice


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Put `stack` onto the command line."""
    words = "deploy compose files in full (docker stack ls, ps, services and rm work on the result)"
    verbs = commands.add_parser("stack", help=words, description=words).add_subparsers(
        dest="verb", required=True, metavar="COMMAND"
    )
    deploy = verbs.add_parser("deploy", help="create a stack or change it, and wait until it is well")
    _files(deploy)
    deploy.add_argument("stack", metavar="STACK")
    deploy.add_argument(
        "-H", "--host", default="", metavar="HOST", help="the API (default: $DOCKER_HOST, or our daemon)"
    )
    deploy.add_argument("--dry-run", action="store_true", help="say what would be done, and what differs")
    deploy.add_argument("--prune", action="store_true", help="remove what the file does not have any more")
    deploy.add_argument("--with-registry-auth", action="store_true", help="send the registry's credentials along")
    deploy.add_argument(
        "--resolve-image",
        choices=["always", "changed", "never"],
        default="always",
        help="ask the registry for digests (default: %(default)s)",
    )
    deploy.add_argument("-d", "--detach", action="store_true", help="do not wait")
    deploy.add_argument(
        "--timeout", type=float, default=300.0, metavar="SECONDS", help="how long to wait (default: %(default)s)"
    )
    deploy.add_argument(
        "--ignore-unsupported", action="store_true", help="leave out what cannot be had, instead of refusing"
    )
    deploy.add_argument("-q", "--quiet", action="store_true", help="only warnings and errors")
    deploy.set_defaults(run=run_deploy)
    config = verbs.add_parser("config", help="print the compose files as one, with everything filled in")
    _files(config)
    config.add_argument("stack", nargs="?", default="", metavar="STACK")
    config.add_argument("--format", choices=["yaml", "json"], default="yaml")
    config.set_defaults(run=run_config)


def _files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "-f",
        "--compose-file",
        action="append",
        default=[],
        dest="files",
        metavar="FILE",
        help="a compose file; several are merged; - is standard input (default: compose.yaml here)",
    )
    parser.add_argument(
        "--profile", action="append", default=[], dest="profiles", metavar="NAME", help="services of this profile too"
    )
    parser.add_argument(
        "--env-file", action="append", default=[], dest="env_files", metavar="FILE", help="instead of .env"
    )
    parser.add_argument("--project-directory", default="", metavar="DIR", help="what relative paths start from")


def _source(args: argparse.Namespace) -> Source:
    stdin = sys.stdin.buffer.read() if "-" in args.files else b""
    return Source(
        files=args.files,
        profiles=args.profiles,
        env_files=args.env_files,
        directory=args.project_directory,
        stdin=stdin,
    )


def run_deploy(args: argparse.Namespace) -> int:
    """`afterswarm stack deploy`."""
    voice = Voice(sys.stdout, sys.stderr, quiet=args.quiet)
    options = deploying.Options(
        stack=args.stack,
        host=args.host,
        prune=args.prune,
        with_registry_auth=args.with_registry_auth,
        resolve_image=args.resolve_image,
        detach=args.detach,
        dry_run=args.dry_run,
        ignore_unsupported=args.ignore_unsupported,
        timeout=args.timeout,
    )
    try:
        model = reader.read(_source(args), args.stack)
        return asyncio.run(deploying.deploy(options, model, voice))
    except (Unreadable, ConnectFailed) as why:
        voice.error(str(why))
        return 1
    except HttpError as why:
        voice.error(why.message)
        return 1
    except KeyboardInterrupt:
        return deploying.interrupted(args.stack)


def run_config(args: argparse.Namespace) -> int:
    """`afterswarm stack config`."""
    try:
        sys.stdout.write(reader.rendered(_source(args), args.stack, args.format))
    except Unreadable as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    return 0
