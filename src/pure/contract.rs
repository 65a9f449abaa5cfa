//! What an upstream API says of its own requests, in an OpenAPI document: which there are, and what is right in them.
//!
//! A request is held against it before anything is charged or sent. What comes of a mismatch names the place and the rule,
//! and never what was sent.

mod load;
mod rule;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use jsonschema::Validator;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use self::rule::rule;

/// An OpenAPI document of version 3.0 or 3.1, as far as requests are concerned.
pub struct Contract {
    /// As it was read, references and all, in the terms of version 3.1.
    document: Value,
    /// Those whose paths have more literal segments come first: `/pets/mine` before `/pets/{id}` (OpenAPI 3.1, section
    /// 4.8.8.2).
    paths: Vec<Path>,
}

/// Two are alike when their documents are.
impl PartialEq for Contract {
    fn eq(&self, other: &Contract) -> bool {
        self.document == other.document
    }
}

impl Eq for Contract {}

impl fmt::Debug for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contract").field("paths", &self.paths.len()).finish_non_exhaustive()
    }
}

/// All operations of one path.
struct Path {
    template: String,
    segments: Vec<Segment>,
    operations: Vec<Operation>,
}

#[derive(Debug, PartialEq)]
enum Segment {
    Literal(String),
    /// The name of the parameter that stands here.
    Parameter(String),
}

/// One method at one path.
pub struct Operation {
    /// In capitals.
    method: &'static str,
    parameters: Vec<Parameter>,
    body: Option<Body>,
}

struct Parameter {
    name: String,
    place: Place,
    required: bool,
    shape: Shape,
    validator: Validator,
}

/// Where a parameter stands. Cookies do not reach upstreams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Path,
    Query,
    Header,
}

/// How the text of a parameter becomes a value (OpenAPI 3.1, section 4.8.12.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One value.
    One(Kind),
    /// Values in one text with something between them, or, without that, in texts of their own.
    Many(Kind, Option<char>),
    /// JSON, from `content`.
    Json,
}

/// What a text may be read as, beside text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kind {
    number: bool,
    boolean: bool,
}

struct Body {
    required: bool,
    /// What JSON is held against; none where the document names other media types only.
    validator: Option<Validator>,
}

/// Where a request leads, or why nowhere.
pub enum Found<'a> {
    /// To this operation; with the texts of its path, decoded, by the order of the segments that are parameters.
    Operation(&'a Operation, Vec<(&'a str, String)>),
    /// The path has other methods only.
    OtherMethods(Vec<&'static str>),
    /// No path is like this.
    Nothing,
}

/// A request as it is held against an operation.
pub struct Asked<'a> {
    /// Its query, without the question mark.
    pub query: &'a str,
    /// The first line of a header by its name.
    pub header: &'a dyn Fn(&str) -> Option<&'a [u8]>,
    /// Its body as JSON; `None` where there is none.
    pub body: Option<&'a [u8]>,
}

/// What of a request is against its contract: a place and a rule, without anything that was sent but names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// `parameter limit`, `body`, `body /items/0/name`.
    pub place: String,
    /// `must be at most 100`.
    pub rule: Cow<'static, str>,
}

impl Breach {
    fn of(place: impl Into<String>, rule: impl Into<Cow<'static, str>>) -> Breach {
        Breach { place: place.into(), rule: rule.into() }
    }
}

impl Contract {
    /// Reads a document in YAML or JSON.
    ///
    /// # Errors
    /// Every mistake that keeps requests from being held against it, with its place in the document.
    pub fn parse(text: &str) -> Result<Contract, Vec<String>> {
        load::contract(text)
    }

    /// The operation for a method and the part of the path that belongs to the upstream: empty, or with a slash at its
    /// start. HEAD is GET where the document does not say otherwise (RFC 9110 section 9.3.2).
    pub fn find(&self, method: &str, path: &str) -> Found<'_> {
        let segments: Vec<&str> = segments(path).collect();
        let mut others = Vec::new();
        for path in self.paths.iter().filter(|path| path.segments.len() == segments.len()) {
            let Some(texts) = path.texts(&segments) else { continue };
            let by_method = |method| path.operations.iter().find(|operation| operation.method == method);
            let found = by_method(method).or_else(|| by_method("GET").filter(|_| method == "HEAD"));
            if let Some(operation) = found {
                return Found::Operation(operation, texts);
            }
            others.extend(path.operations.iter().map(|operation| operation.method));
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
    }

