"""Licences, a bill of materials and known vulnerabilities of everything that an installation brings.

    python -m tests.audit [--uv UV] [--sbom FILE]

Input: the installed environment and uv.lock. Output: a list on stdout, and with --sbom a CycloneDX document. Exit
code 1: a package has a licence that is not in `LICENCES`, or a known vulnerability. Invariant: an index that cannot be
reached is reported as "not audited" and fails nothing, so that the tests also run without a network.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT = "sensor-anomaly-monitor"
LICENCES = re.compile(
    r"apache|\bmit\b|bsd|\bpsf|python software foundation|mpl[- ]?2|mozilla public license 2|\bisc\b|zlib|0bsd|"
    r"unlicense|cc0|historical permission|postgresql|nvidia|cuda|llvm",
    re.IGNORECASE,
)
"""Licences that a product under Apache-2.0 may depend on. NVIDIA's libraries come with PyTorch's CUDA build only."""
COPYLEFT = re.compile(r"\b[AL]?GPL|General Public", re.IGNORECASE)
"""Refused, unless another licence may be chosen."""
KNOWN = {"cuda-toolkit": "NVIDIA, a package without content"}
"""Licences of packages whose metadata name none."""
LIMIT_S = 300
"""For the query of known vulnerabilities."""


def closure(name: str, extras: set[str]) -> dict[str, Distribution]:
    """Return the installed distributions that `name` needs, itself included, by normalised name."""
    found: dict[str, Distribution] = {}
    queue = [(name, frozenset(extras))]
    seen = set(queue)
    while queue:
        wanted, of = queue.pop()
        try:
            found[normal(wanted)] = one = distribution(wanted)
        except PackageNotFoundError:
            continue  # for another platform
        for text in one.requires or ():
            requirement = Requirement(text)
            is_needed = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (*of, "")
            )
            entry = (requirement.name, frozenset(requirement.extras))
            if is_needed and entry not in seen:
                seen.add(entry)
                queue.append(entry)
    return dict(sorted(found.items()))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(one: Distribution) -> str:
    """Return the licence as SPDX expression, or by the classifiers, or the first line of the old free text."""
    metadata = one.metadata
    if known := KNOWN.get(normal(metadata["Name"])):
        return known
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        each.rpartition(" :: ")[2] for each in metadata.get_all("Classifier", []) if each.startswith("License ::")
    ]
    text = str(metadata.get("License") or "").strip().splitlines()
    return "; ".join(each for each in classifiers if each != "OSI Approved") or (text[0][:80] if text else "unknown")


def is_allowed(text: str) -> bool:
    return bool(LICENCES.search(text)) and (not COPYLEFT.search(text) or " OR " in text)


def bill_of_materials(found: dict[str, Distribution]) -> dict[str, Any]:
    """Return a CycloneDX document without a time or a random number: the same environment gives the same bytes."""
    components = [
        {
            "type": "library",
            "name": name,
            "version": one.version,
            "purl": f"pkg:pypi/{name}@{one.version}",
            "licenses": [{"license": {"name": licence(one)}}],
        }
        for name, one in found.items()
        if name != PROJECT
    ]
    subject = {"type": "application", "name": PROJECT, "version": found[PROJECT].version}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }


def vulnerabilities(uv: str) -> tuple[list[str], int, int]:
    """Return the known vulnerabilities of the locked versions, and how many packages were audited, of how many."""
    with tempfile.TemporaryDirectory() as folder:
        pinned = Path(folder) / "requirements.txt"
        export = [uv, "export", "--quiet", "--frozen", "--all-extras", "--no-dev", "--no-emit-project", "-o", pinned]
        audit = [uv, "tool", "run", "pip-audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
        try:
            subprocess.run(export, cwd=ROOT, check=True, capture_output=True, timeout=LIMIT_S)
            done = subprocess.run(
                [*audit, "--format", "json", "-r", pinned], capture_output=True, text=True, timeout=LIMIT_S
            )
            dependencies = json.loads(done.stdout)["dependencies"]
        except (OSError, subprocess.SubprocessError, ValueError, KeyError):
            return [], 0, 0
    audited = [each for each in dependencies if "skip_reason" not in each]
    flaws = [
        f"{each['name']} {each['version']}: {flaw['id']}, mended in {', '.join(flaw['fix_versions']) or 'no version'}"
        for each in audited
        for flaw in each.get("vulns", ())
    ]
    return flaws, len(audited), len(dependencies)


def main() -> int:
    arguments = argparse.ArgumentParser(description="Licences, bill of materials and known vulnerabilities.")
    arguments.add_argument("--uv", default="uv", help="the program uv")
    arguments.add_argument("--sbom", type=Path, help="write a CycloneDX document")
    asked = arguments.parse_args()
    found = closure(PROJECT, {"all"})
    by_licence = {name: licence(one) for name, one in found.items()}
    refused = {name: text for name, text in by_licence.items() if not is_allowed(text)}
    for name, one in found.items():
        print(f"{name:<32} {one.version:<16} {by_licence[name]}")
    if asked.sbom:
        asked.sbom.parent.mkdir(parents=True, exist_ok=True)
        asked.sbom.write_text(json.dumps(bill_of_materials(found), indent=1) + "\n")
        print(f"bill of materials: {asked.sbom}, {len(found) - 1} components")
    for name, text in refused.items():
        print(f"LICENCE: {name} has {text!r}, which LICENCES does not allow", file=sys.stderr)
    flaws, n_audited, n = vulnerabilities(asked.uv)
    if n_audited:
        print(f"known vulnerabilities: {len(flaws)}, in {n_audited} of {n} locked packages that could be audited")
    else:
        print("NOT AUDITED for known vulnerabilities: the package index or its advisories could not be reached")
    for flaw in flaws:
        print(f"VULNERABLE: {flaw}", file=sys.stderr)
    return 1 if refused or flaws else 0


if __name__ == "__main__":
    sys.exit(main())
