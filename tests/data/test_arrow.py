"""Rows of Parquet and Arrow files, and what `datasets` saved to disk."""

from __future__ import annotations

import sys

import pytest
from packed import PETS, png, read, write

from hilo_nas.data.readers import open_source
from hilo_nas.data.sources import parse_source
from hilo_nas.errors import DataError

datasets = pytest.importorskip("datasets")
pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def own_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")
    datasets.disable_progress_bars()


def rows(n: int = 4, start: int = 0, **extra):
    """Returns a data set of images with labels by turns."""
    columns = {"image": [{"bytes": png(i), "path": None} for i in range(start, start + n)]}
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    columns["label"] = [i % 2 for i in range(n)]
    for name, (values, feature) in extra.items():
        columns[name] = values
        features[name] = feature
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.mark.parametrize("prefix", ["", "hfds/"])
def test_what_save_to_disk_wrote_is_read_from_its_folder(tmp_path, prefix):
    rows().save_to_disk(tmp_path / "pets")
    source, members = read(f"{prefix}{tmp_path / 'pets'}")
    assert source.class_counts == {"cat": 2, "dog": 2}
    assert members == {f"row {i}": png(i) for i in range(4)}
    assert "column 'label'" in source.class_level


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("training", "validation"), ("pets_train", "pets_dev")])
def test_of_a_saved_dictionary_the_training_split_is_read(tmp_path, train, test):
    datasets.DatasetDict({train: rows(4), test: rows(6, start=10)}).save_to_disk(tmp_path / "pets")
    source, members = read(tmp_path / "pets")
    assert sorted(members.values()) == sorted(png(i) for i in range(4))
    assert source.split == f"{train} trains; {test} (6 images) is left out"


@pytest.mark.parametrize("prefix", ["", "hfds/"])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_training_files_of_rows_are_told_by_their_names(tmp_path, prefix, ending):
    folder = tmp_path / "pets" / "data"
    folder.mkdir(parents=True)
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        part = rows(4, start=10 * number)
        if ending == "parquet":
            part.to_parquet(folder / f"{name}.parquet")
        else:
            with pyarrow.OSFile(str(folder / f"{name}.arrow"), "wb") as file:
                table = part.data.table
                with pyarrow.ipc.new_stream(file, table.schema) as stream:
                    stream.write_table(table)
    write(tmp_path / "pets", {"README.md": b"", "data/cache-123.arrow": b"", "preview.png": png(1)})
    source, members = read(f"{prefix}{tmp_path / 'pets'}")
    assert source.class_counts == {"cat": 4, "dog": 4}
    assert {*members.values()} == {png(i) for i in (*range(4), *range(10, 14))}
    assert "4 images" in source.split


@pytest.mark.parametrize("name", ["pets.parquet", "test-00000-of-00001.parquet"])
def test_a_single_parquet_file_is_a_source(tmp_path, name):
    rows().to_parquet(tmp_path / name)
    assert read(tmp_path / name)[0].class_counts == {"cat": 2, "dog": 2}


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (["cat", "dog", "cat", "dog"], {"cat": 2, "dog": 2}),
        ([3, 7, 3, 7], {"3": 2, "7": 2}),
        (["cat", "dog", None, "dog"], {"cat": 1, "dog": 2}),
        ([0, 1, -1, 1], {"0": 1, "1": 2}),
    ],
)
@pytest.mark.parametrize("is_struct", [True, False])
def test_plain_parquet_is_read_without_types_of_datasets(tmp_path, label, expected, is_struct):
    images = [{"bytes": png(i), "path": "x"} if is_struct else png(i) for i in range(4)]
    table = pyarrow.table({"id": range(4), "img": images, "Label": label})
    (tmp_path / "pets").mkdir()
    parquet.write_table(table, tmp_path / "pets" / "train.parquet")
    source, members = read(tmp_path / "pets")
    assert source.class_counts == expected
    assert len(source.left_out) == (4 - sum(expected.values()))
    assert all(content == png(int(member.split()[1])) for member, content in members.items())


