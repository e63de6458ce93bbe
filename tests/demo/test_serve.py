"""The verb before there is a page: ports, GPUs, gradio, and a clean start and end."""

import builtins
import os
import re
import signal
import socket
import threading

import pytest

from fss.cli import main
from fss.demo import serve
from fss.errors import UserError


def test_a_port_that_is_taken_is_said(capsys):
    with socket.socket() as other:
        other.bind((serve.HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["demo", "--port", str(port), "--no-browser"]) == 2
    assert re.search(rf"port {port} .*; name another with --port N", capsys.readouterr().err)
    assert serve.free_port(port) == port
    assert 0 < serve.free_port(0) <= 65535


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "70000"], "--port 70000; allowed: 1 to 65535"),
        (["cat.jpg"], "cat.jpg is not key=value"),
        (["--gpus", "0,1"], "--gpus 0,1: the page uses one"),
        (["--port", "0", "--checkpoint", "none.pt"], "no checkpoint none.pt"),
        (["--port", "0", "device=tpu"], "device=tpu: allowed are"),
        (["--port", "0", "backbone.type=resnet101"], "no weights for ResNet-101"),
    ],
)
def test_mistakes(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--no-browser", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_gradio_it_says_what_to_install(monkeypatch, tmp_path):
    real = builtins.__import__

    def blocked(name, *more, **others):
        if name.split(".")[0] == "gradio":
            raise ImportError("No module named 'gradio'")
        return real(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", blocked)
    before = dict(os.environ)
    message = "pip install 'gradio>=6,<7'"
    with pytest.raises(UserError, match=message), serve.serving(None, tmp_path, 0, ["device=cpu"]):
        pass
    assert dict(os.environ) == before


def test_environment_comes_back():
    before = dict(os.environ)
    with serve._environment({"GRADIO_ANALYTICS_ENABLED": "False", "no_proxy": "x"}):
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
    assert dict(os.environ) == before


def test_its_own_server_is_not_asked_through_a_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "intern.example")
    assert serve._no_proxy()["no_proxy"] == "intern.example,127.0.0.1,localhost"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_it_quietly(number):
    before = signal.getsignal(number)
    killer = threading.Timer(0.3, os.kill, (os.getpid(), number))
    killer.start()
    serve._wait()
    killer.join()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:7860", "http://127.0.0.1:7860", 200),
        ("localhost:8888", "http://localhost:8888", 200),  # a port that ssh forwards here
        ("127.0.0.1:7860", "", 200),
        ("127.0.0.1:7860", "http://127.0.0.1:1", 403),
        ("127.0.0.1:7860", "http://localhost:7860", 403),
        ("127.0.0.1:7860", "http://127.0.0.1", 403),
        ("127.0.0.1:7860", "http://evil.example", 403),
        ("127.0.0.1:7860", "http://127.0.0.1:7860.evil.example", 403),
        ("127.0.0.1:7860", "null", 403),
    ],
)
def test_other_pages_in_the_browser_are_refused(host, origin, status):
    answer = ask({"host": host, **({"origin": origin} if origin else {})})
    assert answer.status_code == status


@pytest.mark.parametrize("origin", ["http://127.0.0.1:7860", "http://evil.example"])
def test_no_page_may_frame_it(origin):
    headers = ask({"host": "127.0.0.1:7860", "origin": origin}).headers
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"] == "frame-ancestors 'none'"


def ask(headers):
    """The answer to a request for a page that always answers "there"."""
    testclient = pytest.importorskip("starlette.testclient", reason="comes with gradio")
    from starlette.responses import PlainTextResponse

    app = serve._own_pages_only().cls(PlainTextResponse("there"))
    return testclient.TestClient(app).post("/", headers=headers)
