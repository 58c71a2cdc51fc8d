"""Runs in an object store on loopback: plan, pictures, tar files, manifest and parts, with a store that fails."""

import http.client
import http.server
import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from handful import scale
from handful.errors import HandfulError, OutputError
from handful.scale.places import Patience, Place, is_final

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def store():
    """The address of an object store on loopback, with a bucket."""
    from moto.server import ThreadedMotoServer

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        server = ThreadedMotoServer("127.0.0.1", 0)
        server.start()
        try:
            host, port = server.get_host_and_port()
            address = f"http://{host}:{port}"
            root, _ = pa.fs.FileSystem.from_uri(f"s3://archive/?endpoint_override={address}&allow_bucket_creation=true")
            root.create_dir("archive")
            yield address
        finally:
            server.stop()


@pytest.fixture
def at(store, request):
    """The address of a name in the store, in a folder of the test's own."""
    own = re.sub(r"\W+", "-", request.node.name)

    def address(name, *, server=store):
        return f"s3://archive/{own}/{name}?endpoint_override={server}"

    return address


@pytest.fixture
def uploaded(at, archive_folder):
    """The pictures of the archive in the store."""
    for path in archive_folder.rglob("*.png"):
        Place.at(at(f"pictures/{path.relative_to(archive_folder)}")).put(path.read_bytes())
    Place.at(at("pictures/notes.txt")).put(b"by hand")
    return at("pictures")


class Failing(http.server.BaseHTTPRequestHandler):
    """Stands in front of a store and answers some requests with 503, or all while the store is away."""

    protocol_version = "HTTP/1.1"
    target, share, away, refusing = "", 0.0, False, False
    failed = 0

    def _pass_on(self):
        body = self._body()
        if self.server.away or self.server.random.random() < self.server.share:
            self.server.failed += 1
            self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if self.server.refusing:
            self._refuse()
            return
        connection = http.client.HTTPConnection(self.server.target)
        left_out = ("expect", "transfer-encoding", "content-length")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in left_out}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else len(content)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def _refuse(self):
        """Answer as a store does without valid credentials."""
        content = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.server.failed += 1
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815 - the names that http.server looks for

    def log_message(self, *_):
        pass


