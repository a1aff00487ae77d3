import pytest
from alembic.script import ScriptDirectory

_read_directory = ScriptDirectory.from_config
_DIRECTORIES = {}


def _directory_of(config):
    """Optuna's migrations, read once and not for each database that is made: that takes longer than a search here."""
    place = config.get_main_option("script_location")
    if place not in _DIRECTORIES:
        _DIRECTORIES[place] = _read_directory(config)
    return _DIRECTORIES[place]


@pytest.fixture(autouse=True)
def quick_databases(monkeypatch):
    monkeypatch.setattr(ScriptDirectory, "from_config", staticmethod(_directory_of))
