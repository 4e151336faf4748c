"""Checks an OpenAPI document, and whether a server's answers match it.

Standard input is {"document": …, "answers": [{"path", "method", "status", "type", "body"}, …]}; `body` is there
where the answer is JSON. Prints what does not agree, a line each.
"""

import json
import sys

from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

given = json.load(sys.stdin)
document = given["document"]


def resolved(part):
    while "$ref" in part:
        target = document
        for key in part["$ref"].removeprefix("#/").split("/"):
            target = target[key.replace("~1", "/").replace("~0", "~")]
        part = target
    return part


def problems(answer):
    responses = document["paths"][answer["path"]][answer["method"]]["responses"]
    if str(answer["status"]) not in responses:
        return ["the status is not described"]
    content = resolved(responses[str(answer["status"])]).get("content", {})
    if answer["type"] not in content:
        return [f"{answer['type']} is not described"]
    if answer["type"] != "application/json":
        return []
    schema = {**content[answer["type"]]["schema"], "components": document["components"]}
    return [error.message for error in OAS31Validator(schema).iter_errors(answer["body"])]


for error in OpenAPIV31SpecValidator(document).iter_errors():
    print(f"the document: {error.message}")
for answer in given["answers"]:
    for problem in problems(answer):
        print(f"{answer['method']} {answer['path']}: {answer['status']}: {problem}")
