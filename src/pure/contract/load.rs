//! From an OpenAPI document to [`Contract`].

use std::cmp::Reverse;

use jsonschema::{Draft, PatternOptions, Registry, Validator};
use serde_json::{Map, Value, json};

use super::{Body, Contract, Kind, Operation, Parameter, Path, Place, Segment, Shape};

/// Where schemas find the document that they are part of.
const DOCUMENT: &str = "urn:polygate:contract";
/// The most paths.
const PATHS_MAX: usize = 1_000;
/// The most references from one to the next.
const REFERENCES_MAX: usize = 16;
/// How often a pattern may go back over one text before it counts as not matched: enough for every sensible pattern, and
/// soon over for the others.
const BACKTRACKS_MAX: usize = 20_000;

const METHODS: [(&str, &str); 8] = [
    ("get", "GET"),
    ("put", "PUT"),
    ("post", "POST"),
    ("delete", "DELETE"),
    ("options", "OPTIONS"),
    ("head", "HEAD"),
    ("patch", "PATCH"),
    ("trace", "TRACE"),
];

pub(super) fn contract(text: &str) -> Result<Contract, Vec<String>> {
    let mut document: Value =
        serde_yaml::from_str(text).map_err(|error| vec![format!("is not readable YAML or JSON: {error}")])?;
    match document["openapi"].as_str() {
        Some(version) if version.starts_with("3.0.") => modernize(&mut document),
        Some(version) if version.starts_with("3.1.") => {}
        _ => return Err(vec!["must be an OpenAPI document of version 3.0 or 3.1".to_owned()]),
    }
    let registry = Registry::new()
        .add(DOCUMENT, document.clone())
        .and_then(|registry| registry.prepare())
        .map_err(|error| vec![format!("has a reference that leads nowhere: {error}")])?;
    let reader = Reader { document: &document, registry: &registry };
    let (paths, mistakes) = reader.paths();
    if mistakes.is_empty() { Ok(Contract { document, paths }) } else { Err(mistakes) }
}

/// Writes schemas of version 3.0 in the terms of 3.1: what differed from JSON Schema (OpenAPI 3.0.4, section 4.7.24).
fn modernize(node: &mut Value) {
    match node {
        Value::Object(members) => {
            if members.get("nullable") == Some(&Value::Bool(true))
                && let Some(Value::String(kind)) = members.get("type").cloned()
            {
                members.remove("nullable");
                members.insert("type".to_owned(), json!([kind, "null"]));
                if let Some(Value::Array(options)) = members.get_mut("enum")
                    && !options.contains(&Value::Null)
                {
                    options.push(Value::Null);
                }
            }
            for (exclusive, limit) in [("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")] {
                match members.get(exclusive) {
                    Some(Value::Bool(true)) => {
                        members.remove(exclusive);
                        if let Some(limit) = members.remove(limit) {
                            members.insert(exclusive.to_owned(), limit);
                        }
                    }
                    Some(Value::Bool(false)) => drop(members.remove(exclusive)),
                    _ => {}
                }
            }
            members.values_mut().for_each(modernize);
        }
        Value::Array(items) => items.iter_mut().for_each(modernize),
        _ => {}
    }
}

struct Reader<'a> {
    document: &'a Value,
    registry: &'a Registry<'a>,
}

/// A node, and the JSON pointer that leads to it.
#[derive(Clone)]
struct At<'a> {
    node: &'a Value,
    pointer: String,
}

impl<'a> At<'a> {
    fn member(&self, name: &str) -> Option<At<'a>> {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        self.node.get(name).map(|node| At { node, pointer: format!("{}/{escaped}", self.pointer) })
    }

    fn members(&self) -> impl Iterator<Item = (&'a str, At<'a>)> {
        let members = self.node.as_object().into_iter().flat_map(Map::keys);
        members.filter_map(|name| Some((name.as_str(), self.member(name)?)))
    }

    fn items(&self) -> impl Iterator<Item = At<'a>> {
        let items = self.node.as_array().into_iter().flatten().enumerate();
        items.map(|(i, node)| At { node, pointer: format!("{}/{i}", self.pointer) })
    }

    fn flag(&self, name: &str) -> bool {
        self.node[name] == Value::Bool(true)
    }

    fn wrong(&self, must: &str) -> String {
        format!("{} {must}", self.pointer)
    }
}

