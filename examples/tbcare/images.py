"""Fill the lab's registry with the images of the stack.

The Dockerfiles beside this file are the one source. Where a public registry answers, public images are used for what
is public and the rest is built on the public base image; where none does, the base image is bootstrapped from Debian's
packages with mmdebstrap, and every image but Grafana's (it is in neither Debian nor PyPI) is built from it.
An image whose sources did not change is not built again: the registry keeps it under a tag made of their digest.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import msgspec

HERE = Path(__file__).parent
BASE = "debian:bookworm-slim"
SILENCE = 4.0  # seconds without a word
ASKED = 5  # so many times that long is the public registry given, a small image included
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Image(msgspec.Struct, frozen=True):
    """One image: its name in the registry, its folder, and where it has one, its public name's equal."""

    name: str
    folder: str
    requirements: str = ""
    what: str = ""
    public: bool = False


IMAGES = (
    Image("nginx:1.22", "nginx", public=True),
    Image("postgres:15", "postgres", public=True),
    Image("prom/prometheus:v2.42.0", "prometheus", public=True),
    Image("tbcare/app:1", "app", requirements="requirements.txt"),
    Image("tbcare/locust:1", "locust", requirements="requirements-locust.txt", what="locust"),
    Image("tbcare/locust-exporter:1", "locust", requirements="requirements-exporter.txt", what="exporter"),
)
GRAFANA = "grafana/grafana:10.4.3"


def digest_of(image: Image) -> str:
    """A tag that changes with the image's sources."""
    h = hashlib.sha256(f"{BASE} {image.what} {image.requirements}".encode())
    for path in sorted((HERE / image.folder).rglob("*")):
        if path.is_file():
            h.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes())
    return "src-" + h.hexdigest()[:16]


class Registry:
    """The lab's registry over its HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    def _manifest(self, name: str, tag: str, method: str, body: bytes | None = None) -> bytes | None:
        request = urllib.request.Request(
            f"http://{self.address}/v2/{name}/manifests/{tag}", data=body, method=method,
            headers={"Accept": MANIFEST, "Content-Type": MANIFEST},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError:
            return None

    def retag(self, name: str, source: str, tag: str) -> bool:
        """Point `tag` at what `source` names; False when there is no such image."""
        manifest = self._manifest(name, source, "GET")
        return manifest is not None and self._manifest(name, tag, "PUT", manifest) is not None


class Builder:
    """Builds and pushes through one docker socket, saying what it does."""

    def __init__(self, socket: str, registry: str, work: Path, out: Callable[[str], None]) -> None:
        self.docker = ["docker", "-H", f"unix://{socket}"]
        self.registry, self.work, self.out = registry, work, out

    def public(self) -> bool:
        """Whether the public registry answers the engine: it is asked for the base image."""
        self.out(f"  asking the public registry for {BASE}")
        argv = [*self.docker, "pull", "-q", BASE]
        with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pull:
            for _ in range(ASKED):
                try:
                    return pull.wait(timeout=SILENCE) == 0
                except subprocess.TimeoutExpired:
                    self.out("  still asking")
            pull.kill()
        return False

    def run(self, *argv: str, cwd: Path | None = None) -> None:
        """Run a program; its output goes to the log, its last lines into the error."""
        log = self.work / "images.log"
        with log.open("ab") as sink:
            done = subprocess.run(argv, stdout=sink, stderr=subprocess.STDOUT, cwd=cwd, check=False)
        if done.returncode:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"{' '.join(argv)} failed:\n{tail}\n(all of it: {log})")

    def base(self, cache: Path) -> None:
        """Make the base image from Debian's packages."""
        tar = cache / "debian-bookworm-slim.tar"
        if not tar.exists():
            self.out("  base image: mmdebstrap of Debian 12 (about 30 s)")
            cache.mkdir(parents=True, exist_ok=True)
            partial = tar.with_suffix(".part.tar")
            self.run(
                "mmdebstrap", "--variant=minbase", "--include=ca-certificates",
                "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
                "bookworm", str(partial),
            )  # fmt: skip
            partial.replace(tar)
        self.run(*self.docker, "import", "--change", 'CMD ["/bin/bash"]', str(tar), BASE)

    def build(self, image: Image, *, offline: bool) -> None:
        """Build one image in a copy of its folder, with the wheels it needs, and push it under both tags."""
        context = self.work / "context" / image.name.replace("/", "-").replace(":", "-")
        shutil.rmtree(context, ignore_errors=True)
        shutil.copytree(HERE / image.folder, context, ignore=shutil.ignore_patterns("__pycache__"))
        arguments: list[str] = ["--build-arg", f"WHAT={image.what}"] if image.what else []
        if image.requirements and offline:
            self.run(
                sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--only-binary=:all:",
                "--python-version=3.11", "-d", str(context / "wheels"), "-r", str(context / image.requirements),
            )  # fmt: skip
            arguments += ["--build-arg", "PIP_NO_INDEX=1"]
        full, _, _ = f"{self.registry}/{image.name}".rpartition(":")
        tags = (f"{self.registry}/{image.name}", f"{full}:{digest_of(image)}")
        self.run(*self.docker, "build", *arguments, *(w for t in tags for w in ("-t", t)), str(context))
        for tag in tags:
            self.run(*self.docker, "push", tag)

    def mirror(self, name: str) -> None:
        """Copy a public image into the lab's registry."""
        self.run(*self.docker, "pull", name)
        self.run(*self.docker, "tag", name, f"{self.registry}/{name}")
        self.run(*self.docker, "push", f"{self.registry}/{name}")


def fill(socket: str, registry: str, work: Path, cache: Path, out: Callable[[str], None]) -> bool:
    """Put every image of the stack into `registry`; returns whether Grafana's is among them."""
    work.mkdir(parents=True, exist_ok=True)
    known = Registry(registry)
    builder = Builder(socket, registry, work, out)
    public = builder.public()
    wanted: list[Image] = []
    for image in IMAGES:
        name, _, tag = image.name.rpartition(":")
        if known.retag(name, digest_of(image), tag):
            out(f"  {image.name}: unchanged")
        else:
            wanted.append(image)
    if wanted and not public:
        builder.base(cache)
    for image in wanted:
        if public and image.public:
            out(f"  {image.name}: pulling")
            builder.mirror(image.name)
        else:
            out(f"  {image.name}: building")
            builder.build(image, offline=not public)
    if public:
        out(f"  {GRAFANA}: pulling")
        builder.mirror(GRAFANA)
    return public
