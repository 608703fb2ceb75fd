"""A board over ssh: OpenSSH and rsync as they are configured here, nothing installed there, its answers not trusted."""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgelip.deploy.boards.bounded_process import Ended, Sink, plain_line, run_bounded
from edgelip.deploy.boards.remote_failures import (
    GOES_ON,
    Place,
    connection_failure,
    there_failure,
)
from edgelip.deploy.boards.scripts import LOADER, READ
from edgelip.errors import (
    BundleError,
    DeviceError,
    EdgelipError,
    GoalMissed,
    MeasurementError,
    MissingError,
    UsageError,
)
from edgelip.files import writing

ANSWER_LIMIT_BYTES = 64 << 20
_CONNECT_S, _ALIVE_EVERY_S, _ALIVE_TIMES = 10, 5, 3
_HOST = re.compile(r"[^\s/'\"\\$`;&|<>(){}*?!#\x00-\x1f-][^\s/'\"\\$`;&|<>(){}*?!#\x00-\x1f]{0,254}")
_ERRORS = {
    kind.exit_code: kind for kind in (BundleError, GoalMissed, MissingError, DeviceError, MeasurementError)
}  # exit 2 of a verb there speaks of the bundle
_KILLED = (137, -9)
_SSH_INSTALL, _RSYNC_INSTALL = "sudo apt-get install openssh-client", "sudo apt-get install rsync"


@dataclass(frozen=True)
class Sent:
    """What a copy took. num_bytes: of the files; literal_bytes: of these went over the line, the rest was there."""

    num_bytes: int
    literal_bytes: int


