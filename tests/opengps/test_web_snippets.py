"""The calls shown below each form are run as shown."""

import html
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from urllib.request import Request, urlopen

import pytest
from contributor import batch, field, packed, tiff
from visitor import API, SEQUENCE, fasta

from browsing import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed"),
]
SNIPPET = re.compile(r"<figcaption>(curl|Python).*?<code>(.*?)</code>", re.S)
SEEDS = count(100)


class UniProt(BaseHTTPRequestHandler):
    """Answers as UniProt does; every protein has the same sequence."""

    def do_GET(self):
        name = re.sub(r"\.fasta.*|.*%3A%22|%22.*", "", self.path.rpartition("/")[2])
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f">sp|P06748|X_HUMAN A protein OX=9606 GN={name} PE=1 SV=1\n{SEQUENCE}\n".encode())

    def log_message(self, *words):
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    server = ThreadingHTTPServer(("127.0.0.1", 0), UniProt)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = tmp_path_factory.mktemp("snippets")
    uniprot = f"http://127.0.0.1:{server.server_port}"
    with serving(folder / "data", folder / "models", lookups="true", uniprot_url=uniprot) as served:
        yield served.address
    server.shutdown()


@pytest.fixture
def desk(tmp_path):
    """A folder with the files that the calls name; its images were never submitted before."""
    seed = next(SEEDS)
    (tmp_path / "proteins.fasta").write_text(fasta(2))
    (tmp_path / "protein.fasta").write_text(fasta(1))
    nucleus, protein = field(seed)
    for name, pixels in (("nucleus", nucleus), ("dapi", nucleus), ("gfp", protein)):
        (tmp_path / f"{name}.tif").write_bytes(tiff(pixels))
    files = {name.replace("n0", "n"): content for name, content in batch(1, folder="").items()}
    table = files["table.csv"].replace(b"n0.tif", b"n.tif").replace(b"p0.tif", b"p.tif")
    images = {"table.csv": table, "n.tif": tiff(nucleus), "p.tif": tiff(protein)}
    (tmp_path / "images.zip").write_bytes(packed(images))
    (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
    return tmp_path


def ask(address, **options):
    with urlopen(Request(address, **options), timeout=30) as answer:
        return answer.headers, answer.read().decode()


@pytest.fixture
def job(site):
    """Address of a job whose results are there."""
    headers, _ = ask(
        f"{site}{API}/predictions",
        data=b'{"proteins": ">one\\n%s\\n"}' % SEQUENCE.encode(),
        headers={"Content-Type": "application/json"},
    )
    path = headers["Location"].removeprefix(API)
    while '"finished"' not in ask(f"{site}{API}{path}")[1].partition('"model"')[0]:
        time.sleep(0.2)
    return path


def snippets(site, path):
    found = [(kind, html.unescape(code)) for kind, code in SNIPPET.findall(ask(site + path)[1])]
    assert found, path
    return found


def run(command, desk, **options):
    done = subprocess.run(
        command,
        cwd=desk,
        env={**os.environ, "CURL_HOME": str(desk)},
        capture_output=True,
        text=True,
        timeout=120,
        **options,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def run_curl(code, desk):
    """Run the commands in turn; ID stands for the id in the response before."""
    found, message = "", []
    for command in re.split(r"(?<!\\)\n", code):
        if not command.startswith("#"):
            message.append(run(command.replace("/ID", f"/{found}"), desk, shell=True))
            location = re.search(r"^location: .*/(.+?)\r?$", message[-1], re.M | re.I)
            found = location[1] if location else found
    return message


@pytest.mark.parametrize("path", ["/predict", "/submit", "/submit/batch", "/api"])
@pytest.mark.parametrize("kind", ["curl", "Python"])
def test_the_calls_of_a_form_work(site, desk, path, kind):
    for message, code in snippets(site, path):
        if message != kind:
            continue
        if kind == "curl":
            assert "location:" in run_curl(code, desk)[0].lower()
        else:
            assert run([sys.executable, "-c", code], desk).strip()


def test_the_calls_of_results_work(site, desk, job):
    for path in (f"{job}/results/0", job):
        # The last of them deletes the job.
        for kind, code in reversed(snippets(site, path)):
            message = run_curl(code, desk) if kind == "curl" else run([sys.executable, "-c", code], desk)
            assert message
    assert list(desk.glob("opengps-*-results.zip")) and (desk / "image.ome.tif").exists()
    with pytest.raises(OSError, match="404"):
        ask(site + job)
