//! `openapi.yaml` and the program say the same: the same paths, methods and statuses, and every golden answer is one
//! that the description allows.

use std::collections::{BTreeMap, BTreeSet};

use polygate::config::Config;
use polygate::edge::http::cors::EXPOSED;
use polygate::edge::http::documents;
use polygate::pure::description::OPENAPI_YAML;
use polygate::service::catalog::Catalog;
use polygate::state::clock::Clock;
use polygate::state::metrics::Metrics;
use quick_xml::events::Event;
use serde_json::map::Entry;
use serde_json::{Value, json};

use crate::golden;

fn description() -> Value {
    serde_yaml::from_str(OPENAPI_YAML).unwrap()
}

type Operations = BTreeMap<(String, String), BTreeSet<u16>>;

fn described() -> Operations {
    let mut operations = Operations::new();
    for (path, methods) in description()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            if let Some(responses) = operation["responses"].as_object() {
                let statuses = responses.keys().map(|status| status.parse().unwrap()).collect();
                operations.insert((path.clone(), method.to_uppercase()), statuses);
            }
        }
    }
    operations
}

#[test]
fn paths_methods_and_statuses_are_the_catalogs() {
    let (metrics, clock) = (Metrics::new(0), Clock::fixed(0));
    let catalog = Catalog::of(&Config::default(), &[1, 2, 3], &metrics, &clock).unwrap();
    let mut operations = Operations::new();
    for (path, method, statuses) in catalog
        .operations()
        .chain(documents::operations().map(|(path, method, statuses)| (path.into(), method, statuses)))
    {
        operations.insert((path.to_string(), method.to_owned()), statuses.into_iter().collect());
    }
    assert_eq!(described(), operations);
}

#[test]
fn operation_ids_are_unique() {
    let description = description();
    let mut seen = BTreeSet::new();
    for methods in description["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values().filter(|operation| operation["responses"].is_object()) {
            assert!(seen.insert(operation["operationId"].as_str().unwrap().to_owned()), "{}", operation["operationId"]);
        }
    }
}

