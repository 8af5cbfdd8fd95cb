"""What a fuzzer must be kept from: listening without end, and revoking the token that it has."""

import schemathesis

OWN_TOKEN = "for-the-fuzzer-alone"


@schemathesis.hook
def before_call(context, case, kwargs):
    path = case.operation.path
    query = dict(case.query or {})
    if path.endswith("/events") and is_number(query.get("seconds", 1)):
        case.query = {**query, "seconds": 1}
    if path.endswith("/logs") and str(query.get("follow")).lower() == "true":
        case.query = {**query, "follow": "false"}
    if path.endswith("/tokens/{name}") and (case.path_parameters or {}).get("name") == OWN_TOKEN:
        case.path_parameters = {**case.path_parameters, "name": "another"}


def is_number(value):
    return isinstance(value, (int, float, str)) and str(value).isdigit()
