"""Users without a home folder, as containers that run under a bare user number have them."""

from pathlib import Path

import pytest

from hilo_nas.data import default_cache_dir
from hilo_nas.errors import StorageError
from hilo_nas.study.local_settings import state_folder


@pytest.mark.parametrize(
    ("folder", "variable"), [(default_cache_dir, "HILO_NAS_CACHE_DIR"), (state_folder, "HILO_NAS_STATE_DIR")]
)
def test_a_user_without_a_home_is_told_which_variable_names_a_folder(monkeypatch, folder, variable):
    def refuse():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", refuse)
    for name in (variable, "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(StorageError, match=rf"no home folder.*\${variable}"):
        folder()
    monkeypatch.setenv(variable, "/somewhere")
    assert folder() == Path("/somewhere")
