"""genret runs as MTEB models: `pip install genret[mteb]`. Nothing else in genret imports this package, or mteb."""

from genret.errors import GenretError

try:
    import mteb  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "mteb":
        raise
    raise GenretError("MTEB is not installed; run: pip install genret[mteb]") from None

from genret.lab.mteb.search import GenretSearch
from genret.lab.mteb.tasks import write_task

__all__ = ["GenretSearch", "write_task"]
