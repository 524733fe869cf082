"""Config, ids, specs and samples: what is written is what is read, and nothing unknown or unsafe gets in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from seatrial.core import config, ids, samples
from seatrial.core.errors import UsageError
from seatrial.core.specs import TensorSpec


@dataclass(frozen=True)
class Plan:
    rounds: int
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError("rounds is less than 1")


def test_a_mapping_becomes_a_frozen_object():
    assert config.from_mapping(Plan, {"rounds": 2, "names": ["a", "b"]}, "[plan]") == Plan(2, ("a", "b"))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rounds": 1, "nmaes": []}, ["[plan]", "unknown key 'nmaes'", "did you mean 'names'", "names, rounds"]),
        ({"names": ["a"]}, ["[plan]", "missing key 'rounds'"]),
        ({"rounds": 0}, ["[plan]", "rounds is less than 1"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name(data: dict[str, object], words: list[str]):
    with pytest.raises(UsageError) as caught:
        config.from_mapping(Plan, data, "[plan]")
    for word in words:
        assert word in str(caught.value)


def test_toml_is_read_and_a_broken_or_missing_file_is_named(tmp_path: Path):
    good, bad = tmp_path / "a.toml", tmp_path / "b.toml"
    good.write_text("[plan]\nrounds = 3\n")
    bad.write_text("[plan\n")
    assert config.read_toml(good) == {"plan": {"rounds": 3}}
    with pytest.raises(UsageError, match=r"(?s)b\.toml.*not valid TOML"):
        config.read_toml(bad)
    with pytest.raises(UsageError, match=r"(?s)c\.toml.*No such file"):
        config.read_toml(tmp_path / "c.toml")
    with pytest.raises(UsageError, match="directory"):
        config.read_toml(tmp_path)


def test_toml_that_is_not_text_is_named(tmp_path: Path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        config.read_toml(path)


def test_equal_data_have_equal_ids_whatever_their_order():
    assert ids.content_id({"a": 1, "b": [1.5, "é"]}) == ids.content_id({"b": [1.5, "é"], "a": 1})
    assert ids.content_id({"a": 1}) != ids.content_id({"a": 2})
    assert len(ids.content_id({})) == 16
    with pytest.raises(ValueError):
        ids.content_id(float("nan"))


def test_a_files_id_is_of_names_and_bytes_and_not_of_folders(tmp_path: Path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a").write_bytes(b"1")
        (tmp_path / folder / "b").write_bytes(b"2")
    one, two = ([tmp_path / folder / name for name in "ab"] for folder in ("one", "two"))
    assert ids.files_id(one) == ids.files_id(reversed(two))
    two[0].write_bytes(b"3")
    assert ids.files_id(one) != ids.files_id(two)
    assert ids.file_sha256(one[0]) == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"


def test_a_spec_survives_json():
    spec = TensorSpec("ids", "int64", ("batch", 128), 0, 30000)
    assert TensorSpec.from_dict(spec.to_dict()) == spec
    assert spec.is_free
    assert not TensorSpec("x", "float32", (1, 3)).is_free
    assert str(spec) == "ids: int64[batch, 128]"
    with pytest.raises(TypeError):
        TensorSpec.from_dict({**spec.to_dict(), "colour": 1})


def test_samples_keep_names_shapes_dtypes_and_order(tmp_path: Path):
    feeds = [{"x": np.arange(i + 1, dtype=np.float32)[None], "deep/name.0": np.array([i], np.int64)} for i in range(12)]
    samples.save(tmp_path / "s.npz", feeds)
    again = samples.load(tmp_path / "s.npz")
    assert len(again) == 12
    for want, have in zip(feeds, again, strict=True):
        assert list(have) == sorted(want)
        for name, array in want.items():
            assert have[name].dtype == array.dtype
            np.testing.assert_array_equal(have[name], array)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_several_write_one_file_at_one_moment(tmp_path: Path):
    feeds = [{"x": np.zeros(20_000)}]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: samples.save(tmp_path / "s.npz", feeds), range(60)))
    assert len(samples.load(tmp_path / "s.npz")) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]


def test_the_ten_thousandth_sample_comes_last(tmp_path: Path):
    np.savez(tmp_path / "s.npz", **{f"{i:04d}/x": np.array(i) for i in (9999, 1001, 10_000, 2)})
    assert [int(feed["x"]) for feed in samples.load(tmp_path / "s.npz")] == [2, 1001, 9999, 10_000]


def test_the_same_samples_are_the_same_bytes(tmp_path: Path):
    feeds = [{"b": np.ones(3), "a": np.zeros(2)}]
    for name in ("one", "two"):
        samples.save(tmp_path / name, feeds)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_pickle_is_neither_written_nor_read(tmp_path: Path):
    armed = np.array([Trap(tmp_path / "sprung")], dtype=object)
    with pytest.raises(ValueError):
        samples.save(tmp_path / "s.npz", [{"x": armed}])
    assert not (tmp_path / "s.npz").exists()
    np.savez(tmp_path / "t.npz", **{"0000/x": armed})
    with pytest.raises(ValueError):
        samples.load(tmp_path / "t.npz")
    assert not (tmp_path / "sprung").exists()


def broken_arrays(folder: Path) -> dict[str, bytes]:
    np.savez(folder / "good.npz", x=np.arange(400.0))
    np.savez_compressed(folder / "small.npz", x=np.arange(400.0))
    np.save(folder / "one.npy", np.arange(4))
    np.savez(folder / "armed.npz", x=np.array([Trap(folder / "sprung")], dtype=object))
    good, small = (folder / "good.npz").read_bytes(), (folder / "small.npz").read_bytes()
    return {
        "empty": b"",
        "text": b"x = 1\n",
        "cut in half": good[: len(good) // 2],
        "cut at the end": good[:-4],
        "a changed array": good[:2000] + bytes([good[2000] ^ 1]) + good[2001:],
        "a changed stream": small[:200] + bytes(50) + small[250:],
        "a broken header": good.replace(b"'fortran_order'", b"'fortran(order'"),
        "another file": b"PK\x03\x04" + b"\0" * 60,
        "one array": (folder / "one.npy").read_bytes(),
        "a pickle": (folder / "armed.npz").read_bytes(),
    }


def test_a_users_arrays_are_read(tmp_path: Path):
    np.savez(tmp_path / "a.npz", x=np.ones(3), y=np.zeros(2, np.int64))
    found = samples.arrays(tmp_path / "a.npz", "--inputs a.npz")
    assert {name: (a.dtype.name, a.shape) for name, a in found.items()} == {
        "x": ("float64", (3,)),
        "y": ("int64", (2,)),
    }


def test_broken_arrays_are_one_clear_error_each(tmp_path: Path):
    for name, content in broken_arrays(tmp_path).items():
        path = tmp_path / "bad.npz"
        path.write_bytes(content)
        with pytest.raises(UsageError) as caught:
            samples.arrays(path, "--inputs bad.npz")
        assert str(caught.value).startswith("--inputs bad.npz\n  found: "), name
        assert "\n  to do: give an .npz" in str(caught.value), name
    assert not (tmp_path / "sprung").exists()
    with pytest.raises(UsageError, match="no such file"):
        samples.arrays(tmp_path / "none.npz", "--inputs none.npz")
    with pytest.raises(UsageError, match="directory"):
        samples.arrays(tmp_path, "--inputs here")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)
