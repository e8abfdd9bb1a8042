"""The views and the loader, beside torchvision and beside each other."""

import numpy as np
import pytest

from invaspread import Loader, MultiCrop, OneView, TwoViews, Views


def pictures(count, height=32, width=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


PLAIN = {"jitter": None, "grayscale": 0.0, "flip": 0.0, "mean": (0, 0, 0), "std": (1, 1, 1)}


def as_bytes(view):
    return np.rint(view * 255).astype(np.uint8)


def test_a_whole_image_of_the_same_size_is_itself():
    image = pictures(1)[0]
    (view,) = OneView(32, scale=(1, 1), ratio=(1, 1), **PLAIN)(image)
    assert view.shape == (3, 32, 32) and view.dtype == np.float32
    assert np.array_equal(as_bytes(view).transpose(1, 2, 0), image)


@pytest.mark.parametrize("size", [(40, 56), (64, 64), (21, 90)])
def test_views_are_those_of_torchvision_to_the_byte(size):
    transforms = pytest.importorskip("torchvision.transforms.v2.functional")
    from PIL import Image

    image = pictures(1, *size, seed=3)[0]
    pillow = Image.fromarray(image)
    # The whole image, resized: torchvision's resized crop of the same window.
    ratio = size[1] / size[0]
    (view,) = OneView(32, scale=(1, 1), ratio=(ratio, ratio), **PLAIN)(image)
    same = transforms.resized_crop(pillow, 0, 0, *size, [32, 32])
    assert np.array_equal(as_bytes(view).transpose(1, 2, 0), np.asarray(same))
    # A gray image, and a mirrored one.
    settings = PLAIN | {"grayscale": 1.0, "flip": 1.0}
    (view,) = OneView(32, scale=(1, 1), ratio=(ratio, ratio), **settings)(pillow)
    same = transforms.horizontal_flip(transforms.rgb_to_grayscale(same, 3))
    assert np.array_equal(as_bytes(view).transpose(1, 2, 0), np.asarray(same))
    # Normalized as torchvision does it.
    torch = pytest.importorskip("torch")
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    (view,) = OneView(32, scale=(1, 1), ratio=(ratio, ratio), **(settings | {"mean": mean, "std": std}))(image)
    same = transforms.normalize(transforms.to_dtype(transforms.pil_to_tensor(same), torch.float32, scale=True), mean, std)
    assert np.allclose(view, same.numpy(), atol=1e-6)


def test_a_loader_gives_the_views_that_a_call_gives():
    images = pictures(10, 40, 36)
    for views in (TwoViews(24), MultiCrop(24, small_size=12, small_views=3), Views(16, 1, blur=((3, 0.1, 2.0), [1.0]))):
        loader = Loader(images, views, batch_size=4, seed=5)
        assert len(loader) == 2
        for epoch in (1, 2):
            seen = []
            for batch in loader:
                seen.extend(batch.index)
                for place, index in enumerate(batch.index):
                    own = views(images[index], index=int(index), seed=5, epoch=epoch)
                    assert len(own) == len(batch.views)
                    for view, same in zip(batch.views, own):
                        assert np.array_equal(view[place], same)
            assert len(set(seen)) == 8


def test_an_epoch_depends_on_its_seed_and_number_alone():
    images, labels = pictures(9), np.arange(9) * 10

    def epoch(seed, number, **settings):
        loader = Loader(images, TwoViews(), seed=seed, labels=labels, **{"batch_size": 3, **settings})
        loader.set_epoch(number)
        batches = list(loader)
        assert all(np.array_equal(batch.labels, batch.index * 10) for batch in batches)
        order = np.concatenate([batch.index for batch in batches])
        views = np.concatenate([batch.views[1] for batch in batches])
        return order, views[np.argsort(order)]

    order, views = epoch(0, 3)
    for other_order, other in (epoch(0, 3), epoch(0, 3, threads=1), epoch(0, 3, batch_size=9, ahead=1)):
        assert np.array_equal(order, other_order) and np.array_equal(views, other)
    assert not np.array_equal(order, epoch(0, 4)[0]) and not np.array_equal(views, epoch(1, 3)[1])
    in_order = epoch(0, 3, shuffle=False)[0]
    assert np.array_equal(in_order, np.arange(9))
    loader = Loader(images, TwoViews(), batch_size=3)
    list(loader)
    assert loader.epoch == 1


def test_the_last_epoch_that_has_a_number_is_followed_by_an_error():
    loader = Loader(pictures(2), TwoViews(), 2)
    loader.set_epoch(2**32 - 1)
    list(loader)
    for _ in range(2):
        with pytest.raises(ValueError, match="epoch: found 4294967296, expected at least 1 and below 4294967296"):
            iter(loader)


def test_images_of_any_size_and_kind_are_taken():
    from PIL import Image

    gray = Image.fromarray(pictures(1, 8, 8)[0]).convert("L")
    images = [pictures(1, 20, 30)[0], Image.fromarray(pictures(1, 50, 11)[0]), gray]
    loader = Loader(images, TwoViews(16), batch_size=2, drop_last=False)
    assert [len(batch.index) for batch in loader] == [2, 1] and len(loader) == 2


def test_tensors_share_their_memory_and_have_pytorchs_fast_layout():
    torch = pytest.importorskip("torch")
    images = pictures(8)
    views, labels, index = next(iter(Loader(images, TwoViews(), 8, labels=range(8), output="torch")))
    assert views[0].shape == (8, 3, 32, 32) and views[0].dtype == torch.float32
    assert views[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(labels, index) and index.dtype == torch.int64
    contiguous = next(iter(Loader(images, TwoViews(), 8, output="torch", channels_last=False)))
    assert contiguous.views[0].is_contiguous() and torch.equal(contiguous.views[0], views[0])


def test_without_an_index_each_call_draws_anew_from_pythons_seed():
    import random

    views, image = TwoViews(), pictures(1)[0]
    random.seed(7)
    first, second = views(image), views(image)
    assert not np.array_equal(first[0], first[1]) and not np.array_equal(first[0], second[0])
    random.seed(7)
    assert np.array_equal(views(image)[0], first[0])


def test_a_loader_can_be_left_in_the_middle_and_by_several_at_once():
    loader = Loader(pictures(64), TwoViews(), batch_size=2)
    for _ in range(20):
        next(iter(loader))
    both = zip(loader, loader)
    first, second = next(both)
    assert not np.array_equal(first.index, second.index)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: TwoViews(jitter=(0.4, 0.4, 0.4, 0.6)), "color_jitter.hue: found 0.6"),
        (lambda: TwoViews(scale=(0.5, 0.2)), "resized_crop.scale"),
        (lambda: TwoViews(parameters="mine"), 'parameters: found \'mine\', expected "current" or "torchvision-0.2"'),
        (lambda: TwoViews(solarize=(300, [0.2])), "solarize: found 300, expected at least 0 and below 256"),
        (lambda: TwoViews(0), "size: found 0"),
        (lambda: Views(views=0), "views: found 0"),
        (lambda: TwoViews()(np.zeros((4, 4, 3), np.float32)), "float32"),
        (lambda: TwoViews()(np.zeros((4, 4), np.uint8)), r"\(4, 4\)"),
        (lambda: TwoViews()(np.zeros((0, 4, 3), np.uint8)), "at least one pixel"),
        (lambda: Loader(pictures(2).astype(np.int16), TwoViews(), 1), "int16"),
        (lambda: Loader(pictures(2)[..., :2], TwoViews(), 1), r"\[2, 32, 32, 2\]"),
        (lambda: Loader(pictures(2), TwoViews(), 3), "found 3 for 2 images"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels=[1]), "labels: found 1, expected 2"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels=[[1, 2], [3, 4]]), r"labels: found shape \(2, 2\), expected one"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels=["a", "b"], output="torch"), "labels: found an array of <U1"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels=np.ma.array([1, 2], mask=[0, 1])), "labels: found masked"),
        (lambda: Loader(np.ma.masked_equal(pictures(2), 7), TwoViews(), 1), "images: found masked values, expected none"),
        (lambda: Loader(pictures(2), 32, 1), "views: found 32"),
        (lambda: TwoViews(-3), "size: found -3"),
        (lambda: TwoViews(grayscale=float("nan")), "NaN"),
        (lambda: Loader(pictures(2), TwoViews(), 1, seed=-1), "seed: found -1"),
        (lambda: Loader(pictures(2), TwoViews(), 1, ahead=10**12), "ahead: found"),
        (lambda: Loader(pictures(2), TwoViews(), 1, threads=0), "threads: found 0"),
        (lambda: Loader(pictures(2), TwoViews(), 1, skip_broken=True), "skip_broken: found True for images in memory"),
        (lambda: Loader(pictures(2), TwoViews(), 1).set_epoch(0), "epoch: found 0"),
    ],
)
def test_what_cannot_be_used_is_told(make, told):
    with pytest.raises(ValueError, match=told):
        make()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: TwoViews("32"), "size: found str '32', expected a whole number"),
        (lambda: TwoViews(scale=0.2), "scale: found float 0.2, expected 2 numbers"),
        (lambda: TwoViews(jitter=[0.4, "0.4", 0.4, 0.1]), "jitter: found str '0.4', expected a number"),
        (lambda: TwoViews(blur=3), r"blur: found int 3, expected \(\(kernel, least sigma"),
        (lambda: TwoViews(solarize=128), "solarize: found int 128"),
        (lambda: TwoViews(parameters=2), "parameters: found int 2"),
        (lambda: MultiCrop(small_views="4"), "small_views: found str '4'"),
        (lambda: TwoViews()(pictures(1)[0], index="0"), "index: found str '0'"),
        (lambda: Loader(5, TwoViews(), 1), "images: found int 5, expected an array"),
        (lambda: Loader(pictures(2), TwoViews(), "1"), "batch_size: found str '1'"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels=3), "labels: found int 3"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels={0: 5, 1: 6}), "labels: found dict, expected one for each"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels={5, 6}), "labels: found set, expected one for each"),
        (lambda: Loader(pictures(2), TwoViews(), 1, labels="ab"), "labels: found str 'ab', expected one for each"),
        (lambda: Loader(pictures(2), TwoViews(), 1, seed=0.5), "seed: found float 0.5"),
        (lambda: Loader(pictures(2), TwoViews(), 1, shuffle="no"), "shuffle: found str 'no', expected True or False"),
        (lambda: Loader(pictures(2), TwoViews(), 1).set_epoch("3"), "epoch: found str '3'"),
    ],
)
def test_an_argument_of_another_type_is_named(make, told):
    with pytest.raises(TypeError, match=told):
        make()


