"""Messages of ssh, rsync and shells, as they come, to one line that says what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgelip.deploy.boards import bounded_process, remote
from edgelip.deploy.boards.bounded_process import Ended, plain_line, run_bounded
from edgelip.deploy.boards.remote import Board
from edgelip.deploy.boards.remote_failures import Place, connection_failure, there_failure
from edgelip.deploy.boards.report import refuse_lacking
from edgelip.errors import DeviceError, MissingError, UsageError

ORIN = Place("orin", "python3")
CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
Offending ECDSA key in /home/me/.ssh/known_hosts:12
Host key for [10.0.0.7]:2222 has changed and you have requested strict checking.
Host key verification failed.
rsync: connection unexpectedly closed (0 bytes received so far) [sender]
rsync error: unexplained error (code 255) at io.c(232) [sender=3.2.7]"""

REFUSED = "ssh: connect to host 10.0.0.7 port 22: "
LOST = "the connection to orin was lost while copying x "
CUT = "rsync: connection unexpectedly closed (9 bytes received so far) [sender]"
CONNECTION: list[tuple[int, str, type[Exception], str]] = [
    (255, CHANGED, DeviceError, "the host key of orin has changed: another machine answers there, or the board was set "
     "up anew. Check first which it is; then forget the old key: ssh-keygen -R '[10.0.0.7]:2222' "),
    (255, "Host key verification failed.", DeviceError, "the host key of orin is not known here yet"),
    (255, "ssh: Could not resolve hostname orin: Name or service not known", DeviceError,
     "there is no host of the name 'orin' (Could not resolve hostname orin: Name or service not known)."),
    (255, REFUSED + "Connection refused", DeviceError, "orin is there but nobody listens for ssh (Connection refused"),
    (255, REFUSED + "No route to host", DeviceError, "orin does not answer (No route to host)."),
    (255, "me@10.0.0.7: Permission denied (publickey,password).", DeviceError,
     "orin does not let this user in (Permission denied (publickey,password)). Correct User"),
    (255, "kex_exchange_identification: Connection closed by remote host", DeviceError,
     "orin closed the connection at the greeting"),
    (255, "/home/me/.ssh/config: line 3: Bad configuration option: hostnam", UsageError,
     "ssh cannot read its configuration: Bad configuration option: hostnam. Correct that file."),
    (255, "Timeout, server orin not responding.", DeviceError,
     LOST + "(Timeout, server orin not responding.). The same command goes on."),
    (255, "client_loop: send disconnect: Broken pipe", DeviceError, LOST),
    (12, f"{CUT}\nrsync error: error in rsync protocol data stream (code 12) at io.c(231)", DeviceError,
     LOST + f"({CUT}). The same command goes on."),
]  # fmt: skip


@pytest.mark.parametrize(("code", "said", "kind", "message"), CONNECTION)
def test_a_connection_that_failed_is_one_line(code: int, said: str, kind: type[Exception], message: str) -> None:
    error = connection_failure(ORIN, Ended(code, b"", said, ""), doing="copying x", rsync=True)
    assert type(error) is kind
    assert str(error).startswith(message)
    assert "\n" not in str(error)


def test_a_board_that_answers_nothing_in_time_is_a_device_error() -> None:
    error = connection_failure(ORIN, Ended(-9, b"", "", "too long"), doing="running bench of x")
    assert str(error) == "orin gave no answer in time while running bench of x. The same command goes on."


def test_a_failure_of_the_script_is_no_failure_of_the_connection() -> None:
    assert connection_failure(ORIN, Ended(1, b"", "Connection refused", ""), doing="x") is None
    assert connection_failure(ORIN, Ended(12, b"", "", ""), doing="x") is None


THERE = [
    (
        1,
        "OSError: [Errno 28] No space left on device: 'x'",
        "no space left on orin. Free some; what edgelip left there ",
    ),
    (11, 'rsync: [receiver] write failed on "x": Disk quota exceeded (122)', "no space left on orin. Free some; what "),
    (
        1,
        "OSError: [Errno 30] Read-only file system: '.cache'",
        "orin cannot be written: its home folder lies on a read-",
    ),
    (
        127,
        "bash: line 1: python3: command not found",
        "there is no python3 on orin (bash: line 1: python3: command not ",
    ),
    (126, "sh: 1: python3: Permission denied", "there is no python3 on orin (sh: 1: python3: Permission denied)"),
    (
        1,
        "PermissionError: [Errno 13] Permission denied: '.cache'",
        "orin cannot be written: permission denied in ~/.cache",
    ),
    (12, "sh: 1: rsync: not found", "there is no rsync on orin. Install it: ssh orin 'sudo apt-get install rsync'"),
]


