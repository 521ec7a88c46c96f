"""Whatever a configuration file holds: a sentence for each problem or right work, in little memory."""

import os
import tracemalloc

import pytest

from mygpt2.config import ConfigError, from_toml, load_config

BAD = {
    "UTF-16": ("[train]\nsteps = 5\n".encode("utf-16"), "UTF-16 or binary; save it as UTF-8"),
    "UTF-16 without a mark": ("[train]\n".encode("utf-16-le"), "UTF-16 or binary"),
    "Latin 1": ("# f\xfcr\n".encode("latin-1"), "byte 3 is not UTF-8; save it as UTF-8"),
    "NUL": (b"[train]\nsteps = 5\0\n", "not TOML"),
    "binary": (bytes(range(256)) * 9, "not TOML"),
    "gzip": (b"\x1f\x8b\x08\0" + os.urandom(99), "not TOML"),
    "too large": (b"# comment\n" * 200_000, "larger than 1024 kB"),
    "no value": (b"[train]\nsteps =\n", "not TOML"),
    "half a text": (b'[data]\nsource = "abc\n', "not TOML"),
    "half a long text": (b'[data]\nsource = """abc\n', "not TOML"),
    "twice": (b"[train]\nsteps = 1\nsteps = 2\n", "not TOML"),
    "a table again": (b"[train]\n[train]\n", "not TOML"),
    "JSON": (b'{"train": {"steps": 5}}', "not TOML"),
    "a number of 5,000 digits": (b"[train]\nsteps = " + b"9" * 5000, "a number with thousands of digits"),
    "a real number of 5,000 digits": (b"[optimizer]\nlr = " + b"9" * 5000 + b".5", "expected a number"),
    "a hexadecimal number of 5,000 digits": (b"[train]\nsteps = 0x" + b"f" * 5000, "a whole number of 20,000 bits"),
    "a number of 65 bits": (b"[data]\nseed = 18446744073709551616", "of 65 bits (Seed of the data order): expected"),
    "a huge number in a list": (b"[sample]\nprompts = [0x" + b"f" * 5000 + b"]", "expected a list"),
    "nan": (b"[optimizer]\nlr = nan\n", "optimizer.lr = nan (Learning rate): expected"),
    "infinity": (b"[optimizer]\nweight_decay = -inf\n", "weight_decay = -inf (Weight decay): expected a number"),
    "overflow": (b"[optimizer]\nlr = 1e999\n", "optimizer.lr = inf (Learning rate): expected a number"),
    "brackets": (b"a = " + b"[" * 50_000, "more than 16 deep"),
    "inline tables": (b"a = " + b"{a=" * 5000, "more than 16 deep"),
    "a dotted name of 100,000 parts": (b".".join([b"a"] * 100_000) + b" = 1", "more than 16 deep"),
    "a dotted table of 100,000 parts": (b"[" + b" . ".join([b'"a"'] * 100_000) + b"]", "more than 16 deep"),
    "9,000 strangers": (b"".join(b"key%d = 1\n" % n for n in range(9_000)), "8,980 more names are not settings"),
    "a long name": (b"k" * 500_000 + b" = 1", "..."),
    "a name that moves the cursor": (b'"\\u001b[2J" = 1', "\\u001b[2J"),
    "a list of tables": (b"[[train]]\nsteps = 5\n", "is a section, not a setting"),
    "a table for a value": (b"[train.steps]\na = 1\n", "expected a whole number"),
    "a date": (b"[train]\nsteps = 2024-01-01\n", "expected a whole number"),
    "text for a number": (b'[train]\nsteps = "5"\n', 'train.steps = "5" (Steps): expected a whole number'),
    "a list for a choice": (b'[optimizer]\nname = ["adamw"]\n', "expected one of adamw, muon"),
    "lists within a list": (b'[sample]\nprompts = [["a"]]\n', "expected a list"),
    "a preset of lists": (b"preset = [1, [2]]\n", "there is no preset"),
    "NUL in a path": (b'[data]\nsource = "a\\u0000b"\n', "it holds a NUL character"),
    "a long path": (b'[data]\nsource = "' + b"long/" * 1000 + b'"\n', "it is too long; allowed: names of 255 bytes"),
    "a number for a section": (b"train = 5\n", "is a section, not a setting"),
}


@pytest.mark.parametrize("data, words", BAD.values(), ids=BAD)
def test_a_bad_file_is_told_in_sentences_and_takes_little_memory(tmp_path, data, words):
    file = tmp_path / "bad.toml"
    file.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError) as told:
            load_config(None, file)
        assert tracemalloc.get_traced_memory()[1] < 60 << 20
    finally:
        tracemalloc.stop()
    assert any(words in line and (str(file) in line or "preset" in line) for line in told.value.problems)
    assert len(told.value.problems) < 40
    assert all(line.isprintable() and len(line) < 2000 for line in told.value.problems)


GOOD = [
    b"", b"\xef\xbb\xbf[train]\nsteps = 5\n", b"[train]\r\nsteps = 5\r\n",
    b"train = {steps = 5}\n", b"train.steps = 5\n",
    "# \u65e5\u672c\n[train]\nsteps = 5".encode(),
    b'[sample]\nprompts = ["""a\n.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.s"""]\n',
    b"[sample]\nprompts = ['[[[[[[[[[[[[[[[[[[[[[[']\n# [[[[[[[[[[[[[[[[[[[[\n[train]\nsteps = 5\n",
]  # fmt: skip


@pytest.mark.parametrize("data", GOOD)
def test_what_is_odd_and_right_is_read(tmp_path, data):
    file = tmp_path / "good.toml"
    file.write_bytes(data)
    config = load_config("tiny", file)
    assert config.train.steps in (5, load_config("tiny").train.steps)


def test_pipes_and_devices_are_read_within_bounds(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert load_config("tiny", pipe) == load_config("tiny"), "nobody writes to it: it is empty"
    reader, writer = os.pipe()
    os.write(writer, b"[train]\nsteps = 5\n")
    os.close(writer)
    assert load_config("tiny", f"/dev/fd/{reader}").train.steps == 5, "--config <(...)"
    os.close(reader)
    with pytest.raises(ConfigError, match="larger than 1024 kB"):
        load_config(None, "/dev/zero")
    with pytest.raises(ConfigError, match="Is a directory"):
        load_config(None, tmp_path)


def test_every_preset_and_every_setting_stays_far_from_the_bounds():
    prompts = ["\U0001f600" * 4096] * 32
    config = load_config("gpt2", None, {"sample.prompts": prompts})
    from mygpt2.config import to_toml

    assert from_toml(to_toml(config).encode())["sample"]["prompts"] == prompts


@pytest.mark.parametrize(
    "text", ["9" * 5000, "0x" + "f" * 5000, "[" * 9000, "\ud800", "nan", "1e999", "18446744073709551616"]
)
def test_bad_values_on_the_command_line_are_told_alike(text):
    with pytest.raises(ConfigError, match=r"train\.steps .*expected a whole number"):
        load_config("tiny", None, ["--train.steps", text])


def test_a_path_that_is_no_text_is_told_before_it_is_written_down():
    with pytest.raises(ConfigError, match=r"--data\.source .*it is not UTF-8 text"):
        load_config("tiny", None, ["--data.source", os.fsdecode(b"/data/\xff")])