    /// Every path, as the document writes it, with its methods.
    pub fn operations(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.paths.iter().flat_map(|path| path.operations.iter().map(|operation| (&*path.template, operation.method)))
    }

    /// The document, in the terms of OpenAPI 3.1.
    pub fn document(&self) -> &Value {
        &self.document
    }
}

/// The parts of a path between its slashes. A slash at the end is as good as none.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').filter(move |_| !path.is_empty())
}

impl Path {
    /// The texts that stand where the parameters are, if the path is like this one.
    fn texts(&self, segments: &[&str]) -> Option<Vec<(&str, String)>> {
        let mut texts = Vec::new();
        for (ours, theirs) in self.segments.iter().zip(segments) {
            let decoded = percent_decode_str(theirs).decode_utf8().ok()?;
            match ours {
                Segment::Literal(text) if *text == decoded => {}
                Segment::Parameter(name) if !decoded.is_empty() => texts.push((&**name, decoded.into_owned())),
                _ => return None,
            }
        }
        Some(texts)
    }
}

impl Operation {
    /// Holds a request against the operation. `path` are the texts that [`Contract::find`] has found.
    ///
    /// # Errors
    /// The first mismatch: parameters by the order of the document, then the body.
    pub fn check(&self, path: &[(&str, String)], asked: &Asked<'_>) -> Result<(), Breach> {
        // What the document does not name passes: it says what is there, not what is not.
        for parameter in &self.parameters {
            let texts: Vec<Cow<'_, str>> = match parameter.place {
                Place::Path => {
                    path.iter().filter(|(name, _)| *name == parameter.name).map(|(_, text)| text.into()).collect()
                }
                Place::Query => form_urlencoded::parse(asked.query.as_bytes())
                    .filter(|(name, _)| *name == parameter.name)
                    .map(|(_, text)| text)
                    .collect(),
                Place::Header => (asked.header)(&parameter.name).map(String::from_utf8_lossy).into_iter().collect(),
            };
            parameter.check(&texts)?;
        }
        match (&self.body, asked.body) {
            (Some(Body { required: true, .. }), None) => Err(Breach::of("body", "is missing")),
            (Some(Body { validator: Some(validator), .. }), Some(body)) => {
                let body: Value =
                    serde_json::from_slice(body).map_err(|_| Breach::of("body", "must be JSON (RFC 8259)"))?;
                validator.validate(&body).map_err(|error| match error.instance_path().as_str() {
                    "" => Breach::of("body", rule(&error)),
                    place => Breach::of(format!("body {}", shortened(place)), rule(&error)),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Parameter {
    fn check(&self, texts: &[Cow<'_, str>]) -> Result<(), Breach> {
        let breach = |rule| Err(Breach::of(format!("parameter {}", self.name), rule));
        let value = match (self.shape, texts) {
            (_, []) if self.required => return breach(Cow::Borrowed("is missing")),
            (_, []) => return Ok(()),
            (Shape::Many(kind, None), texts) => texts.iter().map(|text| kind.value(text)).collect(),
            (_, [_, _, ..]) => return breach(Cow::Borrowed("is there twice")),
            (Shape::Many(kind, Some(between)), [text]) => text.split(between).map(|text| kind.value(text)).collect(),
            (Shape::One(kind), [text]) => kind.value(text),
            (Shape::Json, [text]) => match serde_json::from_str(text) {
                Ok(value) => value,
                Err(_) => return breach(Cow::Borrowed("must be JSON (RFC 8259)")),
            },
        };
        self.validator.validate(&value).or_else(|error| breach(rule(&error)))
    }
}

impl Kind {
    /// The value that a text stands for: what looks like none of what it may be is text.
    fn value(self, text: &str) -> Value {
        match text {
            "true" | "false" if self.boolean => Value::Bool(text == "true"),
            _ if self.number => {
                let number = serde_json::from_str(text).ok().map(Value::Number);
                number.unwrap_or_else(|| text.into())
            }
            _ => text.into(),
        }
    }
}

/// A place in a body is as long as the caller makes it.
fn shortened(place: &str) -> Cow<'_, str> {
    const BYTES_MAX: usize = 200;
    match place.char_indices().map(|(at, _)| at).take_while(|at| *at <= BYTES_MAX).last() {
        Some(end) if place.len() > BYTES_MAX => format!("{}…", &place[..end]).into(),
        _ => place.into(),
    }
}
