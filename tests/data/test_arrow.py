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
    assert source.split == f"{train} is used for training; {test} (6 images) is left out"


@pytest.mark.parametrize("prefix", ["", "hfds/"])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_training_files_of_rows_are_recognized_by_their_names(tmp_path, prefix, ending):
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
        ([0.0, 1.0, float("nan"), 1.0], {"0": 1, "1": 2}),
        (["cat", "dog", "cat ", " dog"], {"cat": 2, "dog": 2}),
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
    without = ("1 row of {} has no label and is left out".format(tmp_path / "pets"),)
    assert source.left_out == (() if sum(expected.values()) == 4 else without)
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


def test_of_several_columns_of_classes_the_one_named_label_counts_and_the_others_are_reported(tmp_path):
    kinds = ([0, 0, 0, 0], datasets.ClassLabel(names=["animal"]))
    rows(4, coarse=kinds).select_columns(["image", "coarse", "label"]).to_parquet(tmp_path / "a.parquet")
    source, _ = read(tmp_path / "a.parquet")
    assert source.class_counts == {"cat": 2, "dog": 2}
    assert source.class_level.startswith("classes come from the column 'label'; 'coarse' could")
    assert "FILE.py:FUNCTION" in source.class_level


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [b"x"], "width": [4]}, r"column of labels .*image \(binary\), width \(int64\)"),
        ({"image": [b"x"], "label": [[4]]}, r"'label' of .*a\.parquet has the type List\. .*FILE\.py:FUNCTION"),
        ({"image": [b"x"], "y": [0.5]}, r"'y' of a\.parquet in .* holds 0\.5 \(float64\)"),
        ({"image": [b"x"] * 6, "label": [-1] * 6}, r"all 6 rows of .* have none: the column 'label'"),
        ({"text": ["x"], "label": [4]}, r"column of images, but its columns are text \(string\), label \(int64\)"),
    ],
)
def test_rows_without_image_or_label_are_refused_with_their_columns(tmp_path, columns, message):
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "a.parquet")


def test_classes_that_rows_lack_are_no_matter_of_folders(tmp_path, prepare):
    (tmp_path / "pets").mkdir()
    law = r"\(each row must hold an image and its class\)\.?$"
    for label, message in ((["cat"] * 4, f"has one: 'cat' {law}"), ([None] * 4, "all 4 rows of .* have none")):
        table = pyarrow.table({"image": [png(i) for i in range(4)], "label": pyarrow.array(label, pyarrow.string())})
        parquet.write_table(table, tmp_path / "pets" / "train.parquet")
        for source in (f"{tmp_path}/pets", f"hfds/{tmp_path}/pets", f"{tmp_path}/pets/train.parquet"):
            with pytest.raises(DataError, match=message):
                prepare(source)


def test_timm_reads_no_tables_wherever_they_lie(tmp_path, prepare):
    (tmp_path / "pets").mkdir()
    rows(8).to_parquet(tmp_path / "pets" / "train.parquet")
    for source in (tmp_path / "pets", tmp_path / "pets" / "train.parquet"):
        assert prepare(source).unlike_timm == ("the images are in a table",)


