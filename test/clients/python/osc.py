"""Runs commands of the openstack command line one after another in one interpreter, since starting one takes seconds:
a JSON array of arguments per line in, what it wrote and its exit status as a JSON object per line out. The commands
are python-openstackclient's, whole and unchanged, from the parsing of arguments to the exit status."""

import contextlib
import io
import json
import logging
import sys
import traceback

from openstackclient import shell
from openstackclient.common.clientmanager import ClientManager
from osc_lib.clientmanager import ClientCache


def forget_clients():
    """A process of one command keeps the clients that it made on the class; the next command may be another user's."""
    for owner in ClientManager.__mro__:
        for value in vars(owner).values():
            if isinstance(value, ClientCache):
                value._handle = None


def run(argv):
    output, errors = io.StringIO(), io.StringIO()
    # Each run adds its handlers to the root logger, and finds those of the runs before.
    logging.getLogger().handlers.clear()
    forget_clients()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = shell.main(argv)
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 70
    code = status if isinstance(status, int) else 0 if status is None else 1
    return {"code": code, "stdout": output.getvalue(), "stderr": errors.getvalue()}


def main():
    answers = sys.stdout
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


main()
