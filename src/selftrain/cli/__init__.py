"""The command line: parse, wire, print. Only this package prints or exits.

app.py            the group of commands, exit statuses, error messages
options.py        RunConfig's fields as options
*_command.py      one command each
display.py        what a display must do; plain.py, live.py, json_lines.py do it
interrupts.py     Ctrl-C and SIGTERM
"""

from selftrain.cli.app import call, main

__all__ = ["call", "main"]
