"""The options of a server: where it listens, who may come in, and its limits."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, model_validator

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class ServeOptions(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = Field(8000, ge=0, le=65535)
    """0: any free port."""
    token: str | None = Field(None, min_length=16)
    """Bearer token that every request must carry; required unless `host` is this machine's own."""
    allowed_hosts: tuple[str, ...] = ()
    """Further names that a request's Host header may have, without port."""
    index_folders: tuple[Path, ...] = ()
    """Folders of the server whose pictures may be indexed by path; none: only uploads."""
    allow_changes: bool = True
    """Whether pictures may be added and removed."""

    batch_ms: float = Field(4, ge=0, le=1000)
    """Longest time that a query waits for others to share its model step, in milliseconds."""
    max_batch: int = Field(32, ge=1, le=1024)
    """Most queries in one model step."""
    max_queue: int = Field(256, ge=1)
    """Most queries that wait; further ones are answered 429."""
    max_json_bytes: int = Field(2**20, ge=1024)
    """Size of a request's JSON or form without files."""
    max_file_bytes: int = Field(32 * 2**20, ge=1024)
    """Size of one uploaded picture."""
    max_upload_bytes: int = Field(256 * 2**20, ge=1024)
    """Size of one upload with all its pictures."""
    max_upload_files: int = Field(500, ge=1)
    """Pictures of one upload."""
    rate: float = Field(100, ge=0)
    """Searches and changes per second and client, on average; 0: no limit."""
    burst: int = Field(400, ge=1)
    """How many of them may come at once."""
    timeout: float = Field(30, gt=0)
    """Seconds until a search that has not been answered is given up, and until a slow client is cut off."""

    @model_validator(mode="after")
    def _has_token(self) -> ServeOptions:
        if not self.is_local and self.token is None:
            raise ValueError(f"at {self.host} others can reach the server, so it needs a token")
        return self

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK
