"""What tests of ``polypod.toml`` share: a project's file, and the user's own."""

from pathlib import Path

import pytest

from actors.config.configuration import Configuration
from actors.runtime.user_folders import configuration_path


class Files:
    """A project's folder with a folder in it, and the user's configuration folder."""

    def __init__(self, folder: Path) -> None:
        self.project = folder / "project"
        self.deep = self.project / "src" / "deep"
        self.deep.mkdir(parents=True)

    def write(self, text: str) -> Path:
        """Write the project's file."""
        return self._put(self.project / "polypod.toml", text)

    def write_own(self, text: str) -> Path:
        """Write the user's own file."""
        return self._put(configuration_path() / "polypod.toml", text)

    def _put(self, path: Path, text: str) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def load(self) -> Configuration:
        """What holds deep in the project."""
        return Configuration.load(self.deep)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    """Without any file yet, and with nothing that is trusted."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "configuration"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Files(tmp_path)
