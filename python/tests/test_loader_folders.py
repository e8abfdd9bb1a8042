"""A loader over files: folders as torchvision's ImageFolder reads them, tar shards and Parquet files."""

import io
import os
import tarfile

import numpy as np
import pytest

from invaspread import Loader, OneView, TwoViews

Image = pytest.importorskip("PIL.Image")

PLAIN = {"jitter": None, "grayscale": 0.0, "flip": 0.0, "mean": (0, 0, 0), "std": (1, 1, 1)}


def picture(number, height=20, width=30):
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """A folder of three classes, one of which has a folder within it and one a name that lies between the paths of another."""
    names = ["a/0.png", "a/1.png", "a/deeper/2.png", "a-b/3.png", "z/4.png", "z/5.png"]
    for number, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(number, 20 + 3 * number, 31 - 2 * number)))
    return tmp_path / "images"


def in_order(images, **settings):
    return Loader(images, OneView(16), 2, shuffle=False, drop_last=False, **settings)


def all_of(loader):
    batches = list(loader)
    labels = None if batches[0].labels is None else np.concatenate([batch.labels for batch in batches])
    return np.concatenate([batch.views[0] for batch in batches]), labels


def as_bytes(view):
    return np.rint(view * 255).astype(np.uint8).transpose(1, 2, 0)


def test_a_folder_is_that_of_torchvision(folder):
    datasets = pytest.importorskip("torchvision.datasets")
    functional = pytest.importorskip("torchvision.transforms.v2.functional")
    expected = datasets.ImageFolder(folder)
    loader = in_order(folder)
    assert loader.classes == expected.classes == ["a", "a-b", "z"]
    assert [str(folder / name) for name in loader.names] == [path for path, _ in expected.samples]
    assert all_of(loader)[1].tolist() == expected.targets
    # The views are cut from the images as they are: torchvision's resized crop of the same window.
    for number, (pillow, _) in enumerate(expected):
        ratio = pillow.width / pillow.height
        views = OneView(16, scale=(1, 1), ratio=(ratio, ratio), **PLAIN)
        loader = Loader(folder, views, 1, shuffle=False)
        batch = next(batch for batch in loader if batch.index[0] == number)
        same = functional.resized_crop(pillow, 0, 0, pillow.height, pillow.width, [16, 16])
        assert np.array_equal(as_bytes(batch.views[0][0]), np.asarray(same))


def test_files_give_the_views_of_the_same_images_in_memory(folder):
    paths = [folder / name for name in in_order(folder).names]
    in_memory = [np.asarray(Image.open(path)) for path in paths]
    views = TwoViews(16)
    for threads in (1, 3):
        files = Loader(str(folder), views, 4, seed=3, threads=threads)
        memory = Loader(in_memory, views, 4, seed=3)
        for epoch in (1, 2):
            for one, other in zip(files, memory, strict=True):
                assert np.array_equal(one.index, other.index)
                assert all(np.array_equal(view, same) for view, same in zip(one.views, other.views, strict=True))
            assert files.epoch == epoch


def test_a_folder_without_classes_has_no_labels(folder):
    loader = in_order(folder / "z")
    assert (loader.classes, all_of(loader)[1]) == (None, None)
    own = in_order(folder / "z", labels=[7, 8])
    assert all_of(own)[1].tolist() == [7, 8]
    with pytest.raises(ValueError, match="labels: found 1, expected 2"):
        in_order(folder / "z", labels=[7])


def test_a_damaged_file_is_named_or_left_out(folder):
    (folder / "a/1.png").write_bytes(b"no image")
    loader = in_order(folder)
    with pytest.raises(RuntimeError, match=r"a/1.png: found bytes of no known image format.*skip_broken=True"):
        list(loader)
    loader = in_order(folder, skip_broken=True)
    assert loader.skipped == 1 and "a/1.png" in loader.broken[0] and "a/1.png" not in loader.names
    views, labels = all_of(loader)
    assert len(views) == 5 and labels.tolist() == [0, 0, 1, 2, 2]
    with pytest.raises(ValueError, match=r"labels beside 1 images that cannot be decoded.*a/1.png"):
        in_order(folder, skip_broken=True, labels=range(6))


def test_a_class_that_loses_all_its_images_keeps_its_number(folder):
    (folder / "a-b/3.png").write_bytes(b"no image")
    loader = in_order(folder, skip_broken=True)
    assert loader.classes == ["a", "a-b", "z"] and all_of(loader)[1].tolist() == [0, 0, 0, 2, 2]
    assert any('no image of the class "a-b" can be decoded' in note for note in loader.notes)


