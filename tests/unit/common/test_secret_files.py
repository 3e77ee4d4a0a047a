"""Secrets that are given as files become those variables, or a sentence says why not."""

from pathlib import Path

import pytest

from services.common.errors import StartError
from services.common.secret_files import with_secret_files


def test_a_files_content_is_the_value(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("bt_secret\n")
    (tmp_path / "key").write_text("\n")
    given = {"A": "b", "BOATYARD_TOKEN_FILE": f"{tmp_path}/token", "ANTHROPIC_API_KEY_FILE": f"{tmp_path}/key"}
    assert with_secret_files(given) == {"A": "b", "BOATYARD_TOKEN": "bt_secret"}


def test_what_cannot_be_meant_is_said(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    with pytest.raises(StartError, match="both set"):
        with_secret_files({"BOATYARD_TOKEN": "y", "BOATYARD_TOKEN_FILE": f"{tmp_path}/token"})
    with pytest.raises(StartError, match=r"BOATYARD_TOKEN_FILE: .*nowhere cannot be read"):
        with_secret_files({"BOATYARD_TOKEN_FILE": f"{tmp_path}/nowhere"})
