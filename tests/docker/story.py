"""The whole story of `docker compose up`, with real containers: `make test-compose`.

Builds the image from the Dockerfile as it is, runs a study of the demo pair with two workers, and
does to it what happens to clusters: a worker killed, the database away, stop, down, up. At the end
the budget is exact, and the password was nowhere to be seen.
"""

import json
import re
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml
from engine import Engine, NoEngineError, engine, provide

ROOT = Path(__file__).parents[2]
BUDGET = 60
POLL = 2.0
SPEC = "/study/specs/story.yaml"


class Story:
    """One Compose project.

    Args:
        engine: That runs it.
        folder: For its settings and spec.
    """

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.password = engine, secrets.token_hex(16)
        self.project, self.port = f"mergefront-story-{secrets.token_hex(3)}", _free_port()
        (folder / "specs").mkdir()
        folder.chmod(0o755)
        self._write_spec(folder / "specs" / "story.yaml")
        settings = {
            "POSTGRES_PASSWORD": self.password,
            "COMPOSE_PROFILES": "cpu",
            "SPEC": SPEC,
            "SPECS": str(folder / "specs"),
            "DASHBOARD_PORT": str(self.port),
            "MERGEFRONT_IMAGE": f"{self.project}:latest",
        }
        self._env = folder / ".env"
        self._env.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        self._start = time.monotonic()

    def _write_spec(self, path: Path) -> None:
        examples = "/opt/mergefront/examples"
        content = yaml.safe_load((ROOT / "examples" / "demo.yaml").read_text())
        study = {"name": "story", "trials": BUDGET, "heartbeat_seconds": 1, "grace_seconds": 10}
        content["study"] = {**study, "storage": "sqlite:///runs/story.db"}
        models = content["models"]
        models["base"] = f"{examples}/{models['base']}"
        models["experts"] = [f"{examples}/{expert}" for expert in models["experts"]]
        (task,) = content["evaluation"]["tasks"]
        task["files"] = {split: f"{examples}/{file}" for split, file in task["files"].items()}
        path.write_text(yaml.safe_dump(content))

    def say(self, text: str) -> None:
        """Print a line of the log."""
        print(f"{time.monotonic() - self._start:6.0f} s  {text}", flush=True)

    def compose(
        self, *arguments: str, root: Path = ROOT, check: bool = True, quiet: bool = True
    ) -> str:
        """Run `docker compose ARGUMENTS` on the project, with the files below `root`."""
        files = ("-f", str(root / "docker" / "compose.yaml"), "--env-file", str(self._env))
        line = ("compose", *files, "-p", self.project, "--progress", "plain", *arguments)
        return self.engine.run(*line, check=check, quiet=quiet)

    def sql(self, statement: str) -> str:
        """Ask the database."""
        shell = (
            "PGPASSWORD=$(cat /run/secrets/postgres_password) psql -h 127.0.0.1 -U mergefront "
            f'-Atc "{statement}"'
        )
        return self.compose("exec", "-T", "postgres", "sh", "-c", shell).strip()

    def states(self) -> dict[str, int]:
        """Return the number of trials in each state."""
        rows = self.sql("SELECT state, count(*) FROM trials GROUP BY state").splitlines()
        return {state: int(n) for state, n in (row.split("|") for row in rows)}

    def wait_for(self, what: str, condition: Callable[[], bool], seconds: float = 600) -> None:
        """Wait until a condition holds.

        Raises:
            AssertionError: If it does not within the time.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"never: {what}"
            time.sleep(POLL)
        self.say(what)

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return what the engine knows of a service's containers."""
        found = self.compose("ps", "--all", "--quiet", service).split()
        content: list[dict[str, Any]] = (
            json.loads(self.engine.run("inspect", *found)) if found else []
        )
        return content

    def exit_codes(self, service: str) -> list[int]:
        """Return the exit codes of a service's containers that run no more."""
        states = [container["State"] for container in self.containers(service)]
        return [state["ExitCode"] for state in states if not state["Running"]]


