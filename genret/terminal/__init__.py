"""What the program shows at a terminal: progress, results, an evaluation's tables. A plugin of genret."""

from __future__ import annotations

from genret import hookimpl
from genret.plugin.hookspecs import RegisterScreen


@hookimpl
def register_screens(register: RegisterScreen) -> None:
    register("terminal", "genret.terminal.ui:Ui")
    register("evaluation", "genret.terminal.evaluation:tables")
