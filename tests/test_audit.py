"""The audit of what is installed: pip-audit itself asks a service that answers as OSV does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import audit

LOCK = f"""\
packaging==24.0 --hash=sha256:{"1" * 64}
setuptools==69.5.1 --hash=sha256:{"2" * 64}
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    (tmp_path / "image.lock").write_text(LOCK)
    return tmp_path / "image.lock"


@pytest.fixture
def service() -> Iterator[str]:
    """Start a service that knows of the vulnerabilities in `KNOWN`."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps({"vulns": KNOWN.get(asked["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def vulnerability(name: str, package: str, mended: str, *aliases: str) -> dict[str, object]:
    ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": mended}]}]
    affected = [{"package": {"name": package, "ecosystem": "PyPI"}, "ranges": ranges}]
    return {"id": name, "aliases": aliases, "summary": "", "published": "2025-01-01T00:00:00Z", "affected": affected}


# One that is accepted, known to OSV by another name.
KNOWN = {"setuptools": [vulnerability("PYSEC-2025-49", "setuptools", "78.1.1", "CVE-2025-47273")]}


def run(lock: Path, service: str, *more: str) -> int:
    return audit.main(["--lock", str(lock), "--folder", str(lock.parent / "sbom"), "--service", service, *more])


def test_what_is_known_fails_it_unless_it_is_accepted_with_a_reason(lock, service, capsys, monkeypatch):
    assert run(lock, service) == 1
    assert "known vulnerabilities: 1, not accepted: 1" in capsys.readouterr().out
    monkeypatch.setitem(audit.ACCEPTED, "CVE-2025-47273", "nobody uses package_index")
    assert run(lock, service) == 0
    known = "setuptools 69.5.1: CVE-2025-47273, PYSEC-2025-49; mended in 78.1.1; accepted: nobody uses package_index"
    assert known in capsys.readouterr().out
    monkeypatch.setitem(KNOWN, "packaging", [vulnerability("GHSA-xxxx", "packaging", "24.1")])
    assert run(lock, service) == 1
    printed = capsys.readouterr().out
    assert "packaging 24.0: GHSA-xxxx; mended in 24.1\n" in printed
    assert "known vulnerabilities: 2, not accepted: 1" in printed


def test_no_answer_is_never_taken_for_no_vulnerability(lock, capsys):
    nobody = "http://127.0.0.1:9"  # the port of `discard`
    assert run(lock, nobody) == 1
    assert run(lock, nobody, "--may-be-offline") == 0
    assert capsys.readouterr().out.count("NOT ASKED") == 2


def test_a_bill_names_every_package_of_its_lock_with_version_and_hash(lock):
    bill = json.loads(audit.write_bill(lock, lock.parent / "sbom").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    assert {part["purl"] for part in bill["components"]} == {"pkg:pypi/packaging@24.0", "pkg:pypi/setuptools@69.5.1"}
    assert bill["components"][0]["externalReferences"][0]["hashes"] == [{"alg": "SHA-256", "content": "1" * 64}]