def test_shards_of_several_splits_are_not_mixed(tmp_path):
    for name in ("train-0.tar", "test-0.tar"):
        with tarfile.open(tmp_path / name, "w") as shard:
            entry = tarfile.TarInfo(f"{name[:-4]}.png")
            content = png(picture(1))
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    with pytest.raises(ValueError, match="shards of several splits in .*train-0.tar and test-0.tar"):
        in_order(tmp_path)
    assert in_order(tmp_path / "train-0.tar").names == ["train-0"]


def test_what_is_not_there_is_told(tmp_path):
    for path in (tmp_path / "none", f"{tmp_path}/s-{{0..3}}.tar", os.fsencode(tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match="found no file of that name"):
            in_order(path)
    with pytest.raises(ValueError, match="pattern character"):
        in_order(f"{tmp_path}/*.tar")
    with pytest.raises(ValueError, match="no image"):
        in_order(tmp_path)


def shards(folder, classes):
    """Writes six images as two tar shards."""
    for shard in range(2):
        with tarfile.open(folder / f"s-{shard}.tar", "w") as tar:
            for number in range(shard * 3, shard * 3 + 3):
                files = {"png": png(picture(number)), "cls": str(classes[number]).encode(), "txt": b"a caption"}
                for ending, content in files.items():
                    member = tarfile.TarInfo(f"{number}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return f"{folder}/s-{{0..1}}.tar"


def test_shards_are_read_from_their_places(tmp_path):
    expected, _ = all_of(in_order([picture(number) for number in range(6)]))
    loader = in_order(shards(tmp_path, [5, 0, 5, 3, 3, 0]))
    views, labels = all_of(loader)
    assert np.array_equal(views, expected) and labels.tolist() == [5, 0, 5, 3, 3, 0]
    assert loader.classes is None and loader.names == list("012345")
    loader = in_order(shards(tmp_path, ["dog", "cat", "dog", "cow", "cow", "cat"]))
    assert all_of(loader)[1].tolist() == [2, 0, 2, 1, 1, 0] and loader.classes == ["cat", "cow", "dog"]
    with pytest.raises(ValueError, match="2 of 6 images without a class, such as 1 of s-0.tar, with nothing in 1.cls"):
        in_order(shards(tmp_path, [1, "", 2, 3, "", 4]))


def test_a_class_in_json_that_cannot_be_understood_is_told(tmp_path):
    def write(*contents):
        with tarfile.open(tmp_path / "s.tar", "w") as tar:
            for number, content in enumerate(contents):
                for ending, of in (("png", png(picture(number))), ("json", content)):
                    member = tarfile.TarInfo(f"{number}.v2.{ending}")
                    member.size = len(of)
                    tar.addfile(member, io.BytesIO(of))
        return tmp_path / "s.tar"

    assert all_of(in_order(write(b'{"label": 4}', b'{"cls": 2}')))[1].tolist() == [4, 2]
    told = r'1 of 2 images without a class, such as 1 of s.tar, with the number 2.5 in the field "cls" of 1.v2.json'
    with pytest.raises(ValueError, match=told):
        in_order(write(b'{"label": 4}', b'{"cls": 2.5}'))
    loader = in_order(write(b'{"label": 4}', b"not JSON"), skip_broken=True)
    assert loader.names == ["0"] and "1.v2.json, which is not JSON" in loader.broken[0]
    loader = in_order(write(b"{}", b"{}"))
    assert all_of(loader)[1] is None and "the images have no classes, such as 0 of s.tar" in loader.notes[0]
    with pytest.raises(ValueError, match="s.tar: found no sample, expected images"):
        in_order(write())


def test_shards_of_webdataset_itself_are_read(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for number in range(4):
            writer.write({"__key__": f"key\n{number}" + "x" * 150, "png": png(picture(number)), "cls": number % 2})
    views, labels = all_of(in_order(tmp_path / "w.tar"))
    expected, _ = all_of(in_order([picture(number) for number in range(4)]))
    assert np.array_equal(views, expected) and labels.tolist() == [0, 1, 0, 1]


def test_parquet_files_are_read(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"image": {"bytes": png(picture(number)), "path": f"{number}.png"}, "label": number} for number in range(5)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet", row_group_size=2)
    loader = in_order(tmp_path)
    views, labels = all_of(loader)
    expected, _ = all_of(in_order([picture(number) for number in range(5)]))
    assert np.array_equal(views, expected) and labels.tolist() == [0, 1, 2, 3, 4]
    assert loader.names[3] == "3.png" and any("temporary file" in note for note in loader.notes)
