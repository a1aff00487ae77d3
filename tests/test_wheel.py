"""The wheel: built, installed into a fresh environment and used there, away from the repository."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

import hilo_nas

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]


def run(*words, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, ROOT)
    (found,) = folder.glob("hilo_nas-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Programs of a fresh environment which finds the dependencies of this one, and not its hilo-nas."""
    folder = tmp_path_factory.mktemp("fresh")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    run(sys.executable, "-m", "pip", "--python", folder / "bin/python", "install", "--no-deps", "--no-index", wheel)
    return folder / "bin"


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A folder outside the repository, where Python finds nothing of it."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PYTHONPATH", "HILO_NAS_STUDIES_DIR"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


def test_the_wheel_holds_the_package_and_its_spaces_alone(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    assert {name.split("/")[0] for name in names} == {"hilo_nas", f"hilo_nas-{hilo_nas.__version__}.dist-info"}
    spaces = {path.name for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert {f"hilo_nas/search_spaces/{name}" for name in spaces} <= names
    assert "hilo_nas/py.typed" in names


def test_the_command_of_the_wheel_works(installed, away):
    assert run(installed / "hilo-nas", "--version").strip() == f"hilo-nas {hilo_nas.__version__}"
    assert "litv2_imagenet" in run(installed / "hilo-nas", "space", "list")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = ("search", "litv2_digits", "--study", "first", "--trials", 1, "--device", "cpu", "--proxy", "params")
    run(installed / "hilo-nas", *words, "--set", "timing.seconds=0.1", env=environment)
    assert "litv2_tiny" in run(installed / "hilo-nas", "front", "first")
    assert (away / "studies/first/manifest.yaml").is_file()


def test_the_python_of_the_wheel_is_found_there(installed, away):
    place = run(installed / "python", "-c", "import hilo_nas; print(hilo_nas.__file__)").strip()
    assert Path(place).is_relative_to(installed.parent)