def test_labels_of_several_files_are_joined_by_the_names_of_each(tmp_path):
    """Classes in another order, one more class, and names as text."""
    own = [["cat", "dog"], ["dog", "cat"], ["owl", "dog", "cat"]]
    for number, names in enumerate(own):
        part = rows(4, start=10 * number)
        labels = [names.index(name) for name in ("cat", "dog", "cat", "dog")]
        part = part.remove_columns("label").add_column("label", labels)
        part.cast_column("label", datasets.ClassLabel(names=names)).to_parquet(tmp_path / f"train-{number}.parquet")
    texts = pyarrow.table({"image": [png(i) for i in range(30, 34)], "label": ["cat", "dog", "cat", "dog"]})
    parquet.write_table(texts, tmp_path / "train-3.parquet")
    source = open_source(parse_source(str(tmp_path)))
    assert source.class_counts == {"cat": 8, "dog": 8}
    classes = {sample.content: sample.class_name for sample in source.samples()}
    assert classes == {png(10 * n + i): ("cat", "dog")[i % 2] for n in range(4) for i in range(4)}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"image": [b"x"], "lbl": [0]},
            r"train-1 in .* lacks 'label': its columns are image \(binary\), lbl \(int64\)",
        ),
        ({"img": [b"x"], "label": ["cat"]}, r"train-1 in .* lacks 'image'"),
        ({"image": [b"x"], "label": [0]}, r"those of train-0 have names and those of train-1 are numbers \(int64\)"),
    ],
)
def test_files_whose_columns_do_not_fit_together_are_refused_by_name(tmp_path, columns, message):
    rows().to_parquet(tmp_path / "train-0.parquet")
    parquet.write_table(pyarrow.table(columns), tmp_path / "train-1.parquet")
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("is_class_label", [False, True])
@pytest.mark.parametrize("column", ["split", "Partition"])
def test_of_rows_with_a_split_those_that_train_are_read(tmp_path, column, is_class_label):
    values = ["train", "test", "train", "validation"]
    names = sorted({*values})
    feature = datasets.ClassLabel(names=names) if is_class_label else datasets.Value("string")
    held = [names.index(value) for value in values] if is_class_label else values
    rows(4, **{column: (held, feature)}).to_parquet(tmp_path / "pets.parquet")
    source, members = read(tmp_path / "pets.parquet")
    assert members == {"row 0": png(0), "row 2": png(2)}
    assert source.split == "train is used for training; test (1 image) and validation (1 image) are left out"


def test_rows_of_held_out_splits_alone_are_refused_as_folders_are(tmp_path):
    rows(4, split=(["test"] * 4, datasets.Value("string"))).to_parquet(tmp_path / "pets.parquet")
    with pytest.raises(DataError, match="has only test"):
        read(tmp_path / "pets.parquet")


def test_a_column_that_is_named_split_and_tells_none_is_not_heeded(tmp_path):
    rows(4, split=(["a", "b", "a", None], datasets.Value("string"))).to_parquet(tmp_path / "pets.parquet")
    source, members = read(tmp_path / "pets.parquet")
    assert (len(members), source.split, source.left_out) == (4, "", ())


def test_arrow_files_are_read_in_both_forms(tmp_path):
    table = rows(200).data.table
    for name, opened in (("stream", pyarrow.ipc.new_stream), ("file", pyarrow.ipc.new_file)):
        with pyarrow.OSFile(str(tmp_path / f"{name}.arrow"), "wb") as file, opened(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=150)
    stream, file = (read(tmp_path / f"{name}.arrow") for name in ("stream", "file"))
    assert file[0].class_counts == stream[0].class_counts == {"cat": 100, "dog": 100}
    assert file[1] == stream[1]


def test_a_git_lfs_pointer_in_place_of_rows_is_reported(tmp_path):
    write(tmp_path, {"pets/train.parquet": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"})
    for path in (tmp_path / "pets", tmp_path / "pets" / "train.parquet"):
        with pytest.raises(DataError, match=r"cannot be read: the file is a Git LFS pointer, .*: run git lfs pull"):
            read(path)


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
    assert source.split == "train is used for training; test (6 images) is left out"


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
        assert all("outside the folder" in str(error) for error in members[2:])


@pytest.mark.parametrize("place", ["../private/x.csv", "absolute"])
def test_a_folder_that_names_data_files_elsewhere_is_refused(tmp_path, place):
    secret = write(tmp_path, {"private/x.csv": b"image,label\na,b\n"}) / "private" / "x.csv"
    folder = tmp_path / "pets"
    name = str(secret) if place == "absolute" else place
    write(folder, {"README.md": f"---\nconfigs:\n- config_name: default\n  data_files: {name}\n---\n".encode()})
    with pytest.raises(DataError, match=r"its README\.md names"):
        read(f"hfds/{folder}")