def test_the_image_of_another_type_is_named():
    images = [pictures(1)[0], np.zeros((4, 4, 3))]
    with pytest.raises(ValueError, match="image 1: found an image of type float64"):
        Loader(images, TwoViews(), 1)


def test_an_image_without_pixels_stops_the_epoch():
    loader = Loader([np.zeros((0, 4, 3), np.uint8)], TwoViews(), 1)
    with pytest.raises(RuntimeError, match="image 0 is 4 x 0 pixels"):
        list(loader)


def test_views_can_be_sent_to_another_process():
    import pickle

    image = pictures(1)[0]
    for views in (TwoViews(24, grayscale=0.5), MultiCrop(24, small_size=12), OneView(16)):
        again = pickle.loads(pickle.dumps(views))
        assert type(again) is type(views)
        for view, same in zip(views(image, index=3), again(image, index=3), strict=True):
            assert np.array_equal(view, same)


def test_a_forked_process_is_told_that_it_has_no_threads():
    import multiprocessing
    import os

    if not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    loader = Loader(pictures(4), TwoViews(), 2)
    begun = iter(loader)
    next(begun)
    answers = multiprocessing.get_context("fork").SimpleQueue()
    child = os.fork()
    if child == 0:
        for use in (lambda: next(begun), lambda: next(iter(loader))):
            try:
                use()
                answers.put("no error")
            except RuntimeError as error:
                answers.put(str(error))
        os._exit(0)
    told = [answers.get(), answers.get()]
    os.waitpid(child, 0)
    assert all("forked" in one for one in told), told


def test_a_tensor_of_images_is_taken():
    torch = pytest.importorskip("torch")
    images = pictures(4)
    first = next(iter(Loader(torch.from_numpy(images), TwoViews(), 4)))
    assert np.array_equal(first.views[0], next(iter(Loader(images, TwoViews(), 4))).views[0])
