"""What is read from files, held against what other programs would write."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base

from genret.toolbox.facts import record_of

XMP = """<?xpacket begin='' id='W5M0MpCehiHzreSzNTczkc9d'?><x:xmpmeta xmlns:x='adobe:ns:meta/'>
<rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'><rdf:Description rdf:about=''
 xmlns:dc='http://purl.org/dc/elements/1.1/' xmlns:photoshop='http://ns.adobe.com/photoshop/1.0/'
 photoshop:City='Paris' photoshop:Country='France'>
<dc:title><rdf:Alt><rdf:li xml:lang='x-default'>La tour</rdf:li></rdf:Alt></dc:title>
<dc:subject><rdf:Bag><rdf:li>tower</rdf:li><rdf:li>été</rdf:li></rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end='w'?>"""


def photograph(file: Path, exif: dict[int, Any], inner: dict[int, Any], gps: dict[int, Any], **more: Any) -> Path:
    image = Image.new("RGB", (40, 20), "red")
    facts = Image.Exif()
    facts.update(exif)
    facts.get_ifd(IFD.Exif).update(inner)
    facts.get_ifd(IFD.GPSInfo).update(gps)
    image.save(file, exif=facts, **more)
    return file


def test_a_photograph(tmp_path: Path) -> None:
    file = photograph(
        tmp_path / "a.jpg",
        {Base.Make: "Canon", Base.Model: "Canon EOS 5D\0", Base.Orientation: 6, Base.DateTime: "2024:01:01 00:00:00"},
        {Base.DateTimeOriginal: "2023:05:01 12:30:07"},
        {
            GPS.GPSLatitude: (48.0, 51.0, 30.12), GPS.GPSLatitudeRef: "N",
            GPS.GPSLongitude: (2.0, 17.0, 40.2), GPS.GPSLongitudeRef: "W",
        },
        xmp=XMP.encode(),
    )  # fmt: skip
    os.utime(file, (86400 * 365, 86400 * 365))
    assert record_of(file).metadata == {
        "file": "a.jpg", "folder": tmp_path.name, "type": "jpg", "modified": "1971-01-01",
        "width": 20, "height": 40, "taken": "2023-05-01 12:30:07", "camera": "Canon EOS 5D",
        "latitude": 48.858367, "longitude": -2.2945, "title": "La tour", "tags": "tower, été", "place": "Paris, France",
    }  # fmt: skip


def test_iptc(tmp_path: Path) -> None:
    """As Photoshop writes it: an image resource block 0x0404 of IIM records."""
    said = ((5, b"Regatta"), (25, b"boat"), (25, "Fête".encode("latin-1")), (90, b"Kiel"), (101, b"Germany"))
    records = b"".join(struct.pack(">BBBH", 0x1C, 2, number, len(value)) + value for number, value in said)
    block = b"8BIM\x04\x04\x00\x00" + struct.pack(">I", len(records)) + records + b"\0" * (len(records) % 2)
    segment = b"Photoshop 3.0\0" + block
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.jpg")
    plain = (tmp_path / "plain.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(
        plain[:2] + b"\xff\xed" + struct.pack(">H", len(segment) + 2) + segment + plain[2:]
    )
    found = record_of(tmp_path / "a.jpg").metadata
    assert (found["title"], found["tags"], found["place"]) == ("Regatta", "boat, Fête", "Kiel, Germany")


@pytest.mark.parametrize(
    ("date", "taken"),
    [
        ("0000:00:00 00:00:00", None),
        ("2023:02:30 10:00:00", None),
        ("    :  :", None),
        ("2023:05:01 12:30", "2023-05-01 12:30:00"),
    ],
)
def test_cameras_without_a_clock(tmp_path: Path, date: str, taken: str | None) -> None:
    file = photograph(tmp_path / "a.jpg", {Base.Make: "NIKON", Base.Model: "D70"}, {Base.DateTimeOriginal: date}, {})
    found = record_of(file).metadata
    assert found.get("taken") == taken and found["camera"] == "NIKON D70"


def test_damaged_facts_are_left_out(tmp_path: Path) -> None:
    gps = {GPS.GPSLatitude: (948.0, 0.0, 0.0), GPS.GPSLongitude: (2.0, 0.0, 0.0)}
    file = photograph(tmp_path / "a.jpg", {Base.Model: "x\x1b[31m" + "y" * 999}, {}, gps, xmp=b"<x:xmpmeta <torn")
    found = record_of(file).metadata
    assert "latitude" not in found and "\x1b" not in found["camera"] and len(found["camera"]) <= 300
    for name, data in (("torn.jpg", file.read_bytes()[:300]), ("text.png", b"hello"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(data)
        assert record_of(tmp_path / name).metadata["file"] == name
    os.mkfifo(tmp_path / "pipe.png")
    assert "width" not in record_of(tmp_path / "pipe.png").metadata


def test_names_that_are_no_text(tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    odd.write_bytes(b"x")
    record = record_of(odd)
    assert record.image_id == record.uri and record.image_id.encode() and record.metadata["file"] == "\\xff.png"
