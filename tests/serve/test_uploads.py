"""What clients send as pictures: kept only if it is one, and only below the run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from genret.serve.uploads import FOLDER, safe_name

TRAVERSALS = [
    "../../evil.png", "..\\..\\evil.png", "/etc/evil.png", "C:\\evil.png", "....//....//evil.png", "%2e%2e%2fevil.png",
    "..%2f..%2fevil.png", "%252e%252e%252fevil.png", "..%c0%afevil.png", "\uff0e\uff0e\uff0fevil.png", "..%5cevil.png",
    ".png", "..", "a/../../evil.png", "evil.png\0.txt", "\u2024\u2024/evil.png", "con.png", "x" * 1000 + ".png",
    "~/evil.png", "$HOME/evil.png", "evil\n.png", "evil\u202egnp.exe", "<img src=x onerror=alert(1)>.png",
]  # fmt: skip


def picture(kind: str = "PNG", row: int = 0, **options) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 24), (row, 0, 0)).save(out, kind, **options)
    return out.getvalue()


def send(client, *files: tuple[str, bytes]) -> dict:
    reply = client.post("/v1/index", files=[("files", one) for one in files])
    assert reply.status_code == 200, reply.text
    return json.loads(reply.text.splitlines()[-1])


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_leads_out_of_the_run(client, run, name):
    before, beside = tree(run.folder), tree(run.folder.parent)
    done = send(client, (name, picture()))
    assert done["event"] == "done", done
    new = {one for one in tree(run.folder) - before if one.startswith(FOLDER)}
    outside = {one for one in tree(run.folder.parent) - beside if not one.startswith(f"{run.folder.name}/")}
    assert outside == set()
    assert done["added"] == 1 and len(new) == 1
    (stored,) = new
    assert stored.startswith(f"{FOLDER}/") and stored.endswith(".png") and len(Path(stored).parts) == 4
    assert Path(stored).name.isprintable() and not set("/\\\0<>\n%$~") & set(Path(stored).name)


ADDRESSES = [
    "../recipe.yaml", "%2e%2e/recipe.yaml", "..%2frecipe.yaml", "%252e%252e%252frecipe.yaml", "..%c0%af", "/etc/passwd",
    "1/../../recipe.yaml", "1%00", "-1", "+1", "1.0", "٣", "1e3", "9" * 40, "0x1",
]  # fmt: skip


@pytest.mark.parametrize("path", ADDRESSES)
@pytest.mark.parametrize("end", ["", "/file", "/thumbnail"])
def test_no_address_leads_to_a_file(client, path, end):
    reply = client.get(f"/v1/images/{path}{end}")
    assert reply.status_code in (404, 422), reply.text
    assert "identifier" not in reply.text and "root:" not in reply.text


HTML = b"<!doctype html><html><script>alert(1)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


NO_PICTURES = {
    "html": HTML, "svg": SVG, "xml": b"<?xml version='1.0'?>" + SVG, "empty": b"", "jpeg": b"\xff\xd8\xff" + HTML,
    "gif": b"GIF89a" + HTML, "png": b"\x89PNG\r\n\x1a\n" + SVG,
}  # fmt: skip


@pytest.mark.parametrize("data", NO_PICTURES.values(), ids=NO_PICTURES)
def test_what_is_no_picture_is_not_kept_whatever_its_name(client, run, data):
    done = send(client, ("harmless.jpg", data))
    assert done["added"] == 0 and len(done["skipped"]) == 1 and done["skipped"][0]["path"] == "harmless.jpg"
    assert not (run.folder / FOLDER).exists() or tree(run.folder / FOLDER) == set()
    reply = client.post("/v1/search/picture", files={"image": ("harmless.jpg", data)})
    assert reply.status_code == 400 and reply.json()["error"]["code"] == "bad_image"


def test_a_picture_with_a_page_behind_it_is_only_ever_a_picture(client):
    """Bytes that are both: sent as an image, not to be guessed otherwise, without rights."""
    send(client, ("page.html", picture("PNG") + HTML))
    one = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    assert one["metadata"]["file"] == "page.png"
    reply = client.get(one["file"])
    assert reply.headers["content-type"] == "image/png" and reply.headers["x-content-type-options"] == "nosniff"
    assert (
        "sandbox" in reply.headers["content-security-policy"]
        and "default-src 'none'" in reply.headers["content-security-policy"]
    )


def test_pictures_that_browsers_do_not_show_are_made_ones_that_they_do(client):
    send(client, ("scan.tif", picture("TIFF")), ("old.bmp", picture("BMP", 1)))
    two = client.get("/v1/images", params={"limit": 2}).json()["images"]
    for one in two:
        reply = client.get(one["file"])
        assert reply.headers["content-type"] in ("image/png", "image/webp")
        assert Image.open(io.BytesIO(reply.content)).size == (24, 24)


def test_a_bomb(client):
    """A few kilobytes that would be 400 megapixels."""
    out = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(out, "PNG")
    done = send(client, ("bomb.png", out.getvalue()))
    assert done["added"] == 0 and "pixels" in done["skipped"][0]["reason"]


def test_limits_of_size_and_number(run, serving):
    client = serving(run, max_file_bytes=2048, max_upload_files=3)
    client.headers["X-Genret-Token"] = client.get("/v1/token").json()["token"]
    done = send(client, ("large.png", picture() + b"x" * 2048), ("small.png", picture()))
    assert done["added"] == 1 and "2,048 bytes" in done["skipped"][0]["reason"]
    many = [("files", (f"{i}.png", picture())) for i in range(4)]
    assert client.post("/v1/index", files=many).status_code == 422
    large = client.post("/v1/search/picture", files={"image": ("x.png", picture() + b"x" * 2048)})
    assert large.status_code == 413
    assert client.post("/v1/index").status_code == 422


def test_only_what_was_indexed_is_sent(client, run, tmp_path):
    """A file that was replaced since, by a link to a secret or by anything else."""
    (secret := tmp_path / "secret.txt").write_text("password")
    (path := tmp_path / "mine.png").write_bytes(picture(row=3))
    run.index(path)
    one = client.get("/v1/images", params={"limit": 1}).json()["images"][0]
    assert client.get(one["file"]).content == picture(row=3)
    path.unlink()
    assert client.get(one["file"]).json()["error"]["code"] == "no_file"
    path.symlink_to(secret)
    reply = client.get(one["file"])
    assert reply.status_code == 404 and reply.json()["error"]["code"] == "changed" and "password" not in reply.text
    assert client.get(one["thumbnail"]).status_code == 200


def test_names_stay_readable():
    assert safe_name("Ferien (2024) Zürich 7.jpg") == "Ferien (2024) Zürich 7.jpg"
    assert safe_name("C:\\Users\\me\\cat.png") == "cat.png" and safe_name("...") == "picture"