#[test]
fn every_header_described_can_be_read_by_a_page() {
    // What the Fetch standard lets pages read anyway, and what is for browsers themselves.
    const NOT_NAMED: [&str; 2] = ["Cache-Control", "Access-Control-"];
    let description = description();
    let described: BTreeSet<&str> = description["components"]["headers"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .filter(|name| !NOT_NAMED.iter().any(|prefix| name.starts_with(prefix)))
        .collect();
    assert_eq!(EXPOSED.split(", ").collect::<BTreeSet<_>>(), described);
}

/// Follows `$ref`, if that is what is there.
fn resolved<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(at) => description.pointer(at.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

#[test]
fn every_golden_answer_is_described() {
    let description = description();
    let mut validated = 0;
    for (_, golden) in golden::all() {
        let (method, target) = golden.request.lines().next().unwrap().split_once(' ').unwrap();
        let path = target.split('?').next().unwrap().trim_end_matches('/');
        let operation = &description["paths"][path][method.to_lowercase()];
        let (head, body) = golden.answer.split_once("\n\n").unwrap();
        let status = &head[..3];
        if operation.is_null() {
            // What no operation describes is refused before any is reached.
            assert!(matches!(status, "404" | "405"), "{}", golden.name);
            continue;
        }
        let response = resolved(&description, &operation["responses"][status]);
        assert!(response.is_object(), "{}: {status} is not described", golden.name);
        headers_are_described(&description, response, head, &golden.name);
        if body.is_empty() {
            continue;
        }
        let content_type = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap();
        let media_type = content_type.split(';').next().unwrap();
        let media = response["content"]
            .as_object()
            .unwrap()
            .iter()
            .find(|(name, _)| name.split(';').next().unwrap() == media_type);
        let (_, media) = media.unwrap_or_else(|| panic!("{}: {media_type} is not described", golden.name));
        let document: Value = match media_type.rsplit(['/', '+']).next().unwrap() {
            "json" => serde_json::from_str(body).unwrap(),
            "yaml" | "x-yaml" => serde_yaml::from_str(body).unwrap(),
            "xml" => xml_value(&description, &media["schema"], body),
            _ => Value::String(body.to_owned()),
        };
        validate(&description, &media["schema"], &document, &golden.name);
        validated += 1;
    }
    assert!(validated > 40, "only {validated} answers were validated");
}

/// Headers of ours that are sent are described, and those described as required are sent.
fn headers_are_described(description: &Value, response: &Value, head: &str, name: &str) {
    let described: BTreeMap<String, &Value> = response["headers"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, header)| (name.to_lowercase(), resolved(description, header)))
        .collect();
    let sent: BTreeSet<&str> = head.lines().skip(1).map(|line| line.split(':').next().unwrap()).collect();
    for header in sent.iter().filter(|header| **header != "content-type") {
        assert!(described.contains_key(*header), "{name}: header {header} is not described");
    }
    for (header, _) in described.iter().filter(|(_, header)| header["required"] == true) {
        assert!(sent.contains(&**header), "{name}: header {header} is missing");
    }
}

/// The document that XML stands for. Elements are text only, so that the schema says which of them are numbers.
fn xml_value(description: &Value, schema: &Value, body: &str) -> Value {
    let mut reader = quick_xml::Reader::from_str(body);
    reader.config_mut().trim_text(true);
    reader.config_mut().expand_empty_elements = true;
    // The children and the text of each element that is open, and whether it is null.
    let mut open = vec![(String::new(), serde_json::Map::new(), String::new(), false)];
    loop {
        match reader.read_event().unwrap() {
            Event::Start(tag) => {
                let name = tag.name().as_ref().to_owned();
                let is_nil = tag.try_get_attribute("xsi:nil").unwrap().is_some();
                open.push((name, serde_json::Map::new(), String::new(), is_nil));
            }
            Event::Text(text) => open.last_mut().unwrap().2.push_str(&text),
            Event::End(_) => {
                let (name, children, text, is_nil) = open.pop().unwrap();
                let value = if is_nil {
                    Value::Null
                } else if children.is_empty() {
                    Value::String(text)
                } else {
                    Value::Object(children)
                };
                match open.last_mut().unwrap().1.entry(name) {
                    Entry::Occupied(mut items) if items.key() == "item" => {
                        items.get_mut().as_array_mut().unwrap().push(value);
                    }
                    Entry::Vacant(items) if items.key() == "item" => drop(items.insert(json!([value]))),
                    Entry::Vacant(member) => drop(member.insert(value)),
                    Entry::Occupied(member) => panic!("{} is there twice", member.key()),
                }
            }
            Event::Eof => break,
            _ => {}
        }
    }
    let mut document = open.pop().unwrap().1.remove("response").unwrap();
    numbers(description, schema, &mut document);
    document
}

/// Turns the text of what the schema calls an integer into one, and the items of what it calls an array into one.
fn numbers(description: &Value, schema: &Value, value: &mut Value) {
    let mut schema = resolved(description, schema);
    if let Some(alternatives) = schema["oneOf"].as_array() {
        // The first is the whole, in which the others are parts.
        schema = resolved(description, &alternatives[0]);
    }
    if schema["type"] == "integer" {
        *value = value.as_str().unwrap().parse::<u64>().unwrap().into();
    } else if schema["type"] == "array" {
        *value = value["item"].take();
        for item in value.as_array_mut().unwrap() {
            numbers(description, &schema["items"], item);
        }
    } else if let Some(members) = value.as_object_mut() {
        for (name, member) in members {
            numbers(description, &schema["properties"][name], member);
        }
    }
}

fn validate(description: &Value, schema: &Value, document: &Value, name: &str) {
    // References in the schema point into the whole description.
    let whole = json!({ "components": description["components"], "allOf": [schema] });
    let validator = jsonschema::draft202012::new(&whole).unwrap();
    if let Some(error) = validator.iter_errors(document).next() {
        panic!("{name}: {error} in {document}");
    }
}
