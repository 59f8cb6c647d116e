"""Where the daemon is, and with what secret it is spoken to: from arguments, the environment and the defaults.

In this order. It and the defaults are those of the command line. Text only; nothing is connected to here.
"""

from __future__ import annotations

import errno
import grp
import os
import ssl
from typing import Optional, Union
from urllib.parse import urlsplit

from .errors import AddressError, NoDaemonError, PermissionDeniedError

StrPath = Union[str, "os.PathLike[str]"]

SYSTEM_SOCKET = "/run/gpumgr/gpumgr.sock"
_SOCKET_MAX = 107  # bytes that fit into struct sockaddr_un
_TOKEN_MAX = 4096
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)  # of socket(2)


def _variable(name: str) -> Optional[str]:
    """An empty variable is one that is not set."""
    return os.environ.get(name) or None


def _check_token(token: str, source: str) -> str:
    if not token:
        raise AddressError(f"{source} is empty; put the daemon's token there, or unset it")
    if any(c <= " " or c > "~" for c in token):
        raise AddressError(f"{source} is not a token: only printable ASCII without spaces can be sent")
    return token


def _read_token(path: str, source: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            line = file.readline(_TOKEN_MAX + 2).rstrip("\r\n")
    except OSError as error:
        raise AddressError(f"{source}: cannot read {path}: {error.strerror}") from error
    if len(line) > _TOKEN_MAX:
        raise AddressError(f"{source}: the token in {path} is too long")
    return _check_token(line, f"the token in {source}")


def _check_socket(path: str) -> str:
    size = len(os.fsencode(path))
    if size == 0:
        raise AddressError("the path of the socket is empty")
    if size > _SOCKET_MAX:
        raise AddressError(f"the path of the socket is too long ({size} bytes, at most {_SOCKET_MAX}): {path[:200]}")
    return path


def _is_ours(path: str) -> bool:
    try:
        return os.lstat(path).st_uid == os.getuid()
    except OSError:
        return False


def _may_be_there(path: str) -> bool:
    """Whether something stands there; "may not look" counts as yes, so that the error says so later."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def default_socket() -> str:
    """The socket of this user's own daemon if it is there, else the system's. Looked for anew each time."""
    if os.getuid() == 0:
        return SYSTEM_SOCKET
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = f"{runtime}/gpumgr" if runtime.startswith("/") else f"/tmp/gpumgr-{os.getuid()}"
    own = f"{folder}/gpumgr.sock"
    # One under /tmp is believed only when it is ours.
    return SYSTEM_SOCKET if not _is_ours(own) and _may_be_there(SYSTEM_SOCKET) else own


class Address:
    """A Unix socket, or a URL with a token. Both from the environment where neither is given.

    Raises AddressError for what cannot be one.
    """

    def __init__(
        self,
        socket: Optional[StrPath] = None,
        url: Optional[str] = None,
        token: Optional[str] = None,
        token_file: Optional[StrPath] = None,
    ) -> None:
        if socket is not None and url is not None:
            raise AddressError("a socket and a URL exclude each other")
        self._socket: Optional[str] = None
        self._token = token
        self._token_file = token_file
        self._tls: Optional[ssl.SSLContext] = None
        self.url: Optional[str] = None
        self.host = "localhost"
        self.port = 0
        self.prefix = ""
        self.is_tls = False
        self.host_header = "localhost"
        if socket is None and url is None:
            socket = _variable("GPUMGR_SOCKET")
            url = None if socket is not None else _variable("GPUMGR_URL")
        if socket is not None:
            self._socket = _check_socket(os.fspath(socket))
        elif url is not None:
            self._take_url(url)
            self.token()

    def _take_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise AddressError(f'"{url[:200]}" is not a URL; write http://HOST:PORT') from None
        if parts.scheme.lower() not in ("http", "https"):
            raise AddressError(f'"{url[:200]}": only http:// and https:// are understood; write http://HOST:PORT')
        if not parts.hostname or any(c <= " " or c > "~" for c in url):
            raise AddressError(f'"{url[:200]}" is not a URL; write http://HOST:PORT')
        if parts.username is not None or parts.password is not None:
            raise AddressError("the URL may not have a user; the token goes into GPUMGR_TOKEN")
        if parts.query or parts.fragment:
            raise AddressError("the URL may not have a query or a fragment")
        self.is_tls = parts.scheme.lower() == "https"
        self.host = parts.hostname
        self.port = port or (443 if self.is_tls else 80)
        self.prefix = parts.path.rstrip("/")
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.host_header = name if port is None else f"{name}:{port}"
        self.url = f"{parts.scheme.lower()}://{self.host_header}{self.prefix}"

    def tls(self) -> ssl.SSLContext:
        """What certificates are judged by; read once, for that takes its time."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    @property
    def is_unix(self) -> bool:
        return self.url is None

    def socket(self) -> str:
        """The path of the Unix socket."""
        return self._socket if self._socket is not None else default_socket()

    def token(self) -> Optional[str]:
        """The token as its source says it now; it may have been replaced. Only ever sent to a URL."""
        if self._token is not None:
            return _check_token(self._token, "the token")
        if self._token_file is not None:
            return _read_token(os.fspath(self._token_file), "the token file")
        token = _variable("GPUMGR_TOKEN")
        if token is not None:
            return _check_token(token, "GPUMGR_TOKEN")
        path = _variable("GPUMGR_TOKEN_FILE")
        return None if path is None else _read_token(path, "GPUMGR_TOKEN_FILE")

    def __str__(self) -> str:
        return self.url if self.url is not None else self.socket()


# --- why there is no connection -------------------------------------------------------------------------------------


def explain_unix(path: str, error: OSError) -> "NoDaemonError | PermissionDeniedError":
    """What a person can do about a socket that cannot be connected to."""
    if error.errno in _NO_MORE:
        return _no_more(path, error)
    if isinstance(error, PermissionError):
        return PermissionDeniedError(f"permission denied on the socket {path}; {_how_to_be_let_in(path)}")
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        why = f"no socket at {path}"
    elif isinstance(error, ConnectionRefusedError):
        why = f"nobody listens on the socket {path}"
    elif isinstance(error, (BlockingIOError, TimeoutError)):
        return NoDaemonError(f"gpumgrd does not take the connection to the socket {path}: it hangs, or is stopped")
    else:
        why = f"cannot connect to the socket {path}: {error.strerror or error}"
    return NoDaemonError(
        f"gpumgrd is not running ({why}); start it with: gpumgrd -c FILE; if it uses another socket, set GPUMGR_SOCKET"
    )


def explain_url(url: str, error: OSError) -> NoDaemonError:
    if error.errno in _NO_MORE:
        return _no_more(url, error)
    why = error.strerror or str(error) or type(error).__name__
    return NoDaemonError(
        f"gpumgrd does not answer (cannot connect to {url}: {why}); start it there with: gpumgrd -c FILE, "
        "and let it `listen' on that address"
    )


def _no_more(where: str, error: OSError) -> NoDaemonError:
    """It may well be there: we are the ones who cannot ask."""
    return NoDaemonError(
        f"cannot connect to {where}: {error.strerror}; this process, or the machine, may have no more (ulimit -n)",
        code="system",
    )


def _how_to_be_let_in(path: str) -> str:
    group = _group_of(path)
    if group is None or group == "root":
        return (
            "it belongs to the group root: run this as root, or set socket_group in the daemon's configuration to a "
            "group that you are in"
        )
    return f"join the group {group}: sudo usermod -aG {group} $USER, then log in again"


def _group_of(path: str) -> Optional[str]:
    """The group that owns the socket, or its folder where that is what stands in the way."""
    while True:
        try:
            number = os.stat(path).st_gid
            break
        except OSError:
            path = os.path.dirname(path)
            if path in ("", "/"):
                return None
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
