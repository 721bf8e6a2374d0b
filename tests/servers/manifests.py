"""Checks Kubernetes manifests on standard input, and writes them to standard output as a JSON list.

    python3 manifests.py KUBERNETES_VERSION KEDA_DEFINITION < manifests.yaml

Each is held against the schema of its kind, without keys that the schema does not know; KEDA's objects against KEDA's own
definition of them. Those of the Prometheus operator are passed on unchecked. Exit status 1: what is wrong stands on standard error.
"""

import json
import sys

import jsonschema
import kubernetes_validate
import yaml


def closed(schema):
    """The schema, refusing keys that it does not name: an API server would drop them without a word."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and schema.get("properties"):
        schema.setdefault("additionalProperties", False)
    return schema


def scaled_object(path):
    with open(path, encoding="utf-8") as file:
        definition = yaml.safe_load(file)["spec"]
    (version,) = [version for version in definition["versions"] if version["storage"]]
    return f"{definition['group']}/{version['name']}", closed(version["schema"]["openAPIV3Schema"])


def main():
    kubernetes, keda = sys.argv[1:]
    keda_version, keda_schema = scaled_object(keda)
    manifests = [manifest for manifest in yaml.safe_load_all(sys.stdin) if manifest is not None]
    wrong = []
    for manifest in manifests:
        name = f"{manifest.get('kind')} {manifest.get('metadata', {}).get('name')}"
        try:
            if manifest.get("apiVersion") == "monitoring.coreos.com/v1":
                continue
            if manifest.get("apiVersion") == keda_version and manifest.get("kind") == "ScaledObject":
                jsonschema.validate(manifest, keda_schema)
            else:
                kubernetes_validate.validate(manifest, kubernetes, strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            path = ".".join(str(part) for part in error.path)
            wrong.append(f"{name}: {path}: {error.message}")
        except kubernetes_validate.SchemaNotFoundError as error:
            wrong.append(f"{name}: {error}")
    print(json.dumps(manifests))
    if wrong:
        sys.exit("\n".join(wrong))


main()
