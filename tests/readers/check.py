"""Reads the corpus with Python's readers and compares every document with its JSON.

YAML: PyYAML (its own scanner and libyaml's), ruamel.yaml. XML: expat, lxml, xmllint. CSV: csv.
Run `cargo test --test readers` first. Prints counts; any difference is printed and the exit status is 1.
"""

import collections
import csv
import io
import json
import math
import pathlib
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

import lxml.etree
import ruamel.yaml
import yaml

CORPUS = pathlib.Path(__file__).resolve().parents[2] / "target" / "readers" / "corpus.jsonl"
NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
FORBIDDEN_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")


class Difference(Exception):
    """What was read is not what was written."""


class Number(str):
    """A number as the JSON spells it."""


def want(condition, path, what):
    if not condition:
        raise Difference(f"at {path!r}: {what}")


def compare_yaml(expected, actual, path=()):
    """Equal in type and value; numbers to the last digit that the reader's type can hold."""
    if isinstance(expected, Number):
        if re.fullmatch("-?[0-9]+", expected):
            want(type(actual) is int and actual == int(expected), path, f"{actual!r} for the integer {expected}")
        else:
            same = isinstance(actual, float) and (actual == float(expected) or math.isnan(actual))
            want(same, path, f"{actual!r} for the float {expected}")
    elif isinstance(expected, dict):
        want(isinstance(actual, dict), path, f"{actual!r} for an object")
        want(list(expected) == list(actual), path, f"keys {list(actual)!r} for {list(expected)!r}")
        for key in expected:
            compare_yaml(expected[key], actual[key], (*path, key))
    elif isinstance(expected, list):
        want(isinstance(actual, list) and len(expected) == len(actual), path, f"{actual!r} for {expected!r}")
        for i, item in enumerate(expected):
            compare_yaml(item, actual[i], (*path, i))
    else:
        want(type(expected) is type(actual) and expected == actual, path, f"{actual!r} for {expected!r}")


def compare_xml(expected, element, path=()):
    """An element a value: members by name, items as `item`, null as xsi:nil, empty containers by type."""
    text, attributes, children = element.text or "", dict(element.attrib), list(element)
    if isinstance(expected, (dict, list)):
        members = list(expected.items()) if isinstance(expected, dict) else [(None, item) for item in expected]
        kind = {"type": "object" if isinstance(expected, dict) else "array"}
        want(attributes == ({} if members else kind), path, f"attributes {attributes!r}")
        want(text.strip(" \n") == "", path, f"text {text!r} in a container")
        want(len(children) == len(members), path, f"{len(children)} elements for {len(members)}")
        for i, ((key, value), child) in enumerate(zip(members, children)):
            name = "item" if key is None else key
            want(key is None and child.tag == "item" or decode_name(child.tag) == name, path, f"<{child.tag}> for {name!r}")
            compare_xml(value, child, (*path, i if key is None else key))
        return
    want(not children, path, "elements in a scalar")
    want(attributes == ({NIL: "true"} if expected is None else {}), path, f"attributes {attributes!r}")
    if expected is None:
        spelled = ""
    elif isinstance(expected, bool):
        spelled = "true" if expected else "false"
    else:
        spelled = FORBIDDEN_IN_XML.sub("\ufffd", expected)
    want(text == spelled, path, f"{text!r} for {spelled!r}")


def decode_name(name):
    """The key behind a name that was escaped as ISO 9075-14 says."""
    if name == "_x_":
        return ""
    return re.sub("_x([0-9A-F]{4,6})_", lambda match: chr(int(match[1], 16)), name)


def leaves(value, path=()):
    """Every leaf with its path, an empty container being a leaf."""
    if isinstance(value, (dict, list)) and (value or not path):
        for key, member in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(member, (*path, key))
    else:
        yield ".".join(re.sub(r"([.\\])", r"\\\1", str(key)) for key in path), spell(value)


def spell(value):
    if value is None or isinstance(value, (dict, list)):
        return ""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


def compare_csv(expected, rows):
    if isinstance(expected, dict):
        table = [["key", "value"], *map(list, leaves(expected))]
    else:
        items = expected if isinstance(expected, list) else [expected]
        cells = [dict(leaves(item) if isinstance(item, (dict, list)) else [("value", spell(item))]) for item in items]
        columns = list(dict.fromkeys(key for row in cells for key in row)) or ["value"]
        table = [columns, *([row.get(column, "") for column in columns] for row in cells)]
    want(rows == table, (), f"{rows!r} for {table!r}")


def read_pyyaml(text):
    return yaml.load(text, yaml.SafeLoader)


def read_libyaml(text):
    return yaml.load(text, yaml.CSafeLoader)


def read_ruamel(text):
    return ruamel.yaml.YAML(typ="safe", pure=True).load(text)


def read_ruamel_1_1(text):
    reader = ruamel.yaml.YAML(typ="safe", pure=True)
    reader.version = (1, 1)
    return reader.load(text)


def read_csv(text):
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


def through_xmllint(documents):
    """What xmllint makes of each document, written out again, for one start of the program."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, text in enumerate(documents):
            paths.append(pathlib.Path(folder, f"{i}.xml"))
            paths[-1].write_bytes(text.encode())
        run = subprocess.run(["xmllint", *paths], capture_output=True)
    if run.returncode != 0:
        sys.exit("xmllint: " + run.stderr.decode())
    # No text can hold the split mark: `<` is escaped there.
    return [b"<?xml " + part for part in run.stdout.split(b"<?xml ")[1:]]


def main():
    csv.field_size_limit(sys.maxsize)
    read = json.JSONDecoder(parse_int=Number, parse_float=Number).decode
    corpus = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").split("\n") if line]
    if len(corpus) < 500:
        sys.exit(f"only {len(corpus)} documents in {CORPUS}")
    linted = through_xmllint([document["xml"] for document in corpus])
    if len(linted) != len(corpus):
        sys.exit(f"xmllint gave {len(linted)} documents of {len(corpus)}")
    for document, text in zip(corpus, linted):
        document["linted"] = text
    readers = [
        ("PyYAML", "yaml", read_pyyaml, compare_yaml),
        ("PyYAML, libyaml", "yaml", read_libyaml, compare_yaml),
        ("ruamel.yaml 1.2", "yaml", read_ruamel, compare_yaml),
        ("ruamel.yaml 1.1", "yaml", read_ruamel_1_1, compare_yaml),
        ("expat", "xml", lambda text: xml.etree.ElementTree.fromstring(text.encode()), compare_xml),
        ("lxml", "xml", lambda text: lxml.etree.fromstring(text.encode()), compare_xml),
        ("xmllint", "linted", xml.etree.ElementTree.fromstring, compare_xml),
        ("csv", "csv", read_csv, compare_csv),
    ]
    differences = collections.Counter()
    for name, key, reader, compare in readers:
        for document in corpus:
            try:
                compare(read(document["json"]), reader(document[key]))
            except Exception as error:  # A reader that fails is a difference like any other.
                differences[name] += 1
                if differences[name] <= 10:
                    print(f"{name}: {document['name']}: {error}\n  {document[key][:400]!r}")
        print(f"{name}: {len(corpus) - differences[name]} of {len(corpus)} documents read back equal")
    sys.exit(1 if differences else 0)


main()
