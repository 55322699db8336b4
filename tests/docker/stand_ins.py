"""Base images made of Debian packages, where no registry of images can be reached.

What a build needs of this machine to reach its mirrors (sources, certificates, proxies, pip's
configuration) is copied from it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CERTIFICATES = Path("/usr/local/share/ca-certificates")
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_ENTRYPOINT = Path(__file__).with_name("postgres_entrypoint.sh")


def make_base(name: str, environment: dict[str, str]) -> None:
    """Make an image from this machine's own Debian release."""
    release = _words("/etc/os-release", "=")["VERSION_CODENAME"]
    with _root(release) as root:
        _copy_pip(root)
        _import(root, name, environment, [])


def make_postgres(name: str, environment: dict[str, str]) -> None:
    """Make an image of PostgreSQL 17, with an entry point of our own."""
    with _root("trixie", "ca-certificates,gosu,postgresql-17") as root:
        shutil.copy(_ENTRYPOINT, root / "usr/local/bin/entrypoint.sh")
        (root / "usr/local/bin/entrypoint.sh").chmod(0o755)
        path = "/usr/lib/postgresql/17/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        changes = [
            f"ENV PATH={path}:/sbin:/bin",
            "ENV PGDATA=/var/lib/postgresql/data",
            'ENTRYPOINT ["entrypoint.sh"]',
            'CMD ["postgres"]',
        ]
        _import(root, name, environment, changes)


@contextmanager
def _root(release: str, packages: str = "ca-certificates") -> Iterator[Path]:
    """Yield the root directory of a minimal Debian that reaches what this machine reaches."""
    work = Path(tempfile.mkdtemp(prefix="mergefront-root."))
    try:
        root = work / "root"
        line = ["debootstrap", "--variant=minbase", f"--include={packages}", release, str(root)]
        done = subprocess.run([*line, _mirror()], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError("debootstrap: " + "\n".join(done.stdout.splitlines()[-5:]))
        _copy_certificates(root)
        if release == _words("/etc/os-release", "=")["VERSION_CODENAME"]:
            for part in ("sources.list", "sources.list.d", "apt.conf.d"):
                _copy(Path("/etc/apt") / part, root)
        yield root
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _mirror() -> str:
    line = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]
    sites = subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()
    plain = [site for site in sites if site.rstrip("/").endswith("/debian")]
    return (plain or sites)[0]


def _copy(path: Path, root: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, root / path.relative_to("/"), dirs_exist_ok=True)
    elif path.exists():
        (root / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path.relative_to("/"))


def _copy_certificates(root: Path) -> None:
    _copy(_CERTIFICATES, root)
    _copy(_BUNDLE, root)


def _copy_pip(root: Path) -> None:
    """Write a pip.conf with this machine's settings, and the folders that they name."""
    line = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    settings: dict[str, str] = {}
    for row in listed.splitlines():
        key, _, value = row.partition("=")
        settings[key.split(".")[-1]] = value.strip("'\"")
    settings.pop("constraint", None)  # the image has its own
    for folder in settings.get("find-links", "").split():
        _copy(Path(folder), root)
    urls = settings.get("extra-index-url", "").replace("\\n", " ").split()
    kept = [url for url in urls if not url.startswith("file:")]
    settings["extra-index-url"] = " ".join(kept)
    shown = [f"{key} = {value}" for key, value in settings.items() if value]
    (root / "etc/pip.conf").write_text("\n".join(["[global]", *shown, ""]))


def _import(root: Path, name: str, environment: dict[str, str], changes: list[str]) -> None:
    proxies = [f"ENV {k}={v}" for k, v in os.environ.items() if k.lower().endswith("_proxy")]
    options = [part for change in [*changes, *proxies] for part in ("--change", change)]
    tar = subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE)
    line = ["docker", "import", *options, "-", name]
    subprocess.run(line, stdin=tar.stdout, env=environment, check=True, capture_output=True)
    if tar.wait():
        raise RuntimeError(f"{root} could not be read")


def _words(path: str, separator: str) -> dict[str, str]:
    rows = [line.partition(separator) for line in Path(path).read_text().splitlines()]
    return {key: value.strip('"') for key, _, value in rows}
