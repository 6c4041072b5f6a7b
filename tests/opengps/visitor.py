"""A visitor of a site in this process; the test decides when jobs are computed."""

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from starlette.testclient import TestClient

from opengps.analyses.computing import analyse_next
from opengps.app import create_app
from opengps.settings import Settings
from opengps.site import Site
from opengps.worker import run_chunk

API = "/api/v1"
SEQUENCE = "MKVLAAGIVGLCAKWDEYHRPQNSTFMKVLAAGIVGLCAKWDEYHR"
ADDRESS = "203.0.113.7"


def fasta(count, prefix="p"):
    letters = "ACDEFGHIKLMNPQRSTVWY"
    rows = (
        f">{prefix}{i}\nM{''.join(letters[(i * 7 + k * k + i * k) % 20] for k in range(40))}\n"
        for i in range(count)
    )
    return "".join(rows)


@dataclass
class Visitor:
    """A client and the site it visits."""

    client: TestClient
    site: Site

    def send(self, proteins=f">one\n{SEQUENCE}\n", **fields):
        """Send proteins to the tiny model; return the response."""
        return self.client.post(f"{API}/predictions", json={"model": "tiny", "proteins": proteins, **fields})

    def predict(self, proteins=f">one\n{SEQUENCE}\n", **fields):
        """Send proteins and compute them; return the job's id."""
        answer = self.send(proteins, **fields)
        assert answer.status_code == 202, answer.text
        self.work()
        return answer.json()["id"]

    def work(self):
        """Compute chunks until no job waits."""
        while self.chunk():
            pass

    def chunk(self):
        """Compute one chunk; return whether there was one."""
        return run_chunk(self.site)

    def analyse(self):
        """Compute explanations and comparisons until none waits."""
        while analyse_next(self.site):
            pass

    def job_folder(self, job_id):
        return self.site.settings.data / "jobs" / job_id

    def submission_folder(self, submission_id):
        return self.site.settings.data / "submissions" / submission_id

    def status(self, job_id):
        return self.client.get(f"{API}/predictions/{job_id}").json()

    def rows(self, job_id, **query):
        return self.client.get(f"{API}/predictions/{job_id}/results", params=query).json()

    def page(self, address, status=200, **query):
        answer = self.client.get(address, params=query or None)
        assert answer.status_code == status, answer.text
        return answer.text

    def form(self, fields, files=None, status=303):
        """Send the form of the page; return the response."""
        answer = self.client.post("/predictions", data=fields, files=files, follow_redirects=False)
        assert answer.status_code == status, answer.text
        return answer


def visit(data: Path, **settings) -> Visitor:
    """Open a site in a folder and visit it."""
    app = create_app(Settings(data=data, **settings))
    return Visitor(TestClient(app, client=(ADDRESS, 50000), raise_server_exceptions=False), app.state.site)


def error_of(answer, status):
    """Return the only error of a response."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"errors"}
    (error,) = answer.json()["errors"]
    assert set(error) == {"code", "message", "field"}
    assert error["message"].endswith(".")
    return error


class Page(HTMLParser):
    """The elements of a page."""

    def __init__(self, text):
        super().__init__()
        self.elements, self._text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def text_of(page):
    """Return the visible text of a page, roughly."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def jsonl(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def stored_images(visitor, job_id):
    """Return the names of a job's image files."""
    return visitor.site.storage.names(f"jobs/{job_id}/images")