def build(story: Story) -> None:
    """Build the image, and once more from a copy of the code in which a line was added."""
    with tempfile.TemporaryDirectory(prefix="mergefront-changed.") as folder:
        changed = Path(folder) / "code"
        line = ["git", "-C", str(ROOT), "checkout-index", "--all", f"--prefix={changed}/"]
        subprocess.run(line, check=True)
        with (changed / "study" / "run.py").open("a", encoding="utf-8") as file:
            file.write("# One line more.\n")
        first, again = (_build_seconds(story, root) for root in (ROOT, changed))
    size = story.engine.run("image", "inspect", "-f", "{{.Size}}", f"{story.project}:latest")
    story.say(f"the image was built in {first:.0f} s; its size is {int(size) / 1e9:.2f} GB")
    story.say(f"after a change of one line of the code it was built in {again:.0f} s")
    assert again < first / 4, "a change of the code installs packages again"


def _build_seconds(story: Story, root: Path) -> float:
    start = time.monotonic()
    story.compose("build", "dashboard", root=root)
    return time.monotonic() - start


def kill_a_worker(story: Story) -> None:
    """Kill a worker's process; the engine starts it again."""
    victim = story.containers("worker-cpu")[0]
    kill = (
        "import os, pathlib\n"
        "for path in pathlib.Path('/proc').glob('[0-9]*/stat'):\n"
        "    pid, parent = int(path.parent.name), path.read_text().rsplit(') ')[1].split()[1]\n"
        "    line = (path.parent / 'cmdline').read_bytes()\n"
        "    if parent == '1' and pid != os.getpid() and b'worker' in line:\n"
        "        os.kill(pid, 9)\n"
    )
    story.engine.run("exec", victim["Id"], "python3", "-c", kill, check=False)

    def restarted() -> bool:
        (now,) = json.loads(story.engine.run("inspect", victim["Id"]))
        return bool(now["RestartCount"] == 1 and now["State"]["Running"])

    story.wait_for("a killed worker was started again", restarted, 120)


def take_the_database_away(story: Story) -> None:
    """Stop the database for a while; workers and dashboard outlive it, pictures go on."""
    before = int(story.states()["COMPLETE"])
    story.compose("stop", "postgres")
    time.sleep(25)
    assert all(c["State"]["Running"] for c in story.containers("worker-cpu"))
    story.compose("start", "postgres")
    story.say(f"the database was away for 25 s, after {before} trials")
    story.wait_for("trials go on", lambda: _answers(story) and _complete(story) >= before + 2)
    drawn = "SELECT value_json FROM study_system_attributes WHERE key = 'mergefront:drawn_after'"
    story.wait_for(
        "the dashboard paints again",
        lambda: int(story.sql(drawn) or 0) > before,
        180,
    )


def _answers(story: Story) -> bool:
    return "healthy" in story.compose("ps", "postgres")


def _complete(story: Story) -> int:
    return story.states().get("COMPLETE", 0)


def look_at_the_dashboard(story: Story) -> None:
    """It answers on 127.0.0.1 alone, to its own names alone; the database nowhere."""
    url = f"http://127.0.0.1:{story.port}/api/studies"
    with urllib.request.urlopen(url, timeout=30) as response:
        names = [s["study_name"] for s in json.load(response)["study_summaries"]]
    assert names == ["story"], names
    others = {*socket.gethostbyname_ex(socket.gethostname())[2], _address()} - {"127.0.0.1"}
    for address in others:
        with closing(socket.socket()) as probe:
            probe.settimeout(3)
            assert probe.connect_ex((address, story.port)) != 0, address
    request = urllib.request.Request(url, headers={"Host": "attacker.example"})
    try:
        urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        assert error.code == 403, error
    else:
        raise AssertionError("it answered under a stranger's name")
    assert not story.containers("postgres")[0]["HostConfig"]["PortBindings"]
    story.say(f"the dashboard answers on 127.0.0.1, and not on {', '.join(sorted(others))}")