def test_images_may_be_paths_from_the_files_folder(tmp_path):
    write(tmp_path, {f"images/{name.replace('/', '-')}": content for name, content in PETS.items()})
    paths = [f"images/{name.replace('/', '-')}" for name in PETS] + ["images/gone.png"]
    table = pyarrow.table(
        {
            "image": [{"bytes": None, "path": path} for path in paths],
            "label": [name.split("/")[0] for name in PETS] + ["cat"],
        }
    )
    parquet.write_table(table, tmp_path / "pets.parquet")
    members = read(tmp_path / "pets.parquet")[1]
    assert [members[f"row {i}"] for i in range(6)] == [*PETS.values()]
    assert "gone.png" in str(members["row 6"])


def test_of_several_columns_of_classes_the_one_named_label_counts_and_the_others_are_told(tmp_path):
    kinds = ([0, 0, 0, 0], datasets.ClassLabel(names=["animal"]))
    rows(4, coarse=kinds).select_columns(["image", "coarse", "label"]).to_parquet(tmp_path / "a.parquet")
    source, _ = read(tmp_path / "a.parquet")
    assert source.class_counts == {"cat": 2, "dog": 2}
    assert "'coarse'" in source.class_level


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "width": [4]}, r"column of labels .*image \(binary\), width \(int64\)"),
        ({"text": ["x"], "label": [4]}, r"column of images, but its columns are text \(string\), label \(int64\)"),
    ],
)
def test_rows_without_image_or_label_are_refused_with_their_columns(tmp_path, columns, message):
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.parquet")


def test_a_damaged_file_of_rows_is_refused_in_words(tmp_path):
    write(tmp_path, {"pets/train.parquet": b"PAR1 no more"})
    with pytest.raises(DataError, match=r"pets cannot be read"):
        read(tmp_path / "pets")


def test_only_held_out_rows_are_refused(tmp_path):
    (tmp_path / "pets").mkdir()
    rows().to_parquet(tmp_path / "pets" / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="never reads"):
        read(tmp_path / "pets")


def test_a_folder_of_another_form_is_loaded_by_datasets_itself(tmp_path):
    write(
        tmp_path / "pets", {f"{split}/{name}": content for split in ("train", "test") for name, content in PETS.items()}
    )
    source, members = read(f"hfds/{tmp_path / 'pets'}")
    assert source.class_counts == {"cat": 3, "dog": 3}
    assert sorted(members.values()) == sorted(PETS.values())
    assert source.split == "train trains; test (6 images) is left out"


def test_the_missing_package_is_named_with_the_way_to_install_it(tmp_path, monkeypatch):
    rows().to_parquet(tmp_path / "pets.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for text in (tmp_path / "pets.parquet", "hfds/some/name"):
        with pytest.raises(DataError, match=r"pip install 'hilo-nas\[hfds\]'"):
            open_source(parse_source(str(text)))


def test_rows_read_no_file_outside_the_data_sets_folder(tmp_path):
    secret = write(tmp_path, {"private/secret.png": png(99)}) / "private" / "secret.png"
    folder = write(tmp_path / "pets", {"images/a.png": png(1)})
    (folder / "link.png").symlink_to(secret)
    paths = ["images/a.png", str(folder / "images" / "a.png"), str(secret), "../private/secret.png", "link.png"]
    images = [{"bytes": None, "path": path} for path in paths]
    parquet.write_table(pyarrow.table({"image": images, "label": list("abaab")}), folder / "train.parquet")
    for source in (folder / "train.parquet", f"hfds/{folder}"):
        members = list(read(source)[1].values())
        assert members[:2] == [png(1)] * 2
        assert all("which lies outside the data set's folder" in str(error) for error in members[2:])


@pytest.mark.parametrize("place", ["../private/x.csv", "absolute"])
def test_a_folder_that_names_data_files_elsewhere_is_refused(tmp_path, place):
    secret = write(tmp_path, {"private/x.csv": b"image,label\na,b\n"}) / "private" / "x.csv"
    folder = tmp_path / "pets"
    name = str(secret) if place == "absolute" else place
    write(folder, {"README.md": f"---\nconfigs:\n- config_name: default\n  data_files: {name}\n---\n".encode()})
    with pytest.raises(DataError, match="must lie in its folder, but its description names"):
        read(f"hfds/{folder}")
