"""TensorBoard's event files: as its own writers write them, and as bytes that one wrote."""

from __future__ import annotations

import base64
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from mygpt2.errors import UserError
from mygpt2.ripples import read_log
from mygpt2.ripples.events import read_event_files

pytest.importorskip("tensorboard", reason="reader and writers are in the optional package tensorboard")

NAME = "events.out.tfevents.1700000000.host.1.0"
GOLDEN = """
c-r$|fPjCKJmzu&X@@@{Hyx#TlZp~E^YmQHQu9izjDqyIbV^e5it~$-@)L_v^omP!a}$dy^~#GfOHzyUQbDTX(=u~X;~^qEXLzQ{LCw8+N5}|n
u9h&DAQx8&$ZY+b{NiF!28ITQMCPM5dQjCzPlx|Ps8;4u<l=y;E^^}FVANs(YOwR-=HldHFHTO(Nh~Us7v(K5g6dY0410snt<I&&#Zi`+1GdSD
hl9z81ENgG0mXziz59z5peAU(T^Rs3L4Xm9dn+6^&Dxw|098Nr>xFn^^~AW?NnKhRyM0Vp>??3c_ozOK-99Fw>{DKFC&~n>Kh9V@23bGOFcL%!
BZIBBm$18;8H<}U9PV|c*<p7xGf{5Vk)1OOyL~KJ>`QR?v-nLbcKcX}vTw!oy=B<Lhy`~T38042J6-$3*xk&E#mx~8la~F&5k{;;xp}$RU$Y{p
epObhCgd<q<x1vaFHg-(&nPL@iV%b-;&70JIb0FKkZ{n1FmxP@Bp6VE15B+I4jBdqBj$K67bwR$Qg0Tr3(UDpxdij_OH%bqQY%X0p+$z17zeu$
ix3kBqZ1EMQXx?xuQWF)waANui;ar~q|*6UeTfH+$|NbMxk9sV=pw~1n#uQHzq`N>Rhb*C&55Ma3h40L_ZBZFK505Qa2tL&KD3gig+tWRe-)G_
P3-ouVX@D^VZE{0P3-ou5oO=8Uc2wu!-x%c81bQoQF@-<dhBjy$KqxU2eSp*M%dlVPL!KZ3e;^Mp4k@w{Ic~Z
"""


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """What torch.utils.tensorboard.SummaryWriter wrote with tensorboard 2.20: see `write`."""
    path = tmp_path / NAME
    path.write_bytes(zlib.decompress(base64.b85decode(GOLDEN.replace("\n", ""))))
    return path


def write(folder: Path) -> None:
    """Steps 0 to 5 and, after a stop, 4 to 7: numbers and tensors, several tags, a histogram and a text between."""
    from torch.utils.tensorboard import SummaryWriter

    for purge, steps in ((None, range(6)), (4, range(4, 8))):
        with SummaryWriter(str(folder), purge_step=purge, filename_suffix=f".{len(steps)}") as writer:
            for step in steps:
                later = 0.5 if purge else 0.0
                writer.add_scalar("train/loss", 4.0 - step / 8 - later, step)
                writer.add_scalar("train/lr", 0.25, step, new_style=True)
                if step % 2 == 0:
                    writer.add_scalar("val/loss", 4.5 - step / 8, step, new_style=True, double_precision=True)
            writer.add_histogram("weights", np.arange(4.0), 3, bins=[0, 2, 4])
            writer.add_text("note", "not a number", 3)


def check(log) -> None:
    assert log.step.tolist() == list(range(8))
    assert log.loss.tolist() == [4.0, 3.875, 3.75, 3.625, 3.0, 2.875, 2.75, 2.625]
    assert log.rate.tolist() == [0.25] * 8
    assert log.validation.step.tolist() == [0, 2, 4, 6] and log.validation.loss.tolist() == [4.5, 4.25, 4.0, 3.75]
    assert not log.notes


def test_what_the_real_writer_writes_is_read_over_a_restart(tmp_path: Path) -> None:
    write(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 2
    check(read_log(tmp_path))
    assert read_log(files[0]).step.tolist() == list(range(6))


def test_the_other_writer_of_the_package_is_read_too(tmp_path: Path) -> None:
    summary = pytest.importorskip("tensorboard.summary")
    writer = summary.Writer(str(tmp_path))
    for step in range(3):
        writer.add_scalar("loss", 3.0 - step, step)
    writer.close()
    assert read_log(tmp_path).loss.tolist() == [3.0, 2.0, 1.0]


def test_the_same_bytes_are_read_by_any_version(golden: Path) -> None:
    check(read_log(golden))


def test_without_the_package_it_is_named(golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto.event_pb2", None)
    with pytest.raises(UserError, match=r"needs the package tensorboard .* pip install 'mygpt2\[trackers\]'"):
        read_log(golden)


def test_a_link_out_of_the_folder_is_passed_over(golden: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / f"{NAME}.linked").symlink_to(golden)
    with pytest.raises(UserError):
        read_log(folder)
    golden.rename(folder / NAME)
    (folder / f"{NAME}.linked").unlink()
    (folder / f"{NAME}.same").symlink_to(NAME)
    check(read_log(folder))


def test_a_file_that_is_cut_or_damaged_counts_up_to_there(golden: Path) -> None:
    raw = golden.read_bytes()
    golden.write_bytes(raw[:-30])
    assert "is cut or damaged after" in read_log(golden).notes[0]
    broken = bytearray(raw)
    broken[len(raw) // 2 :] = bytes(len(raw) - len(raw) // 2)
    golden.write_bytes(bytes(broken))
    log = read_log(golden)
    assert 0 < len(log) < 8 and any("damaged" in note for note in log.notes)


def test_a_file_of_something_else_is_one_line(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"\x18\x00")
    with pytest.raises(UserError, match="is not an event file"):
        read_log(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(b"")
    with pytest.raises(UserError, match="has no loss with numbers"):
        read_log(tmp_path / NAME)


def test_how_far_reading_is_is_told(golden: Path) -> None:
    told: list[tuple[int, int]] = []
    read_event_files([golden], lambda done, total: told.append((done, total)))
    assert told[-1] == (golden.stat().st_size,) * 2