def _address() -> str:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def look_for_the_password(story: Story) -> None:
    """It is in no description, history, log, command line or attribute."""
    services = ("postgres", "init", "worker-cpu", "dashboard")
    seen = {
        "inspect": json.dumps([story.containers(service) for service in services]),
        "history": story.engine.run("history", "--no-trunc", f"{story.project}:latest"),
        "logs": story.compose("logs"),
        "top": story.compose("top"),
        "attributes": story.sql("SELECT value_json FROM study_user_attributes"),
        "system attributes": story.sql("SELECT value_json FROM study_system_attributes"),
        "trials": story.sql("SELECT value_json FROM trial_user_attributes"),
    }
    for place, text in seen.items():
        assert text and story.password not in text, place
    story.say(f"the password is in none of: {', '.join(seen)}")


def tell(story: Story) -> None:
    """Run the story; every line that is printed was checked."""
    build(story)
    story.compose("up", "--detach", "--scale", "worker-cpu=2")
    story.say("up")
    assert story.exit_codes("init") == [0]
    story.wait_for("4 trials are complete", lambda: _complete(story) >= 4)
    kill_a_worker(story)
    take_the_database_away(story)
    look_at_the_dashboard(story)
    look_for_the_password(story)
    story.compose("stop", "worker-cpu", "dashboard")
    codes = (story.exit_codes("worker-cpu"), story.exit_codes("dashboard"))
    assert codes == ([143, 143], [0]), codes
    assert "RUNNING" not in story.states(), story.states()
    story.say(f"stop: workers exit with 143, the dashboard with 0; {story.states()}")
    assert _complete(story) < BUDGET, "all was over before the end of the story"
    story.compose("down")
    assert story.compose("ps", "--all", "--quiet").strip() == ""
    story.compose("up", "--detach", "--scale", "worker-cpu=2")
    story.say("down, up")
    story.wait_for(
        "the workers ended", lambda: len(story.exit_codes("worker-cpu")) == 2, seconds=1200
    )
    codes_at_end = (story.exit_codes("worker-cpu"), story.exit_codes("init"))
    assert codes_at_end == ([0, 0], [0]), codes_at_end
    states = story.states()
    assert states.pop("COMPLETE") == BUDGET and not states.keys() - {"FAIL"}, states
    story.say(f"exactly {BUDGET} trials are complete; {states} were tried again; workers exit 0")
    _check_measured_once(story)
    look_for_the_password(story)


def _check_measured_once(story: Story) -> None:
    """No candidate counts twice, and no failure has another reason than what was done."""
    weights = story.sql(
        "SELECT string_agg(param_value::text, ',' ORDER BY param_name) FROM trial_params "
        "JOIN trials USING (trial_id) WHERE state = 'COMPLETE' GROUP BY trial_id"
    ).splitlines()
    assert len(weights) == len(set(weights)) == BUDGET
    reasons = set(
        story.sql(
            "SELECT value_json FROM trial_user_attributes WHERE key = 'failure'"
        ).splitlines()
    )
    known = re.compile(r'"(its worker died|the worker was asked to stop)"')
    assert all(known.fullmatch(reason) for reason in reasons), reasons
    story.say(f"{BUDGET} different candidates; failures: {', '.join(sorted(reasons)) or 'none'}")


def _images() -> tuple[str, str]:
    text = (ROOT / "docker" / "compose.yaml").read_text()
    base = re.search(r"BASE_IMAGE:-([^}]+)}", text)
    postgres = re.search(r"POSTGRES_IMAGE:-([^}]+)}", text)
    assert base and postgres
    return base.group(1), postgres.group(1)


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Run it, or say why it cannot be run here."""
    try:
        with engine() as running, tempfile.TemporaryDirectory(prefix="mergefront-story.") as work:
            provide(running, *_images())
            story = Story(running, Path(work))
            try:
                tell(story)
            except BaseException:
                print(story.compose("logs", "--tail", "40", check=False), file=sys.stderr)
                raise
            finally:
                story.compose("down", "--volumes", "--rmi", "local", check=False)
    except NoEngineError as error:
        print(f"skipped: {error}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error}\n{error.stderr}")


if __name__ == "__main__":
    main()
