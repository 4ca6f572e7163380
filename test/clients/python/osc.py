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


def run(argv):
    output, errors = io.StringIO(), io.StringIO()
    # Each run adds its handlers to the root logger, and finds those of the runs before.
    logging.getLogger().handlers.clear()
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
