"""Named checks of a client program, in the order in which they are written, each reported as one line of JSON. `list AREA...`
prints their names, `run AREA...` runs them; a check that fails stops neither the others nor the program."""

import json
import sys
import traceback

_CHECKS = []


def check(area, name):
    def keep(function):
        _CHECKS.append((area, name, function))
        return function

    return keep


def equal(found, wanted):
    assert found == wanted, f"found {found!r}, wanted {wanted!r}"


def holds(found, **wanted):
    """The attributes of an object are these, whatever else it has."""
    for name, value in wanted.items():
        got = getattr(found, name)
        assert got == value, f"{name} is {got!r}, not {value!r}"


def refuses(kind, call, *args, code=None, says=None, **kwargs):
    """The call must raise this; returns what was raised."""
    try:
        result = call(*args, **kwargs)
    except kind as refusal:
        got = getattr(refusal, "status_code", None) or getattr(refusal, "code", None)
        assert code is None or got == code, f"refused with {got}, not {code}: {refusal}"
        assert says is None or says in str(refusal), f"{says!r} is not in {refusal}"
        return refusal
    raise AssertionError(f"not refused: {result!r}")


def main(connect):
    """`connect()` gives what each check gets as its only argument; it is called once, and only to run."""
    verb, areas = sys.argv[1], sys.argv[2:]
    chosen = [entry for entry in _CHECKS if entry[0] in areas]
    if verb == "list":
        print(json.dumps([f"{area}: {name}" for area, name, _ in chosen]))
        return
    client = connect()
    for area, name, function in chosen:
        reason = None
        try:
            function(client)
        except BaseException:
            reason = traceback.format_exc()
        print(json.dumps({"name": f"{area}: {name}", "reason": reason}), flush=True)