@pytest.fixture
def failing(store):
    """A server in front of the store whose `share` of requests fails, all while `away`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    server.daemon_threads = True
    server.target, server.share, server.away, server.failed = store.removeprefix("http://"), 0.0, False, 0
    server.refusing = False
    server.random = random.Random(0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    server.address = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def answers(out):
    """The rows of a run without the columns that name the place of the pictures."""
    table = scale.table(out).drop_columns(["version", "reason"]).to_pylist()
    for row in table:
        row["path"] = row["path"].replace("#", "/").rpartition("/")[2]
    return sorted(({**row, "shard": 0, "row": 0} for row in table), key=lambda row: row["path"])


def scored_all(out, **options):
    worker = scale.Worker(out, scale.Options(**options))
    return [worker(shard) for shard in scale.todo(out)]


def test_a_run_in_a_store_has_the_rows_of_a_run_in_a_folder(at, uploaded, saved_with_graph, scored):
    inspector = at("inspectors/part.handful")
    Place.at(inspector).put(saved_with_graph.read_bytes())
    found = scale.plan(at("out"), pictures=[uploaded], inspector=inspector, shard=5)
    assert (found.pictures, found.left_out_count) == (23, 1)
    summaries = list(scale.score(at("out"), workers=2))
    assert sum(summary.pictures for summary in summaries) == 23
    local, _ = scored()
    assert answers(at("out")) == answers(local)
    assert all(row["path"].startswith("s3://archive/") for row in scale.table(at("out"), columns=["path"]).to_pylist())
    assert scale.todo(at("out")) == []
    assert list(scale.score(at("out"))) == []
    before = scale.table(at("out"))
    assert scale.compact(at("out")) == 1
    assert scale.table(at("out")).equals(before)
    assert Place.at(at("out/compacted/00000.parquet")).is_file()


def test_tar_files_and_a_manifest_of_a_store(at, archive_folder, saved_with_graph, scored):
    buffer = io.BytesIO()
    files = sorted(archive_folder.rglob("*.png"))
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in files[:12]:
            archive.add(path, path.name)
    Place.at(at("mixed/first.tar")).put(buffer.getvalue())
    for path in files[12:]:
        Place.at(at(f"mixed/rest/{path.name}")).put(path.read_bytes())
    root = Place.at(at("mixed")).uri
    names = [f"first.tar#{path.name}" for path in files[:12]] + [f"{root}/rest/{path.name}" for path in files[12:]]
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table({"path": names, "product": ["part"] * 23}), sink)
    Place.at(at("inspectors/part.handful")).put(saved_with_graph.read_bytes())
    Place.at(at("mixed/all.parquet")).put(sink.getvalue().to_pybytes())
    scale.plan(at("out"), manifest=at("mixed/all.parquet"), inspectors=at("inspectors"), shard=7)
    assert not [summary.failed for summary in scored_all(at("out")) if summary.failed]
    local, _ = scored()
    assert answers(at("out")) == answers(local)


def test_a_store_that_fails_now_and_then_makes_no_error(at, uploaded, failing, saved_with_graph, scored):
    failing.share = 0.05
    out, pictures = at("out", server=failing.address), at("pictures", server=failing.address)
    scale.plan(out, pictures=[pictures], inspector=str(saved_with_graph), shard=5)
    assert not [summary.failed for summary in scored_all(out, pauses=(0.01, 0.01, 0.01, 0.01)) if summary.failed]
    assert failing.failed > 3
    local, _ = scored()
    failing.share = 0.0
    assert answers(out) == answers(local)


def test_a_store_that_comes_back_makes_no_error(at, uploaded, failing, saved_with_graph, scored):
    out, pictures = at("out", server=failing.address), at("pictures", server=failing.address)
    scale.plan(out, pictures=[pictures], inspector=str(saved_with_graph), shard=8)
    failing.away = True
    back = threading.Timer(8, lambda: setattr(failing, "away", False))
    back.start()
    worker = scale.Worker(at("out"))  # its pictures' store is away, its own is there
    summary = worker(0)
    back.join()
    assert summary.failed is None
    assert summary.errors == {}
    assert failing.failed > 3


def test_a_store_that_is_gone_ends_the_run(at, uploaded, failing, saved_with_graph, monkeypatch):
    out, pictures = at("out"), at("pictures", server=failing.address)
    scale.plan(out, pictures=[pictures], inspector=str(saved_with_graph), shard=23)
    failing.away = True
    options = scale.Options(pauses=())
    monkeypatch.setattr("handful.scale.places.PAUSES", (0.01,))
    with pytest.raises(
        OutputError, match=r"10 pictures in a row that it did not give.* 0 of 1 shards are done, and stay"
    ):
        list(scale.score(out, workers=1, options=options))
    assert scale.table(out).num_rows == 0
    failing.away = False
    assert sum(summary.pictures for summary in scale.score(out, workers=1, options=options)) == 23


def test_killed_runs_in_a_store_lose_no_finished_shard(at, store, saved_with_graph, stubs, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(100):
        (pictures / f"{number:03}.png").write_bytes(str(number).encode())
    for name in ("whole", "killed"):
        scale.plan(at(name), pictures=[str(pictures)], inspector=str(saved_with_graph), shard=10)
    scored_all(at("whole"), opening=stubs.stub)
    script = tmp_path / "job.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "if __name__ == '__main__':\n"
        "    import _scale_stub\n    from handful import scale\n"
        "    worker = scale.Worker(sys.argv[1], scale.Options(opening=_scale_stub.slow))\n"
        "    for shard in scale.todo(sys.argv[1]):\n"
        "        worker(shard)\n        print(shard, flush=True)\n"
    )
    for _ in range(3):
        job = subprocess.Popen([sys.executable, script, at("killed")], stdout=subprocess.PIPE)
        job.stdout.readline()
        time.sleep(0.03)
        os.kill(job.pid, signal.SIGKILL)
        job.communicate()
    scored_all(at("killed"), opening=stubs.stub)
    assert scale.table(at("killed")).equals(scale.table(at("whole")))
    for shard in range(10):
        name = f"parts/0/part-{shard:07d}.parquet"
        assert Place.at(at(f"killed/{name}")).read() == Place.at(at(f"whole/{name}")).read()


def test_ray_s_actors_read_and_write_a_store(at, uploaded, saved_with_graph, scored):
    scale.plan(at("out"), pictures=[uploaded], inspector=str(saved_with_graph), shard=8)
    command = [sys.executable, "-m", "handful", "score", "--out", at("out"), "--engine", "ray", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    local, _ = scored()
    assert answers(at("out")) == answers(local)


def test_a_store_that_refuses_the_credentials_is_not_asked_again(at, uploaded, failing, saved_with_graph, tmp_path):
    failing.refusing = True
    pictures = at("pictures", server=failing.address)
    began = time.monotonic()
    with pytest.raises(HandfulError, match=r"s3://archive/.*/pictures must be .* got: .*ACCESS_DENIED"):
        scale.plan(str(tmp_path / "out"), pictures=[pictures], inspector=str(saved_with_graph))
    failing.refusing = False
    scale.plan(at("out"), pictures=[pictures], inspector=str(saved_with_graph), shard=23)
    failing.refusing = True
    summary = scale.Worker(at("out"))(0)
    assert "23 of 23 that are not" in summary.failed and "ACCESS_DENIED" in summary.failed
    assert time.monotonic() - began < 20  # no pause, and no table of 23 errors


def test_a_bucket_that_does_not_exist_is_refused(store, saved_with_graph, tmp_path):
    with pytest.raises(HandfulError, match=r"must exist, got s3://nobody-s-bucket/x"):
        scale.plan(
            str(tmp_path / "out"),
            pictures=[f"s3://nobody-s-bucket/x?endpoint_override={store}"],
            inspector=str(saved_with_graph),
        )


def test_a_store_that_nobody_serves_is_refused(saved_with_graph, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr("handful.scale.places.PAUSES", ())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(HandfulError, match=r"s3://archive/x must be .* that can be read, got: .*"):
        scale.plan(
            str(tmp_path / "out"),
            pictures=[f"s3://archive/x?endpoint_override=http://127.0.0.1:{port}"],
            inspector=str(saved_with_graph),
        )


def test_requests_wait_for_a_store_once():
    patience, tries = Patience((0.0, 0.0)), []

    def fail():
        tries.append(1)
        raise OSError("away")

    for expected in (3, 4, 5):  # after the first has waited in vain, one try each
        with pytest.raises(OSError, match="away"):
            patience(fail)
        assert len(tries) == expected
    assert patience(lambda: 7) == 7
    with pytest.raises(OSError, match="away"):
        patience(fail)
    assert len(tries) == 8


def test_a_missing_file_is_not_asked_for_again():
    tries = []

    def fail():
        tries.append(1)
        raise FileNotFoundError(2, "no such file")

    with pytest.raises(FileNotFoundError):
        Patience((1.0, 1.0))(fail)
    assert tries == [1]
    assert is_final(FileNotFoundError(2, "no such file"))
    assert not is_final(OSError("AWS Error SLOW_DOWN"))
    assert not is_final(OSError("When reading key 'credentials/ACCESS_DENIED.png': AWS Error SLOW_DOWN"))
