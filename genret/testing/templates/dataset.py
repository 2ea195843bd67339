"""ExampleDataset: drawn squares, ready for training."""

from __future__ import annotations

import io
import itertools

from PIL import Image, ImageDraw
from pydantic import Field

import genret

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
GROUNDS = ("grey", "orange", "purple")


class ExampleDataset(genret.Dataset):
    """Coloured squares on coloured backgrounds; every image is drawn when it is read."""

    class Config(genret.Config):
        size: int = Field(64, ge=8, le=512)
        """Width and height of the images, in pixels."""

    def records(self, split):
        splits = (self.train_split, self.dev_split, self.test_split)
        if split not in splits:
            raise genret.UnknownName("split", split, splits)
        for number, (colour, ground) in enumerate(itertools.product(COLOURS, GROUNDS)):
            if split == splits[(0, 0, 0, 1, 2)[number % 5]]:  # three of five images are for training
                captions = (f"a {colour} square on {ground}", f"{ground} ground with a {colour} square")
                yield genret.Record(f"{colour}-{ground}", f"{colour}-{ground}.png", captions, {"colour": colour})

    def read(self, record):
        colour, _, ground = record.image_id.partition("-")
        if colour not in COLOURS or ground not in GROUNDS:
            raise genret.BadImage(f"{record.uri}: there is no such picture")
        side = self.config.size
        image = Image.new("RGB", (side, side), ground)
        ImageDraw.Draw(image).rectangle((side // 4, side // 4, 3 * side // 4, 3 * side // 4), fill=colour)
        out = io.BytesIO()
        image.save(out, "PNG")
        return out.getvalue()