@pytest.mark.parametrize(("code", "said", "message"), THERE)
def test_what_a_board_lacks_is_exit_4_with_a_command(code: int, said: str, message: str) -> None:
    error = there_failure(ORIN, Ended(code, b"", said, ""))
    assert isinstance(error, MissingError)
    assert error.exit_code == 4
    assert str(error).startswith(message)


def test_an_rsync_that_is_missing_there_is_no_lost_connection() -> None:
    ended = Ended(12, b"", "sh: 1: rsync: not found\nrsync error: error in rsync protocol data stream (code 12)", "")
    assert connection_failure(ORIN, ended, doing="x", rsync=True) is None


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "", "a b", "x;reboot", "$(reboot)", "a\nb", "dir/x", "-"])
def test_a_host_that_could_be_an_option_or_a_command_is_refused(host: str) -> None:
    with pytest.raises(UsageError, match="is no ssh host; expected an alias of"):
        Board(host)


@pytest.mark.parametrize("host", ["orin", "me@10.0.0.7", "fe80::1%eth0", "board.local", "user_1@a-b"])
def test_usual_hosts_are_taken(host: str) -> None:
    assert Board(host).host == host


def test_a_python_that_could_be_an_option_is_refused() -> None:
    with pytest.raises(UsageError, match="python is '-c'; expected a command or a path there"):
        Board("orin", python="-c")


def test_a_configuration_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no ssh configuration .*absent\. Correct --ssh-config\."):
        Board("orin", ssh_config=tmp_path / "absent")


@pytest.mark.parametrize(("tool", "call"), [("ssh", "run"), ("rsync", "send")])
def test_a_tool_that_is_missing_here_is_exit_4(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: str, call: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    message = rf"^{tool} is not installed here; reaching a device needs it\. Install it: sudo apt-get install "
    calls = {
        "run": lambda board: board.run("pass", doing="looking"),
        "send": lambda board: board.send(tmp_path, ["x"], "y", doing="copying"),
    }
    with pytest.raises(MissingError, match=message):
        calls[call](Board("orin"))


def test_the_ssh_of_rsync_survives_blanks_and_quotes(tmp_path: Path) -> None:
    config = tmp_path / "it's a file"
    config.write_text("")
    command = remote._rsh(Board("orin", ssh_config=config)._ssh)
    assert f"'{str(config.resolve()).replace(chr(39), chr(39) * 2)}'" in command


def test_a_folder_there_that_a_shell_would_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"remote folder is 'a\$\(b\)'; expected plain letters"):
        Board("orin").send(tmp_path, ["x"], "a$(b)", doing="copying")


def test_a_report_without_the_engine_is_refused() -> None:
    report = {"numpy": {"why_not": None}, "engines": {"ort": {}}, "rsync": "x"}
    with pytest.raises(MissingError, match="orin does not know the engine 'openvino'; it has ort"):
        refuse_lacking(Board("orin"), report, "openvino")


def run_here(code: str, **options: object) -> Ended:
    chosen = {"mend": "", "seconds": 20.0, "limit_bytes": 1000, **options}
    return run_bounded([sys.executable, "-c", code], **chosen)  # type: ignore[arg-type]


def test_output_beyond_its_limit_ends_the_program() -> None:
    ended = run_here("import sys\nwhile True: sys.stdout.write('x' * 100)")
    assert ended.stop == "too large"
    assert len(ended.stdout) <= 1000


def test_output_at_its_limit_is_taken() -> None:
    ended = run_here("print('x' * 999)")
    assert (ended.stop, len(ended.stdout), ended.code) == ("", 1000, 0)


def test_a_program_that_takes_too_long_is_ended() -> None:
    ended = run_here("import time; time.sleep(60)", seconds=0.1)
    assert ended.stop == "too long"


def test_endless_errors_are_kept_short_and_plain() -> None:
    ended = run_here("import sys\nfor i in range(500): sys.stderr.write('\\x1b[31m%d\\x07\\n' % i)")
    lines = ended.stderr.splitlines()
    assert lines[-1] == "499"
    assert len(lines) == bounded_process._MAX_STDERR_LINES


@given(st.text(max_size=300))
def test_a_plain_line_cannot_steer_a_terminal(text: str) -> None:
    line = plain_line(text)
    assert not [char for char in line if char != " " and (ord(char) < 32 or 127 <= ord(char) < 160)]
    assert plain_line(line) == line