impl<'a> Reader<'a> {
    fn paths(&self) -> (Vec<Path>, Vec<String>) {
        let top = At { node: self.document, pointer: String::new() };
        let mut mistakes = Vec::new();
        let mut paths = Vec::new();
        let all = top.member("paths");
        if all.as_ref().is_none_or(|all| all.node.as_object().is_none_or(Map::is_empty)) {
            mistakes.push("/paths must name at least one path".to_owned());
        }
        for (template, item) in all.iter().flat_map(At::members).filter(|(name, _)| !name.starts_with("x-")) {
            match self.path(template, &item) {
                Ok(path) => paths.push(path),
                Err(wrong) => mistakes.extend(wrong),
            }
        }
        if paths.len() > PATHS_MAX {
            mistakes.push(format!("/paths must name at most {PATHS_MAX} paths"));
        }
        // Literal segments count from the left: the sort is stable and compares segment by segment.
        paths.sort_by_key(|path| {
            path.segments.iter().map(|segment| Reverse(matches!(segment, Segment::Literal(_)))).collect::<Vec<_>>()
        });
        (paths, mistakes)
    }

    fn path(&self, template: &str, item: &At<'a>) -> Result<Path, Vec<String>> {
        let item = self.followed(item).map_err(|mistake| vec![mistake])?;
        if !template.starts_with('/') {
            return Err(vec![item.wrong("must begin with a slash")]);
        }
        let segments: Option<Vec<Segment>> = super::segments(template).map(segment).collect();
        let segments = segments.ok_or_else(|| vec![item.wrong("must have a parameter as a whole segment, or none")])?;
        let mut mistakes = Vec::new();
        let mut operations = Vec::new();
        for (name, method) in METHODS {
            if let Some(operation) = item.member(name) {
                match self.operation(method, &item, &operation) {
                    Ok(operation) => operations.push(operation),
                    Err(mistake) => mistakes.push(mistake),
                }
            }
        }
        if mistakes.is_empty() {
            Ok(Path { template: template.to_owned(), segments, operations })
        } else {
            Err(mistakes)
        }
    }

    fn operation(&self, method: &'static str, item: &At<'a>, operation: &At<'a>) -> Result<Operation, String> {
        let mut parameters: Vec<Parameter> = Vec::new();
        let lists = [operation.member("parameters"), item.member("parameters")];
        for parameter in lists.iter().flatten().flat_map(At::items) {
            let Some(parameter) = self.parameter(&self.followed(&parameter)?)? else { continue };
            // An operation's own goes before the path's.
            if !parameters.iter().any(|known| known.name == parameter.name && known.place == parameter.place) {
                parameters.push(parameter);
            }
        }
        let body = operation.member("requestBody").map(|body| self.body(&self.followed(&body)?)).transpose()?;
        Ok(Operation { method, parameters, body })
    }

    /// `None` for what does not reach an upstream, or is not ours to check (section 4.8.12.1).
    fn parameter(&self, at: &At<'a>) -> Result<Option<Parameter>, String> {
        let Some(name) = at.node["name"].as_str() else {
            return Err(at.wrong("must have a name"));
        };
        let place = match at.node["in"].as_str() {
            Some("path") => Place::Path,
            Some("query") => Place::Query,
            Some("header") => Place::Header,
            Some("cookie") => return Ok(None),
            _ => return Err(at.wrong("must be in path, query, header or cookie")),
        };
        let ignored = ["accept", "content-type", "authorization"];
        if place == Place::Header && ignored.iter().any(|header| name.eq_ignore_ascii_case(header)) {
            return Ok(None);
        }
        let (schema, shape) = match (at.member("schema"), at.member("content")) {
            (Some(schema), None) => match self.shape(at, place, &schema)? {
                Some(shape) => (schema, shape),
                None => return Ok(None),
            },
            (None, Some(content)) => match json_of(&content) {
                Some(schema) => (schema, Shape::Json),
                None => return Ok(None),
            },
            _ => return Err(at.wrong("must have either schema or content")),
        };
        let required = place == Place::Path || at.flag("required");
        Ok(Some(Parameter { name: name.to_owned(), place, required, shape, validator: self.validator(&schema)? }))
    }

