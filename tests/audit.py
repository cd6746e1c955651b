"""What is installed: a bill of materials for each lock, and the vulnerabilities that are known of it.

`make audit` asks OSV and fails if it does not answer; `make check` goes on then, and says so.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, XsUri
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from pip_requirements_parser import RequirementsFile

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
OSV = "https://api.osv.dev/v1/query"
# What is known and stays, by any of its names, and why. Looked at again whenever the lock is resolved again.
ACCEPTED: dict[str, str] = {}


class NotAnswered(Exception):
    """The service did not say what is known; the message is what pip-audit said of it."""


def locks() -> list[Path]:
    """Return the lock of the whole and those of the images."""
    return [
        ROOT / "requirements.lock",
        ROOT / "federated" / "requirements.lock",
        *sorted((ROOT / "docker").glob("*.lock")),
    ]


def write_bill(lock: Path, folder: Path) -> Path:
    """Write what a lock installs as a CycloneDX document, the same for the same lock, and return its file."""
    bill = Bom()
    bill.metadata.component = Component(name="meander", type=ComponentType.APPLICATION)
    for wanted in RequirementsFile.from_file(str(lock)).requirements:
        version = wanted.get_pinned_version
        package = PackageURL("pypi", name=wanted.name, version=version)
        # Whichever mirror they come from, these are the files.
        files = ExternalReference(
            type=ExternalReferenceType.DISTRIBUTION,
            url=XsUri(package.to_string()),
            hashes=[
                HashType(alg=HashAlgorithm.SHA_256, content=each.removeprefix("sha256:"))
                for each in wanted.hash_options
            ],
        )
        part = Component(name=wanted.name, version=version, purl=package, external_references=[files])
        bill.components.add(part)
        bill.register_dependency(bill.metadata.component, [part])
    written = json.loads(JsonV1Dot6(bill).output_as_string())
    del written["serialNumber"], written["metadata"]["timestamp"]  # new each time
    file = folder / f"{lock.stem}.cdx.json"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(written, indent=1))
    return file


def known(lock: Path, service: str) -> Iterator[tuple[str, set[str], str]]:
    """Ask what is known of the packages of a lock.

    Yields:
        package and version, all names of a vulnerability, and the versions without it.

    Raises:
        NotAnswered: the service could not be asked, or not about each package.
    """
    command = [str(BIN / "pip-audit"), "--requirement", str(lock), "--disable-pip", "--require-hashes", "--format=json"]
    asked = subprocess.run(
        [*command, "--progress-spinner=off", "--vulnerability-service=osv", f"--osv-url={service}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # pip-audit ends with 1 both when it has found something and when it could not ask; only an answer is printed.
    if not asked.stdout:
        raise NotAnswered(asked.stderr.strip().splitlines()[-1])
    for package in json.loads(asked.stdout)["dependencies"]:
        if "skip_reason" in package:
            raise NotAnswered(package["skip_reason"])
        for found in package["vulns"]:
            names = {found["id"], *found["aliases"]}
            yield f"{package['name']} {package['version']}", names, ", ".join(found["fix_versions"]) or "none yet"


def main(argv: list[str] | None = None) -> int:
    """Write the bills, ask, and return an exit status: 1 if something is known that is not accepted."""
    parser = argparse.ArgumentParser(prog="tests.audit", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "sbom", help="of bills (default: build/sbom)")
    parser.add_argument("--lock", type=Path, action="append", help="default: the whole and its parts")
    parser.add_argument("--service", default=OSV, help="that answers as OSV does (default: OSV)")
    parser.add_argument("--may-be-offline", action="store_true", help="without an answer say so, and do not fail")
    args = parser.parse_args(argv)
    chosen = args.lock or locks()
    for lock in chosen:
        write_bill(lock, args.folder)
    say(f"bills of materials: {len(chosen)} in {args.folder}")
    try:
        # The first holds what the others hold.
        found = list(known(chosen[0], args.service))
    except NotAnswered as error:
        say(f"NOT ASKED for known vulnerabilities of {chosen[0].name}: {error}")
        say("Run `make audit` where the service can be reached, before an image is built.")
        return 0 if args.may_be_offline else 1
    left = []
    for package, names, mended in found:
        reason = next((ACCEPTED[name] for name in sorted(names) if name in ACCEPTED), "")
        say(f"{package}: {', '.join(sorted(names))}; mended in {mended}{'; accepted: ' if reason else ''}{reason}")
        left += [] if reason else [package]
    say(f"known vulnerabilities: {len(found)}, not accepted: {len(left)}")
    return 1 if left else 0


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
