"""Locks: every file has a hash, pip is told to check it, and known vulnerabilities are found."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
spec = importlib.util.spec_from_file_location("audit", ROOT / "requirements" / "audit.py")
audit = importlib.util.module_from_spec(spec)
spec.loader.exec_module(audit)


@pytest.mark.parametrize("lock", [lock for lock in LOCKS if lock.name != "torch.txt"], ids=lambda lock: lock.name)
def test_every_version_has_hashes_and_no_address(lock):
    text = lock.read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    assert len(entries) == len(dict(audit.pins(lock))) or "python_full_version" in text
    for entry in entries:
        first, *hashes = entry.replace("\\\n", "\n").splitlines()
        assert audit.PIN.match(first), entry
        assert hashes, entry
        assert all(re.fullmatch(r"    --hash=sha256:[0-9a-f]{64} ?", line) for line in hashes), entry
    assert "://" not in text


def test_every_installation_is_by_a_lock():
    """Nothing comes without a hash but torch, the project itself, and what makes the locks."""
    lines = [line for line in (ROOT / "Makefile").read_text().splitlines() if "python $(" in line]
    unlocked = [line.split(")", 1)[1].strip() for line in lines if "$(LOCKED)" not in line]
    assert sorted(unlocked) == ["", "", "-r requirements/torch.txt", "uv"]
    assert "LOCKED = $(INSTALL) --require-hashes" in (ROOT / "Makefile").read_text()
    assert "--no-deps --no-build-isolation --editable ." in (ROOT / "Makefile").read_text()


def test_one_package_has_one_version_wherever_it_is_locked():
    """But for the audit, which has an environment of its own."""
    versions = {}
    for lock in LOCKS:
        if lock.name != "audit.txt":
            for name, version in audit.pins(lock):
                versions.setdefault(name, {}).setdefault(lock.name, set()).add(version)
    assert [name for name, locks in versions.items() if len(set(map(frozenset, locks.values()))) > 1] == []


def test_the_locked_versions_have_no_known_vulnerability():
    assert list(audit.vulnerable(LOCKS)) == []


@pytest.mark.parametrize(
    ("pin", "identifier"),
    [
        ("pillow==10.0.0", "CVE-2023-4863"),
        ("Pillow==12.2.0 ; python_version > '3'", "CVE-2026-59198"),
        ("protobuf==5.29.4", "CVE-2025-4565"),
        ("protobuf==6.31.0", "CVE-2025-4565"),
        ("torch==2.5.1+cpu", "CVE-2025-32434"),
        ("markdown_it_py==2.1.0", "CVE-2023-26302"),
    ],
)
def test_a_vulnerable_version_is_found(pin, identifier, tmp_path):
    lock = tmp_path / "planted.txt"
    lock.write_text(f"numpy==2.4.6 \\\n    --hash=sha256:00\n{pin} \\\n    --hash=sha256:00\n")
    assert any(identifier in line for line in audit.vulnerable([lock]))


@pytest.mark.parametrize("pin", ["protobuf==5.29.5", "protobuf==7.36.2", "pillow==12.3.0", "unheard-of==0.1"])
def test_a_version_that_was_mended_is_not(pin, tmp_path):
    lock = tmp_path / "mended.txt"
    lock.write_text(f"{pin}\n")
    assert not [line for line in audit.vulnerable([lock]) if "2025-4565" in line or "pillow" in line]


def test_the_audit_fails_the_build(tmp_path):
    lock = tmp_path / "planted.txt"
    lock.write_text("jinja2==3.1.2\n")
    done = subprocess.run(
        [sys.executable, ROOT / "requirements" / "audit.py", lock], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "jinja2 3.1.2 has CVE-2025-27516" in done.stdout


def test_advisories_are_of_packages_that_are_locked():
    """A misspelled name would find nothing."""
    locked = {name for lock in LOCKS for name, _ in audit.pins(lock)}
    advisories = audit.json.loads((ROOT / "requirements" / "advisories.json").read_text())
    assert advisories.keys() <= locked
