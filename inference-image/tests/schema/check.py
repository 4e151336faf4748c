"""Validates YAML documents with a JSON Schema.

Standard input is {"schema": …, "documents": {name: text}}. Prints {name: [problem, …]}.
"""

import json
import sys

import jsonschema
import yaml

given = json.load(sys.stdin)
schema = given["schema"]
kind = jsonschema.validators.validator_for(schema)
kind.check_schema(schema)
validator = kind(schema)


def problems(text):
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [str(error)]
    return [error.message for error in validator.iter_errors(document)]


json.dump({name: problems(text) for name, text in given["documents"].items()}, sys.stdout)
