"""Profiles of a device: data with a clear error, and workers that keep to them."""

from __future__ import annotations

from pathlib import Path

import pytest
from seatrial.core.errors import CannotDo, UsageError
from seatrial.devices.facts import cores_given
from seatrial.devices.profiles import Profile, names, profile


def test_the_shipped_profiles_are_read():
    assert {"all-cores", "one-core", "small"} <= set(names())
    for name in names():
        assert profile(name).description
    assert profile("one-core").limits == {"cores": cores_given()[:1]}
    assert profile("small").limits["memory_bytes"] == 512 << 20
    assert profile("all-cores").limits == {}
    assert profile("all-cores").settings_of("onnxruntime") == {"threads": len(cores_given())}


def test_a_profile_of_the_user_s_own(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text('description = "mine"\nthreads = 1\n[settings.onnxruntime]\ngraph_optimization = "basic"\n')
    found = profile(str(file))
    assert found.settings_of("onnxruntime") == {"graph_optimization": "basic", "threads": 1}
    assert found.settings_of("tflite") == {"threads": 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('description = "x"\ncore = 1', "did you mean 'cores'"),
        ('description = "x"\ncores = 0', "wanted a whole number from 1 up"),
        ('description = "x"\nthreads = "some"', "wanted a whole number from 1 up"),
        ("cores = 1", "missing key 'description'"),
        ("cores", "not valid TOML"),
    ],
)
def test_what_a_profile_cannot_be_is_one_clear_error(tmp_path: Path, text: str, words: str):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UsageError) as error:
        profile(str(tmp_path / "bad.toml"))
    assert words in str(error.value)


def test_no_such_profile_and_more_cores_than_there_are(tmp_path: Path):
    with pytest.raises(UsageError, match="no such profile"):
        profile("raspberry")
    with pytest.raises(UsageError, match="No such file"):
        profile(str(tmp_path / "absent.toml"))
    with pytest.raises(CannotDo, match=f"has {len(cores_given())}"):
        _ = Profile("x", cores=10_000).core_set
