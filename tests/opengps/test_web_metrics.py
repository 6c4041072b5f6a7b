import re

from contributor import submit
from visitor import fasta

from deepgps.cli.app import run

ON_SERVICES_TOO = True

LINE = re.compile(r'(# (HELP|TYPE) \w+ .+|\w+(\{\w+="\w+"\})? [0-9.]+)')


def metrics(visitor):
    answer = visitor.client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    assert all(LINE.fullmatch(line) for line in lines)
    return {name: float(value) for name, value in (x.rsplit(" ", 1) for x in lines if x[0] != "#")}


def test_jobs_are_counted_by_status(visitor):
    assert set(metrics(visitor).values()) == {0.0}
    visitor.predict(fasta(2))
    visitor.send(fasta(40))
    visitor.chunk()
    found = metrics(visitor)
    assert (found['opengps_jobs{status="finished"}'], found['opengps_jobs{status="running"}']) == (1, 1)
    assert found["opengps_longest_wait_seconds"] > 0


def test_submitted_images_are_counted_by_status(visitor):
    submit(visitor)
    assert metrics(visitor)['opengps_submitted_images{status="pending"}'] == 1
    run(["submissions", "accept", "1", "--data", str(visitor.site.settings.data)])
    assert metrics(visitor)['opengps_submitted_images{status="accepted"}'] == 1