class Board:
    """A machine that ssh reaches as `host`, an alias of the user's configuration or user@name.

    ssh_config: a configuration file instead of the user's own. python: the interpreter there, a command or a path,
    which may begin with ~/.
    """

    def __init__(self, host: str, *, python: str = "python3", ssh_config: Path | None = None) -> None:
        if not _HOST.fullmatch(host):
            raise UsageError(f"{host!r} is no ssh host; expected an alias of ~/.ssh/config, a name, or user@name.")
        if not python or python.startswith("-") or not python.isprintable():
            raise UsageError(f"python is {python!r}; expected a command or a path there, such as ~/venv/bin/python.")
        if ssh_config is not None and not ssh_config.is_file():
            raise UsageError(f"There is no ssh configuration {ssh_config}. Correct --ssh-config.")
        self.host, self.python = host, python
        self.place = Place(host, python)
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": _CONNECT_S,
            "ServerAliveInterval": _ALIVE_EVERY_S,
            "ServerAliveCountMax": _ALIVE_TIMES,
        }
        named = ["-F", str(ssh_config.resolve())] if ssh_config else []
        self._ssh = ["ssh", *named, "-T", *(f"-o{name}={value}" for name, value in options.items())]

    def run(
        self,
        script: str,
        arguments: Sequence[str] = (),
        *,
        payload: bytes = b"",
        doing: str,
        seconds: float = 60,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
        heard: Callable[[str], None] = lambda line: None,
    ) -> bytes:
        """stdout of `script`, Python source run by the board's Python with `arguments`; `payload` follows on its stdin.

        doing: what for, in the words of an error. heard: called with each line that it writes to stderr.
        Raises DeviceError if the board cannot be reached or the connection breaks, MissingError for what it lacks, and
        what the script's exit code stands for.
        """
        return self._python(script, arguments, payload, doing, seconds=seconds, limit_bytes=limit_bytes, heard=heard)

    def send(
        self,
        folder: Path,
        names: Sequence[str],
        remote_folder: str,
        *,
        doing: str,
        seconds: float = 24 * 3600,
        shown: Callable[[int], None] = lambda num_bytes: None,
    ) -> Sent:
        """Copy files of `folder` into a folder there, which exists; what an earlier, broken copy left is used.

        remote_folder: relative to the home folder there, or absolute. shown: called with the bytes that are done.
        """
        if not re.fullmatch(r"[A-Za-z0-9._/][A-Za-z0-9._/-]*", remote_folder):
            raise UsageError(f"remote folder is {remote_folder!r}; expected plain letters, digits, . _ - and /.")
        command = [  # -s: remote names pass through no shell; its long name differs between versions
            "rsync", "--recursive", "--times", "--checksum", "--inplace", "--partial", "-s",
            "--from0", "--files-from=-", "--info=progress2", "--stats", "--no-human-readable",
            f"--timeout={_ALIVE_EVERY_S * _ALIVE_TIMES * 4}", f"--rsh={_rsh(self._ssh)}",
            f"{folder.resolve()}/", f"{_bracketed(self.host)}:{remote_folder}/",
        ]  # fmt: skip
        listed = b"".join(name.encode() + b"\0" for name in names)
        # rsync writes progress to stdout; it is told apart from the statistics afterwards.
        told = _Lines(shown)
        ended = run_bounded(
            command, mend=_RSYNC_INSTALL, input=listed, seconds=seconds, limit_bytes=ANSWER_LIMIT_BYTES, sink=told
        )
        if ended.code != 0:
            raise (
                connection_failure(self.place, ended, doing=doing, rsync=True)
                or there_failure(self.place, ended)
                or DeviceError(f"rsync to {self.host} failed while {doing}: {_first(ended.stderr)} {GOES_ON}")
            )
        return Sent(told.number("Total file size"), told.number("Literal data"))

    def fetch(self, remote: str, local: Path, *, num_bytes: int, sha256: str, doing: str) -> None:
        """Copy one file of a known size and content here, whole or not at all; goes on from what a broken copy left.

        Raises DeviceError if the board sends anything else.
        """
        partial = local.with_name(f".{local.name}.partial")
        with writing(local, needs_bytes=num_bytes):
            local.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("ab") as file:
                start = file.tell()
                if start < num_bytes:
                    wanted = num_bytes - start
                    self._python(
                        READ, [remote, str(start), str(wanted)], b"", doing, seconds=24 * 3600, limit_bytes=wanted,
                        sink=file,
                    )  # fmt: skip
        digest = hashlib.sha256()
        with partial.open("rb") as file:
            for chunk in iter(lambda: file.read(1 << 20), b""):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            partial.unlink()
            raise DeviceError(
                f"{self.host} sent another {local.name} than its list says ({digest.hexdigest()[:8]}.., expected "
                f"{sha256[:8]}..). {GOES_ON}"
            )
        with writing(local):
            partial.replace(local)

    def _python(
        self,
        script: str,
        arguments: Sequence[str],
        payload: bytes,
        doing: str,
        *,
        seconds: float,
        limit_bytes: int,
        heard: Callable[[str], None] = lambda line: None,
        sink: Sink | None = None,
    ) -> bytes:
        source = script.encode()
        # ssh starts in the home folder; a quoted ~ would stay one.
        python = f"./{self.python[2:]}" if self.python.startswith("~/") else self.python
        words = shlex.join([python, "-c", LOADER.format(num_bytes=len(source)), *arguments])
        ended = run_bounded(
            [*self._ssh, "--", self.host, words],
            mend=_SSH_INSTALL,
            input=source + payload,
            hold_input=True,
            seconds=seconds,
            limit_bytes=limit_bytes,
            sink=sink,
            heard=heard,
        )
        if ended.stop == "too large":
            raise DeviceError(
                f"{self.host} sent more than {limit_bytes:,} bytes while {doing}. See what answers there."
            )
        if ended.code == 0:
            return ended.stdout
        raise connection_failure(self.place, ended, doing=doing) or self._failure_there(ended, doing)

    def _failure_there(self, ended: Ended, doing: str) -> EdgelipError:
        own = [line for line in ended.stderr.splitlines() if line.startswith("edgelip: ")]
        if own:  # a verb of the runtime, which names the remedy
            kind = _ERRORS.get(ended.code, EdgelipError)
            return kind(f"on {self.host}: {plain_line(own[-1].removeprefix('edgelip: '))}")
        if ended.code in _KILLED:
            return MissingError(
                f"on {self.host} the process was killed while {doing}; most likely its memory was full. Close what "
                "else runs there, or deploy a smaller bundle."
            )
        missing = there_failure(self.place, ended)
        return missing or DeviceError(
            f"{self.host} failed while {doing}: {_first(ended.stderr) or f'exit code {ended.code}'}"
        )


class _Lines:
    """A sink that hands on rsync's progress and keeps the numbers of its statistics."""

    def __init__(self, shown: Callable[[int], None]) -> None:
        self._shown, self._rest, self._text = shown, b"", ""

    def write(self, chunk: bytes) -> int:
        *whole, self._rest = re.split(rb"[\r\n]", self._rest + chunk)
        for raw in whole:
            line = plain_line(raw.decode(errors="replace"))
            progress = re.match(r"([0-9]{1,18}) +[0-9]{1,3}% ", line)
            if progress:
                self._shown(int(progress.group(1)))
            elif line:
                self._text = f"{self._text}\n{line}"[-4000:]
        return len(chunk)

    def number(self, name: str) -> int:
        found = re.search(rf"^{name}: ([0-9]+)", self._text, re.MULTILINE)
        return int(found.group(1)) if found else 0


def _rsh(ssh: Sequence[str]) -> str:
    """The ssh command as rsync splits it: quotes are doubled inside quotes, there are no backslashes."""
    return " ".join("'" + word.replace("'", "''") + "'" for word in ssh)


def _bracketed(host: str) -> str:
    user, at, name = host.rpartition("@")
    return f"{user}{at}[{name}]" if ":" in name else host


def _first(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return plain_line(lines[-1])[:300] if lines else ""
