"""Files from a server of this machine: whole, cut short, resumed, and of another checksum."""

import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from fss.backbones import make_backbone, timm_weights, weights
from fss.data.prepare.common import fetch_zip
from fss.errors import UserError
from fss.fetching import fetch

BODY = bytes(range(256)) * 40
SHA256 = hashlib.sha256(BODY).hexdigest()


class Server(BaseHTTPRequestHandler):
    """Serves BODY, in parts where asked; /linked redirects with a checksum, /cut ends too early."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if self.path.startswith("/linked"):
            self.send_response(302)
            self.send_header("Location", "/file")
            self.send_header("X-Linked-Etag", f'"{server.told}"')
            return self.end_headers()
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.resumes else 0
        if first >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            return self.end_headers()
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(server.body) - first))
        self.end_headers()
        last = 1000 if self.path == "/cut" and not first else len(server.body)
        self.wfile.write(server.body[first:last])


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    made.asked, made.resumes, made.told, made.body = [], True, SHA256, BODY
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def url(server, path="/file"):
    return f"http://127.0.0.1:{server.server_port}{path}"


def test_a_file_is_fetched_once_and_it_says_where_it_lies(server, tmp_path, capsys):
    path = tmp_path / "new/w.pth"
    assert fetch(url(server), path, SHA256[:8]) == path and path.read_bytes() == BODY
    assert f"{path}: 0.0 MB from {url(server)}, sha256 {SHA256}" in capsys.readouterr().out
    assert fetch(url(server), path) == path and len(server.asked) == 1
    assert [p.name for p in path.parent.iterdir()] == ["w.pth"]


@pytest.mark.parametrize("resumes", [True, False])
def test_what_was_cut_short_is_gone_on_with(server, tmp_path, resumes):
    path, server.resumes = tmp_path / "w.pth", resumes
    with pytest.raises(UserError, match=r"/cut could not be fetched .*1000 of 10240.*w\.pth\.part holds"):
        fetch(url(server, "/cut"), path)
    assert not path.exists() and (tmp_path / "w.pth.part").stat().st_size == 1000
    fetch(url(server), path, SHA256)
    assert server.asked[-1][1] == "bytes=1000-" and path.read_bytes() == BODY


def test_what_arrived_whole_before_a_kill_is_not_fetched_again(server, tmp_path):
    (tmp_path / "w.pth.part").write_bytes(BODY)
    assert fetch(url(server), tmp_path / "w.pth", SHA256).read_bytes() == BODY
    (tmp_path / "v.pth.part").write_bytes(BODY + b"more")  # of another file
    assert fetch(url(server), tmp_path / "v.pth", SHA256).read_bytes() == BODY


def test_another_file_than_its_checksum_says_is_deleted(server, tmp_path):
    with pytest.raises(UserError, match=f"another file than wanted: sha256 {SHA256}, wanted 0123abcd"):
        fetch(url(server), tmp_path / "w.pth", "0123abcd")
    assert list(tmp_path.iterdir()) == []


def test_the_checksum_that_a_redirection_tells_is_held_against(server, tmp_path):
    assert fetch(url(server, "/linked"), tmp_path / "w").read_bytes() == BODY
    server.told = "0" * 64
    with pytest.raises(UserError, match="another file than wanted"):
        fetch(url(server, "/linked"), tmp_path / "v")
    (tmp_path / "u.part").write_bytes(BODY[:77])
    server.told = SHA256
    assert fetch(url(server, "/linked"), tmp_path / "u").read_bytes() == BODY
    assert server.asked[-1] == ("/file", "bytes=77-")  # what is wanted is asked of the place it leads to


def test_where_nobody_listens(tmp_path):
    with pytest.raises(UserError, match=r"could not be fetched \(.*refused"):
        fetch("http://127.0.0.1:9/w.pth", tmp_path / "w.pth")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_timm_go_to_their_folder_and_are_found_there(server, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    net = timm.create_model("resnet18")
    pytest.importorskip("safetensors.torch").save_file(net.state_dict(), tmp_path / "published")
    server.body = (tmp_path / "published").read_bytes()
    server.told = hashlib.sha256(server.body).hexdigest()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timm_weights, "_downloaded", lambda name: [])
    monkeypatch.setenv("HF_ENDPOINT", url(server, "/linked"))
    for how in ("download", "auto", "download"):
        state = make_backbone("timm:resnet18.a1_in1k", how, {}).network.state_dict()
        assert all(torch.equal(net.state_dict()[k], v) for k, v in state.items())
    assert Path("initmodel/resnet18.a1_in1k.safetensors").is_file()
    assert [p for p, _ in server.asked] == [
        "/linked/timm/resnet18.a1_in1k/resolve/main/model.safetensors", "/file",
    ]  # fmt: skip


def test_torchvisions_names_hold_their_checksums(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    name = f"resnet18-{SHA256[:8]}.pth"
    assert weights.downloaded(url(server, f"/{name}"), name) == Path("initmodel") / name
    with pytest.raises(UserError, match=r"another file than wanted.*put it there: initmodel/resnet18-0"):
        weights.downloaded(url(server, "/resnet18-01234567.pth"), "resnet18-01234567.pth")
    earlier = tmp_path / "torch/hub/checkpoints/resnet18-00000000.pth"
    earlier.parent.mkdir(parents=True)
    earlier.touch()
    assert weights.downloaded("http://127.0.0.1:9/resnet18-00000000.pth", earlier.name) == earlier


def test_an_archive_is_resumed_and_unpacked(server, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("part/a.txt", "here" * 500)
    server.body = packed.getvalue()
    (tmp_path / "set.zip.part").write_bytes(server.body[:50])
    fetch_zip(url(server, "/set.zip"), tmp_path, "part")
    assert (tmp_path / "part/a.txt").read_text() == "here" * 500 and server.asked[0][1] == "bytes=50-"
    assert not list(tmp_path.glob("*.part"))
