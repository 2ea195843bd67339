"""Bundles on the Hugging Face Hub, or on any server that speaks its API (HF_ENDPOINT): `hub:owner/name[@revision]`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from genret.errors import GenretError, UsageError, one_line
from genret.share.manifest import Manifest
from genret.share.sources import Listing, Source, write_stream

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hub:"
OF_THE_HUB = frozenset({".gitattributes", ".gitignore"})
"""Files that the hub puts into every repository."""
_ADDRESS = re.compile(r"hub:([\w.-]{1,96}/[\w.-]{1,96})(?:@([\w./-]{1,200}))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Address(NamedTuple):
    repository: str
    revision: str | None


def parse_address(text: str) -> Address:
    if not (found := _ADDRESS.fullmatch(text)) or ".." in text:
        raise UsageError(f"{text} is no address on the hub; write hub:owner/name or hub:owner/name@revision")
    return Address(found[1], found[2])


def api() -> HfApi:
    """The hub's client; it finds a token where `hf auth login` left it."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, library_name="genret")


class HubSource(Source):
    """A repository at one commit: a branch that moves on meanwhile changes nothing."""

    def __init__(self, address: str):
        self.repository, asked = parse_address(address)
        self.name, self._api = f"{PREFIX}{self.repository}", api()
        self.revision = asked if asked and _COMMIT.fullmatch(asked) else None
        if self.revision is None:
            with speaking(self.name):
                self.revision = self._api.model_info(self.repository, revision=asked).sha

    def listing(self) -> Listing:
        found = Listing(self.name)
        with speaking(self.name):
            for entry in self._api.list_repo_tree(self.repository, recursive=True, revision=self.revision):
                size = getattr(entry, "size", None)  # folders have none
                if size is not None and entry.path not in OF_THE_HUB:
                    found.add(entry.path, size)
        return found

    def fetch(self, sizes: dict[str, int], folder: Path) -> None:
        with speaking(self.name):
            for name, size in sizes.items():
                cached = self._api.hf_hub_download(self.repository, name, revision=self.revision)
                with Path(cached).open("rb") as stream:
                    write_stream(stream, folder / name, size, name)


def push_to_hub(folder: Path, manifest: Manifest, address: str, public: bool) -> str:
    """Makes one commit of a bundle, and the repository where there is none → `hub:owner/name@commit`.

    What is in the repository and not in the bundle goes; until the commit is made, readers see what was there before.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.errors import RepositoryNotFoundError

    from genret.share.contents import MANIFEST

    where, hub = parse_address(address), api()
    with speaking(address):
        try:
            before = set(hub.list_repo_files(where.repository, revision=where.revision))
        except RepositoryNotFoundError:
            hub.create_repo(where.repository, private=not public, exist_ok=True)
            before = set()
        files = [*manifest.files, MANIFEST]
        operations: list[Any] = [CommitOperationAdd(name, folder / name) for name in files]
        operations += [CommitOperationDelete(name) for name in sorted(before - {*files} - OF_THE_HUB)]
        made = hub.create_commit(
            where.repository, operations, commit_message=f"genret push {manifest.name}", revision=where.revision
        )
    return f"{PREFIX}{where.repository}@{made.oid}"


@contextmanager
def speaking(address: str) -> Iterator[None]:
    """Turns the hub's errors into one sentence that names the address."""
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        yield
    except GenretError:
        raise
    except GatedRepoError:
        raise GenretError(f"{address} is gated: ask for access on its page, then: hf auth login") from None
    except RevisionNotFoundError:
        raise GenretError(f"{address}: there is no such revision") from None
    except RepositoryNotFoundError:
        raise GenretError(f"{address}: there is no such repository, or it is private; then: hf auth login") from None
    except (HfHubHTTPError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise GenretError(f"{address}: the hub does not do that ({one_line(error)})") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore", "httpx2", "httpcore2", "hf_xet"):
            raise
        raise GenretError(f"{address}: the hub cannot be reached ({one_line(error)})") from None
