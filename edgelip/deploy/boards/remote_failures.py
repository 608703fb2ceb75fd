"""What went wrong between here and a board, in one line: from the messages of ssh, rsync and the board's shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass

from edgelip.deploy.boards.bounded_process import Ended
from edgelip.errors import DeviceError, EdgelipError, MissingError, UsageError

GOES_ON = "The same command goes on."
SSH_FAILED = 255
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_RSYNC_CUT = (10, 12, 30, 35)  # socket, protocol stream, timeouts: what rsync says when ssh has gone


@dataclass(frozen=True)
class Place:
    """A board as messages name it. host: what ssh is called with; python: its interpreter there."""

    host: str
    python: str

    def by_hand(self, command: str) -> str:
        """The shell line that runs `command` there."""
        return f"ssh {shlex.quote(self.host)} {shlex.quote(command)}"


Explain = Callable[[Place, str, "re.Match[str]"], EdgelipError]


def _unknown_name(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    return DeviceError(
        f"there is no host of the name {at.host!r} ({found.group(0)}). Write a `Host {at.host}` entry with its "
        "HostName into ~/.ssh/config, or name another with --host."
    )


def _refused(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    return DeviceError(
        f"{at.host} is there but nobody listens for ssh ({found.group(0)}). Start its ssh server, or correct Port in "
        "~/.ssh/config."
    )


def _silent(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    return DeviceError(
        f"{at.host} does not answer ({found.group(0)}). Is it switched on and on this network? Check HostName in "
        "~/.ssh/config."
    )


def _changed_key(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    entry = found.group(1) or at.host
    return DeviceError(
        f"the host key of {at.host} has changed: another machine answers there, or the board was set up anew. Check "
        f"first which it is; then forget the old key: ssh-keygen -R {shlex.quote(entry)} (with -f FILE if your "
        f"configuration names another known_hosts), and accept the new one by hand: ssh {shlex.quote(at.host)}"
    )


def _unknown_key(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    return DeviceError(
        f"the host key of {at.host} is not known here yet (Host key verification failed). Connect once by hand and "
        f"compare the key that it shows: ssh {shlex.quote(at.host)}"
    )


def _wrong_user(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    return DeviceError(
        f"{at.host} does not let this user in ({found.group(0)}). Correct User and IdentityFile in ~/.ssh/config, or "
        f"give it your key: ssh-copy-id {shlex.quote(at.host)}"
    )


def _configuration(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    return UsageError(f"ssh cannot read its configuration: {found.group(0)}. Correct that file.")


def _closed_at_greeting(at: Place, doing: str, found: re.Match[str]) -> EdgelipError:
    return DeviceError(
        f"{at.host} closed the connection at the greeting ({found.group(0)}). Its ssh server is overloaded, or "
        "something else listens there; try again."
    )


# First match wins. A key that changed also says "Host key verification failed".
_SSH: tuple[tuple[str, Explain], ...] = (
    (r"Bad configuration option[^\n]*|Bad owner or permissions on [^\n]*|Can't open user config file[^\n]*",
     _configuration),
    (r"Host key for (\S+) has changed", _changed_key),
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED()", _changed_key),
    (r"Host key verification failed", _unknown_key),
    (r"Could not resolve hostname [^\n]*", _unknown_name),
    (r"Permission denied \([a-z0-9,-]+\)|Too many authentication failures", _wrong_user),
    (r"Connection refused", _refused),
    (r"[Cc]onnection timed out|Operation timed out|No route to host|Network is unreachable|Host is down", _silent),
    (r"kex_exchange_identification[^\n]*|ssh_exchange_identification[^\n]*|banner exchange[^\n]*", _closed_at_greeting),
)  # fmt: skip


def connection_failure(at: Place, ended: Ended, *, doing: str, rsync: bool = False) -> EdgelipError | None:
    """The error of a connection that did not come about or broke; None if the board was reached and answered."""
    if ended.stop == "too long":
        return DeviceError(f"{at.host} gave no answer in time while {doing}. {GOES_ON}")
    if ended.code != SSH_FAILED and not (rsync and ended.code in _RSYNC_CUT):
        return None
    for pattern, explain in _SSH:
        found = re.search(pattern, ended.stderr)
        if found:
            return explain(at, doing, found)
    if rsync and there_failure(at, ended):
        return None
    return DeviceError(f"the connection to {at.host} was lost while {doing} ({_last(ended)}). {GOES_ON}")


def there_failure(at: Place, ended: Ended) -> MissingError | None:
    """What the board lacks, by what its shell, its Python or its rsync said; None if the text tells nothing."""
    text = ended.stderr
    if re.search(r"No space left on device|Disk quota exceeded", text):
        return no_space(at)
    if "Read-only file system" in text:
        return MissingError(
            f"{at.host} cannot be written: its home folder lies on a read-only file system. A worn card does that; "
            f"see {at.by_hand('dmesg')}, or mount it writable."
        )
    if re.search(r"rsync: (command )?not found|rsync: not found|rsync: No such file", text):
        return no_rsync(at)
    if ended.code in (_NOT_FOUND, _NOT_EXECUTABLE):
        return MissingError(
            f"there is no {at.python} on {at.host} ({_last(ended)}). Install it: "
            f"{at.by_hand('sudo apt-get install python3')}; or name another as `python` in the device's description."
        )
    if re.search(r"Permission denied", text):
        return MissingError(
            f"{at.host} cannot be written: permission denied in ~/.cache/edgelip. See "
            f"{at.by_hand('ls -ld ~ ~/.cache ~/.cache/edgelip')}"
        )
    return None


def no_rsync(at: Place) -> MissingError:
    return MissingError(f"there is no rsync on {at.host}. Install it: {at.by_hand('sudo apt-get install rsync')}")


def no_space(at: Place, *, needs_mib: float | None = None, free_mib: float | None = None) -> MissingError:
    sizes = "" if needs_mib is None or free_mib is None else f" (needs {needs_mib:.1f} MiB, {free_mib:.1f} MiB free)"
    return MissingError(
        f"no space left on {at.host}{sizes}. Free some; what edgelip left there goes with: "
        f"{at.by_hand('rm -r ~/.cache/edgelip')}"
    )


def _last(ended: Ended) -> str:
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith("rsync error:")] or lines  # what came before says more
    return lines[-1][:200] if lines else f"exit code {ended.code}"
