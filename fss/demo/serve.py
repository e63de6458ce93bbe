"""Starting the page on this machine, and leaving nothing behind."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from fss.demo.acts import Acts
from fss.demo.look import CSS, theme
from fss.demo.models import NONE, Models
from fss.demo.page import Page
from fss.errors import UserError
from fss.photos.predictor import Predictor
from fss.runs import distributed

HOST = "127.0.0.1"  # the one address, because the page asks nobody for a password
_QUIET = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
}


def run_demo(
    checkpoint: Path | None, output: Path, port: int, settings: Sequence[str], browser: bool = True
) -> None:
    """Serve the page until Ctrl-C or SIGTERM.

    Raises:
        UserError: gradio is missing, the port is taken, or the model to start with cannot be used.
    """
    with serving(checkpoint, output, port, settings) as url:
        print(f"{url}\n(on this machine only; Ctrl-C ends it)", flush=True)
        if browser and _has_screen():
            webbrowser.open(url)
        _wait()


@contextmanager
def serving(checkpoint: Path | None, output: Path, port: int, settings: Sequence[str]) -> Iterator[str]:
    """The page's address while it is served; afterwards no file of it is left.

    Args:
        port: 0 for any that is free.
        settings: of `Predictor`, `key=value`.

    Raises:
        UserError: as of `run_demo`.
    """
    port = free_port(port)
    device = distributed.start(next((s[7:] for s in settings if s.startswith("device=")), "auto"))
    # Settings of the network are for the choice without a checkpoint: checkpoints have their own.
    own = [s for s in settings if not s.startswith(("head.", "neck.", "backbone."))]
    models = Models(lambda path: Predictor(path, settings=own if path else settings))
    models.load(str(checkpoint or NONE))  # its errors are told now, and the first photo need not wait
    folder = Path(tempfile.mkdtemp(prefix="fss-demo-"))
    try:
        with _environment({**_QUIET, "GRADIO_TEMP_DIR": str(folder), **_no_proxy()}):
            gr = _gradio()
            page = Page(gr, Acts(gr, models, output, checkpoint, folder, device))
            try:
                yield _launch(gr, page.blocks, port)
            finally:
                page.blocks.close(verbose=False)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _launch(gr: ModuleType, blocks: Any, port: int) -> str:
    try:
        _, url, _ = blocks.launch(
            server_name=HOST, server_port=port, share=False, inbrowser=False, prevent_thread_lock=True,
            quiet=True, show_error=False, footer_links=[], run_history=False, ssr_mode=False, pwa=False,
            enable_monitoring=False, theme=theme(gr), css=CSS, allowed_paths=[],
            app_kwargs={"middleware": [_own_names_only(), _own_pages_only()]}, max_file_size="500mb",
        )  # fmt: skip
    except OSError as error:  # another program took the port meanwhile
        raise UserError(f"port {port} cannot be opened ({error}); name another with --port N") from None
    return str(url)


def _own_names_only() -> Any:
    """Refuse requests under another host name: a foreign page whose name was pointed at this machine."""
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    return Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])


def _own_pages_only() -> Any:
    """Refuse what a page from elsewhere, open in the same browser, sends here, and to be shown inside one.

    Its own page is the one whose origin is the address that the request went to, with the port: another
    program of this machine may serve pages on another port. Under a forwarded port both have that one.
    """
    from starlette.datastructures import MutableHeaders
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
    from starlette.websockets import WebSocketClose

    class OwnPages:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def send_unframed(message: Any) -> None:
                if message["type"] == "http.response.start":
                    MutableHeaders(scope=message).update(_UNFRAMED)
                await send(message)

            answer = self.app
            if scope["type"] in ("http", "websocket") and not _is_own(dict(scope["headers"])):
                http = scope["type"] == "http"
                answer = PlainTextResponse("from another page", 403) if http else WebSocketClose()
            await answer(scope, receive, send_unframed)

    return Middleware(OwnPages)


_UNFRAMED = {"X-Frame-Options": "DENY", "Content-Security-Policy": "frame-ancestors 'none'"}


def _is_own(headers: dict[bytes, bytes]) -> bool:
    """Whether a request comes from no page, such as a typed address, or from a page of where it goes to."""
    origin, host = (headers.get(name, b"").decode("latin-1") for name in (b"origin", b"host"))
    return not origin or origin in (f"http://{host}", f"https://{host}")


def free_port(port: int) -> int:
    """`port`, or any free one for 0.

    Raises:
        UserError: it is taken, not allowed, or no port at all.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}; allowed: 1 to 65535, or 0 for any that is free")
    with socket.socket() as probe:
        if os.name == "posix":  # other systems would share the port with its owner
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            why = error.strerror or error
            raise UserError(
                f"port {port} of {HOST} cannot be opened ({why}); name another with --port N, or 0 for any"
            ) from None
        return int(probe.getsockname()[1])


def _gradio() -> ModuleType:
    try:
        import gradio
    except ImportError as error:
        raise UserError(f"the page needs gradio 6 ({error}): pip install 'gradio>=6,<7'") from None
    if int(gradio.__version__.split(".")[0]) < 6:
        raise UserError(f"the page needs gradio 6, this is {gradio.__version__}: pip install 'gradio>=6'")
    return gradio


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Environment variables for as long as the page lives."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _no_proxy() -> dict[str, str]:
    """Gradio asks its own server whether it is up: not through a proxy."""
    return {
        key: ",".join(filter(None, (os.environ.get(key), HOST, "localhost")))
        for key in ("no_proxy", "NO_PROXY")
    }


def _has_screen() -> bool:
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _wait() -> None:
    """Wait until Ctrl-C or SIGTERM."""
    ended = threading.Event()
    before = {s: signal.signal(s, lambda *_: ended.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        while not ended.wait(1):  # the wait is in steps, because Windows delivers no signal while waiting
            pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
