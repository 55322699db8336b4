"""A container engine for `make test-compose`: the one that runs, or one of our own.

Our own is Debian's `docker.io`, started with default settings on disks that are deleted later.
Where the images' registry is out of reach, base images of the same names are made from the package
mirror that this machine is configured with. Everything about the machine is read from it.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import compose
from stand_ins import make_base, make_postgres

_NEEDED = ("dockerd", "iptables-save", "iptables-restore", "debootstrap", "ip")
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class NoEngineError(Exception):
    """There is no engine here, and none can be started; the text says why."""


class Engine:
    """Runs the client's commands.

    Args:
        environment: Of the client.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = {**os.environ, **environment}

    def run(self, *arguments: str, check: bool = True, quiet: bool = True) -> str:
        """Run `docker ARGUMENTS`; return what it printed.

        Raises:
            RuntimeError: If it failed, with its last lines.
        """
        done = subprocess.run(
            ["docker", *arguments], env=self.environment, capture_output=quiet, text=True
        )
        if check and done.returncode:
            tail = "\n".join(f"{done.stdout}{done.stderr}".splitlines()[-15:]) if quiet else ""
            raise RuntimeError(
                f"docker {' '.join(arguments)} ended with {done.returncode}\n{tail}"
            )
        return f"{done.stdout}{done.stderr}" if quiet else ""

    def has_image(self, name: str) -> bool:
        """Whether an image is here, or can be pulled."""
        for action in (("image", "inspect", name), ("pull", "--quiet", name)):
            done = subprocess.run(
                ["docker", *action], env=self.environment, capture_output=True, timeout=600
            )
            if done.returncode == 0:
                return True
        return False


@contextmanager
def engine() -> Iterator[Engine]:
    """Yield a running engine with Compose.

    Raises:
        NoEngineError: If there is none, and none can be started.
    """
    if shutil.which("docker") is None:
        raise NoEngineError("there is no `docker` on the path")
    with ExitStack() as stack:
        work = Path(tempfile.mkdtemp(prefix="mergefront-engine."))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        plugins = work / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        found = Engine({})
        if subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
            if "compose" not in found.run("compose", "version", check=False).lower():
                raise NoEngineError("`docker compose` is not installed")
            yield found
            return
        binary = Path(compose.__file__).with_name("docker-compose")
        (plugins / "docker-compose").symlink_to(binary)
        stack.enter_context(_daemon(work))
        yield Engine(
            {"DOCKER_HOST": f"unix://{work}/docker.sock", "DOCKER_CONFIG": str(work / "config")}
        )


@contextmanager
def _daemon(work: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        raise NoEngineError("no engine answers, and only root can start one")
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        raise NoEngineError(
            f"no engine answers, and {', '.join(missing)} is not installed (Debian: apt-get "
            "install --no-install-recommends docker.io iptables iproute2 debootstrap)"
        )
    line = [
        *("dockerd", "--data-root", str(work / "data"), "--exec-root", str(work / "exec")),
        *("--pidfile", str(work / "docker.pid"), "-H", f"unix://{work}/docker.sock"),
    ]
    with _network_as_it_was(), (work / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(line, stdout=log, stderr=log, start_new_session=True)
        try:
            _wait_for(work / "docker.sock", process, work / "dockerd.log")
            yield
        finally:
            process.terminate()
            process.wait(timeout=120)
            _unmount(work)


def _wait_for(socket: Path, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(300):
        line = ["docker", "-H", f"unix://{socket}", "info"]
        if subprocess.run(line, capture_output=True).returncode == 0:
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    last = log.read_text().splitlines()[-1:] or ["it said nothing"]
    raise NoEngineError(f"dockerd cannot run here: {last[0]}")


def _unmount(work: Path) -> None:
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((p for p in points if p.startswith(str(work))), reverse=True):
        subprocess.run(["umount", "-l", point], capture_output=True)


@contextmanager
def _network_as_it_was() -> Iterator[None]:
    """Remove what a daemon leaves behind: chains, a policy, forwarding, a bridge."""
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    forwarding = _FORWARDING.read_text()
    bridges = _bridges()
    try:
        yield
    finally:
        _forget_chains()
        subprocess.run(["iptables-restore"], input=rules, text=True, check=False)
        _FORWARDING.write_text(forwarding)
        for name in _bridges() - bridges:
            subprocess.run(["ip", "link", "del", name], capture_output=True)


def _forget_chains() -> None:
    """Empty the tables that a daemon used: what was in them before is restored afterwards."""
    for table in ("filter", "nat"):
        for action in ("-F", "-X"):
            subprocess.run(["iptables", "-t", table, action], capture_output=True)
    subprocess.run(["iptables", "-P", "FORWARD", "ACCEPT"], capture_output=True)


def _bridges() -> set[str]:
    links = Path("/sys/class/net").iterdir()
    return {link.name for link in links if link.name.startswith(("docker", "br-", "veth"))}


def provide(engine: Engine, base: str, postgres: str) -> None:
    """Make the base images that are neither here nor to be had."""
    for name, make in ((base, make_base), (postgres, make_postgres)):
        if not engine.has_image(name):
            print(f"{name} cannot be pulled; making a stand-in of this name", flush=True)
            make(name, engine.environment)
