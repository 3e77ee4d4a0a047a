"""What is installed is what the locks name, by hash, and the locks are of what `pyproject.toml` asks for."""

import re
import tomllib
from functools import cache

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.kit.contract import ROOT

LOCKS = ("build", "dev", "runtime", "tools")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@cache
def locked(name: str) -> dict[str, tuple[str, int]]:
    """Return the version and the number of hashes of each package of a lock."""
    text = re.sub(r"(?m)^\s*#.*$", "", (ROOT / "requirements" / f"{name}.txt").read_text()).replace("\\\n", " ")
    packages = {}
    for line in filter(str.strip, text.splitlines()):
        requirement = Requirement(line.partition(" --hash=")[0])
        (version,) = requirement.specifier
        assert version.operator == "==", line
        packages[canonicalize_name(requirement.name)] = (version.version, line.count(" --hash=sha256:"))
    return packages


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_a_version_and_hashes_of_each_package(name: str) -> None:
    assert locked(name)
    assert [package for package, (_, hashes) in locked(name).items() if not hashes] == []


def test_locks_agree_on_versions() -> None:
    tested = locked("dev")
    assert locked("runtime").items() <= tested.items(), "the image has what was tested"
    assert {name for name in locked("build").keys() & tested.keys() if locked("build")[name] != tested[name]} == set()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("runtime", PROJECT["project"]["dependencies"]),
        ("dev", PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]),
        ("build", PROJECT["build-system"]["requires"]),
    ],
)
def test_a_lock_has_what_is_asked_for(name: str, asked: list[str]) -> None:
    versions = {package: version for package, (version, _) in locked(name).items()}
    wanted = [Requirement(text) for text in asked]
    lacking = [each for each in wanted if not each.specifier.contains(versions.get(canonicalize_name(each.name), "0"))]
    assert lacking == [], "make lock"


@pytest.mark.parametrize("path", ["Makefile", "deploy/image/Dockerfile"])
def test_packages_are_installed_by_the_locks_alone(path: str) -> None:
    text = (ROOT / path).read_text().replace("$(LOCKED)", "install --require-hashes --only-binary :all:")
    installs = re.findall(r"(?m)pip install.*$", text)
    assert installs
    for line in installs:
        of_a_lock = "--require-hashes --only-binary :all: -r requirements/" in line
        of_ours = "--no-deps" in line and ("--no-build-isolation" in line or "--no-index" in line)
        assert of_a_lock or of_ours, line
