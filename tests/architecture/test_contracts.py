"""The import contracts of pyproject.toml hold, and they bite."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {"PYTHONPATH": str(folder / "src"), "PATH": ""}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def copy(folder: Path) -> Path:
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_every_folder_imports_only_what_stands_below_it() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


def test_an_import_upwards_is_found(tmp_path: Path) -> None:
    copy(tmp_path)
    clock = tmp_path / "src/indigo/kernel/clock.py"
    clock.write_text(clock.read_text() + "\nimport indigo.gateway.ports as ports\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert "Storeys" in result.stdout


def test_a_new_folder_needs_a_floor(tmp_path: Path) -> None:
    copy(tmp_path)
    (tmp_path / "src/indigo/common").mkdir()
    (tmp_path / "src/indigo/common/__init__.py").write_text("")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert "indigo.common" in result.stdout + result.stderr


def test_a_framework_on_the_hot_path_is_found(tmp_path: Path) -> None:
    copy(tmp_path)
    errors = tmp_path / "src/indigo/gateway/errors.py"
    errors.write_text(errors.read_text() + "\nimport fastapi\n")
    result = lint(tmp_path)
    assert result.returncode == 1
    assert "hot path" in result.stdout


def test_a_features_store_is_imported_by_that_feature_only() -> None:
    stores = re.compile(r"from indigo\.features\.(\w+)(?:\.store import| import .*\bstore\b)")
    features = ROOT / "src/indigo/features"
    strangers = [
        f"{path.relative_to(ROOT)} imports the store of {feature}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for feature in stores.findall(path.read_text())
        if not path.is_relative_to(features / feature)
    ]
    assert not strangers