    /// How its text becomes a value; `None` for objects, whose members are parameters of their own in the query.
    fn shape(&self, at: &At<'a>, place: Place, schema: &At<'a>) -> Result<Option<Shape>, String> {
        let schema = self.followed(schema)?;
        let kinds = kinds(schema.node);
        if kinds.contains(&"object") {
            return Ok(None);
        }
        if !kinds.contains(&"array") {
            return Ok(Some(Shape::One(kind(&kinds))));
        }
        let items = schema.member("items").map(|items| self.followed(&items)).transpose()?;
        let kind = kind(&items.map(|items| self::kinds(items.node)).unwrap_or_default());
        let style = at.node["style"].as_str().unwrap_or(if place == Place::Query { "form" } else { "simple" });
        let explode = at.node["explode"].as_bool().unwrap_or(style == "form");
        let between = match style {
            "form" if explode => None,
            "form" | "simple" => Some(','),
            "spaceDelimited" => Some(' '),
            "pipeDelimited" => Some('|'),
            _ => return Err(at.wrong("must have the style form, simple, spaceDelimited or pipeDelimited")),
        };
        Ok(Some(Shape::Many(kind, between)))
    }

    fn body(&self, at: &At<'a>) -> Result<Body, String> {
        let content = at.member("content").ok_or_else(|| at.wrong("must have content"))?;
        let validator = json_of(&content).map(|schema| self.validator(&schema)).transpose()?;
        Ok(Body { required: at.flag("required"), validator })
    }

    fn validator(&self, schema: &At<'a>) -> Result<Validator, String> {
        // Pointers in references are percent-encoded (RFC 6901 section 6).
        let pointer = percent_encoding::utf8_percent_encode(&schema.pointer, percent_encoding::NON_ALPHANUMERIC)
            .to_string()
            .replace("%2F", "/");
        jsonschema::options()
            .offline()
            .with_draft(Draft::Draft202012)
            .with_registry(self.registry)
            .should_validate_formats(true)
            .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(BACKTRACKS_MAX))
            .build(&json!({"$ref": format!("{DOCUMENT}#{pointer}")}))
            .map_err(|error| schema.wrong(&format!("must be a JSON schema: {error}")))
    }

    /// The node that a reference within the document leads to, or the node itself.
    fn followed(&self, at: &At<'a>) -> Result<At<'a>, String> {
        let mut at = at.clone();
        for _ in 0..REFERENCES_MAX {
            let Some(reference) = at.node["$ref"].as_str() else { return Ok(at) };
            let pointer = reference.strip_prefix('#').ok_or_else(|| at.wrong("must refer to the document itself"))?;
            let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy().into_owned();
            let node = self.document.pointer(&pointer).ok_or_else(|| at.wrong("refers to what is not there"))?;
            at = At { node, pointer };
        }
        Err(at.wrong("refers in a circle"))
    }
}

/// The schema of the JSON among media types.
fn json_of<'a>(content: &At<'a>) -> Option<At<'a>> {
    let is_json = |name: &str| {
        let name = name.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        name == "application/json" || name.ends_with("+json")
    };
    content.members().find(|(name, _)| is_json(name)).and_then(|(_, media)| media.member("schema"))
}

/// A segment of a template; `None` when a parameter is only a part of it.
fn segment(text: &str) -> Option<Segment> {
    if !text.contains(['{', '}']) {
        return Some(Segment::Literal(text.to_owned()));
    }
    let name = text.strip_prefix('{')?.strip_suffix('}')?;
    (!name.is_empty() && !name.contains(['{', '}'])).then(|| Segment::Parameter(name.to_owned()))
}

/// The types that a schema allows by name.
fn kinds(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        // A schema of schemas: any of what they allow.
        _ => ["allOf", "anyOf", "oneOf"]
            .iter()
            .flat_map(|name| schema[name].as_array().into_iter().flatten())
            .flat_map(kinds)
            .collect(),
    }
}

fn kind(kinds: &[&str]) -> Kind {
    let number = kinds.iter().any(|kind| matches!(*kind, "integer" | "number"));
    Kind { number, boolean: kinds.contains(&"boolean") }
}
