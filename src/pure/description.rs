//! The description of the whole: our own OpenAPI document with the operations of upstream APIs in it.
//!
//! What an upstream says of its requests is taken over; its answers are described as callers get them, in the envelope and in
//! four formats. An API that says nothing of itself gets an entry all the same.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};
use serde_yaml::Value as Yaml;

use super::contract::Contract;
use super::format::{self, Format, Style};

/// Our own part of the description, as kept at the top of the repository.
pub const OPENAPI_YAML: &str = include_str!("../../openapi.yaml");

/// The description of the whole, as it is given out.
#[derive(Clone, Debug)]
pub struct Description {
    /// In YAML.
    pub yaml: Bytes,
    /// In JSON.
    pub json: Bytes,
}

impl Description {
    /// That of our own APIs and of `apis`.
    pub fn of(apis: &[Described<'_>]) -> Description {
        static OWN: LazyLock<Description> = LazyLock::new(|| {
            // As the file has it, with its comments.
            Description { yaml: Bytes::from_static(OPENAPI_YAML.as_bytes()), ..Description::written(&[]) }
        });
        if apis.is_empty() { OWN.clone() } else { Description::written(apis) }
    }

    fn written(apis: &[Described<'_>]) -> Description {
        const CHECKED: &str = "openapi.yaml is checked by the tests";
        let whole = merged(OPENAPI_YAML, apis).expect(CHECKED);
        let json = serde_json::to_vec(&whole).expect(CHECKED);
        let mut yaml = Vec::new();
        format::transcode(&json, Format::Yaml, Style::default(), &mut yaml).expect(CHECKED);
        Description { yaml: yaml.into(), json: json.into() }
    }
}

/// An upstream API, as far as its description goes.
pub struct Described<'a> {
    /// Its name, which also groups its operations.
    pub name: &'a str,
    /// Its path, without a slash at the end.
    pub path: &'a str,
    /// Its methods, in capitals.
    pub methods: Vec<&'a str>,
    /// Whether anybody may call it.
    pub open: bool,
    /// What a successful call with a key costs.
    pub cost: u32,
    /// Whether `data` is all that the upstream answers, and not a part of it.
    pub whole: bool,
    /// What it says of itself.
    pub contract: Option<&'a Contract>,
}

/// `base`, which is our own description, with the operations of `apis`.
///
/// # Errors
/// When `base` is no YAML.
fn merged(base: &str, apis: &[Described<'_>]) -> Result<Yaml, serde_yaml::Error> {
    let mut whole: Yaml = serde_yaml::from_str(base)?;
    if apis.is_empty() {
        return Ok(whole);
    }
    let components = &mut whole["components"];
    for (name, description) in FAILURES {
        let mut failure = components["responses"]["EnvelopedInternalError"].clone();
        failure["description"] = description.into();
        components["responses"][name] = failure;
    }
    components["schemas"]["CsvTable"] = serde_yaml::to_value(json!({
        "description": "A header, then rows (RFC 4180): of an object the ways to its values and the values, of an array \
                        its items.",
        "type": "string",
    }))?;
    let headers = serde_json::to_value(&components["responses"]["Usage"]["headers"]).unwrap_or_default();
    for api in apis {
        let Entry { paths, components } = api.entry(&headers);
        for (path, item) in paths {
            whole["paths"][path] = serde_yaml::to_value(item)?;
        }
        for (kind, named) in components {
            for (name, component) in named.as_object().into_iter().flatten() {
                whole["components"][&*kind][&**name] = serde_yaml::to_value(component)?;
            }
        }
        let tag = json!({"name": api.name, "description": api.terms()});
        whole["tags"].as_sequence_mut().into_iter().try_for_each(|tags| {
            tags.push(serde_yaml::to_value(&tag)?);
            Ok::<_, serde_yaml::Error>(())
        })?;
    }
    Ok(whole)
}

/// How calls fail that only upstreams make fail.
const FAILURES: [(&str, &str); 2] = [
    ("UpstreamFailed", "The API behind this path failed, or answered what cannot be passed on. Costs nothing."),
    ("UpstreamTimeout", "The API behind this path did not answer in time. Costs nothing."),
];

/// What every call can end in, beside its success, by the names of our own responses.
const ENDS: [(&str, &str); 11] = [
    ("400", "EnvelopedBadRequest"),
    ("401", "EnvelopedUnauthorized"),
    ("403", "EnvelopedForbidden"),
    ("405", "EnvelopedMethodNotAllowed"),
    ("406", "EnvelopedNotAcceptable"),
    ("429", "EnvelopedRateLimited"),
    ("431", "EnvelopedHeadersTooLarge"),
    ("500", "EnvelopedInternalError"),
    ("502", "UpstreamFailed"),
    ("503", "EnvelopedUnavailable"),
    ("504", "UpstreamTimeout"),
];

/// And one with a body.
const ENDS_WITH_BODY: [(&str, &str); 3] =
    [("408", "EnvelopedRequestTimeout"), ("413", "EnvelopedBodyTooLarge"), ("415", "EnvelopedUnsupportedBody")];

/// What an API adds to the description.
struct Entry {
    paths: Map<String, Value>,
    /// By their kind: schemas, parameters and so on.
    components: Map<String, Value>,
}

impl Described<'_> {
    fn entry(&self, headers: &Value) -> Entry {
        match self.contract {
            Some(contract) => self.contracted(contract.document(), headers),
            None => self.generic(headers),
        }
    }

    fn terms(&self) -> String {
        match (self.open, self.cost) {
            (true, _) => "Open to all, limited per client address, free of charge.".to_owned(),
            (false, 0) => "Needs a key; costs nothing.".to_owned(),
            (false, 1) => "Needs a key; a success costs a credit.".to_owned(),
            (false, cost) => format!("Needs a key; a success costs {cost} credits."),
        }
    }

    /// The path itself and what lies below it: OpenAPI has no word for paths of any length.
    fn generic(&self, headers: &Value) -> Entry {
        let rest = json!({"name": "rest", "in": "path", "required": true, "schema": {"type": "string"},
            "description": "What lies below, with any number of segments."});
        let item = |path: &str, parameters: Value| {
            let operations = self.methods.iter().map(|method| {
                let method = method.to_ascii_lowercase();
                let operation = json!({
                    "operationId": format!("{}.{method}{path}", self.name),
                    "summary": format!("{} {}", method.to_ascii_uppercase(), self.name),
                    "parameters": parameters,
                });
                let operation = self.finished(operation, &method, json!({}), headers);
                (method, operation)
            });
            Value::Object(operations.collect())
        };
        let paths = [
            (self.path.to_owned(), item("", json!([]))),
            (format!("{}/{{rest}}", self.path), item(".rest", json!([rest]))),
        ];
        Entry { paths: paths.into_iter().collect(), components: Map::new() }
    }

    /// The operations that the upstream describes, for the methods that are let through.
    fn contracted(&self, document: &Value, headers: &Value) -> Entry {
        let mut document = document.clone();
        self.redirect(&mut document);
        let mut paths = Map::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            let mut ours = Map::new();
            for method in self.methods.iter().map(|method| method.to_ascii_lowercase()) {
                let Some(theirs) = item.get(&method) else { continue };
                let mut operation = Map::new();
                for name in ["summary", "description", "deprecated", "externalDocs", "parameters", "requestBody"] {
                    operation.extend(theirs.get(name).map(|value| (name.to_owned(), value.clone())));
                }
                let id = theirs["operationId"].as_str().map_or_else(|| format!("{method} {path}"), str::to_owned);
                operation.insert("operationId".to_owned(), format!("{}.{id}", self.name).into());
                let data = if self.whole { success_schema(&document, theirs) } else { json!({}) };
                ours.insert(method.clone(), self.finished(Value::Object(operation), &method, data, headers));
            }
            if !ours.is_empty() {
                ours.extend(item.get("parameters").map(|shared| ("parameters".to_owned(), shared.clone())));
                paths.insert(format!("{}{}", self.path, path.trim_end_matches('/')), Value::Object(ours));
            }
        }
        let mut components = Map::new();
        for (kind, named) in document["components"].as_object().into_iter().flatten() {
            // How the upstream knows who asks is between it and us.
            if kind != "securitySchemes" {
                let named = named.as_object().into_iter().flatten();
                let named = named.map(|(name, component)| (format!("{}.{name}", self.name), component.clone()));
                components.insert(kind.clone(), Value::Object(named.collect()));
            }
        }
        Entry { paths, components }
    }

    /// An operation with what all of them have.
    fn finished(&self, mut operation: Value, method: &str, data: Value, headers: &Value) -> Value {
        operation["tags"] = json!([self.name]);
        operation["security"] = if self.open { json!([{}]) } else { json!([{"ApiKey": []}, {"Bearer": []}]) };
        let enveloped = json!({"schema": {
            "type": "object",
            "required": ["status", "error", "data"],
            "properties": {"status": {"const": "ok"}, "error": {"type": "null"}, "data": data},
            "xml": {"name": "response"},
        }});
        let table = json!({"schema": {"$ref": "#/components/schemas/CsvTable"}});
        operation["responses"] = json!({"200": {
            "description": "What the API behind this path answers, as `data`.",
            "headers": headers,
            "content": {
                "application/json": enveloped,
                "application/xml": enveloped,
                "application/yaml": enveloped,
                "text/csv": table,
            },
        }});
        let with_body = if matches!(method, "get" | "head") { &[][..] } else { &ENDS_WITH_BODY };
        for (status, name) in ENDS.iter().chain(with_body).filter(|(status, _)| !self.open || *status != "401") {
            operation["responses"][*status] = json!({"$ref": format!("#/components/responses/{name}")});
        }
        let missing = "Nothing is there, says the API behind this path. Costs nothing.";
        operation["responses"]["404"] =
            json!({"$ref": "#/components/responses/EnvelopedUnknownApi", "description": missing});
        operation
    }

    /// Lets all references lead to where things are in the whole.
    fn redirect(&self, node: &mut Value) {
        match node {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get_mut("$ref") {
                    *reference = self.redirected(reference);
                }
                members.values_mut().for_each(|member| self.redirect(member));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redirect(item)),
            _ => {}
        }
    }

    fn redirected(&self, reference: &str) -> String {
        if let Some((kind, rest)) = reference.strip_prefix("#/components/").and_then(|rest| rest.split_once('/')) {
            return format!("#/components/{kind}/{}.{rest}", self.name);
        }
        match reference.strip_prefix("#/paths/") {
            Some(rest) => format!("#/paths/{}{rest}", self.path.replace('/', "~1")),
            None => reference.to_owned(),
        }
    }
}

/// The schema of the JSON that a call answers when all is well; one that allows everything where none is named.
fn success_schema(document: &Value, operation: &Value) -> Value {
    let responses = operation["responses"].as_object().into_iter().flatten();
    let success = responses.into_iter().find(|(status, _)| status.starts_with('2')).map(|(_, response)| response);
    let success = match success.and_then(|response| response["$ref"].as_str()) {
        // The name of a component has its API's before it by now; the document has not.
        Some(reference) => {
            let name = reference.rsplit('/').next().and_then(|name| name.split_once('.')).map(|(_, name)| name);
            name.and_then(|name| document["components"]["responses"].get(name))
        }
        None => success,
    };
    let content = success.and_then(|response| response["content"].as_object()).into_iter().flatten();
    let json = content.into_iter().find(|(name, _)| name.starts_with("application/json") || name.contains("+json"));
    json.and_then(|(_, media)| media.get("schema")).cloned().unwrap_or_else(|| json!({}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(api: &Described<'_>) -> Value {
        serde_json::to_value(merged(OPENAPI_YAML, std::slice::from_ref(api)).unwrap()).unwrap()
    }

    fn quotes() -> Described<'static> {
        Described {
            name: "quotes",
            path: "/v1/quotes",
            methods: vec!["GET", "POST"],
            open: false,
            cost: 2,
            whole: true,
            contract: None,
        }
    }

    /// Every reference in `node` leads somewhere in `whole`.
    fn assert_references_lead_somewhere(whole: &Value, node: &Value) {
        match node {
            Value::Object(members) => {
                if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                    assert!(whole.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
                }
                members.values().for_each(|member| assert_references_lead_somewhere(whole, member));
            }
            Value::Array(items) => items.iter().for_each(|item| assert_references_lead_somewhere(whole, item)),
            _ => {}
        }
    }

    #[test]
    fn without_upstreams_the_description_is_our_own() {
        assert_eq!(merged(OPENAPI_YAML, &[]).unwrap(), serde_yaml::from_str::<Yaml>(OPENAPI_YAML).unwrap());
    }

    #[test]
    fn an_api_that_says_nothing_gets_an_entry() {
        let whole = whole(&quotes());
        for (path, id) in [("/v1/quotes", "quotes.post"), ("/v1/quotes/{rest}", "quotes.post.rest")] {
            let post = &whole["paths"][path]["post"];
            assert_eq!(post["operationId"], id);
            let statuses: Vec<&String> = post["responses"].as_object().unwrap().keys().collect();
            let wanted =
                "200 400 401 403 404 405 406 408 413 415 429 431 500 502 503 504".split(' ').collect::<Vec<_>>();
            assert_eq!(statuses, wanted);
            assert!(post["responses"]["200"]["headers"]["X-Request-ID"].is_object());
        }
        assert!(whole["paths"]["/v1/quotes"]["get"]["responses"]["413"].is_null());
        assert_references_lead_somewhere(&whole, &whole);
        let tag = whole["tags"].as_array().unwrap().last().unwrap();
        assert_eq!(tag["description"], "Needs a key; a success costs 2 credits.");
    }

    #[test]
    fn a_contract_brings_its_operations_and_what_they_refer_to() {
        let contract = Contract::parse(
            r##"
openapi: 3.1.0
info: {title: Pets, version: '1'}
paths:
  /pets/{id}:
    parameters: [{$ref: '#/components/parameters/id'}]
    get:
      operationId: pet
      summary: One pet
      parameters: [{$ref: '#/paths/~1pets~1{id}/parameters/0'}]
      responses: {'200': {$ref: '#/components/responses/Pet'}, '404': {description: None.}}
    delete: {responses: {'204': {description: Gone.}}}
  /pets/:
    post:
      requestBody: {content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
      responses: {'201': {description: Made., content: {application/json: {schema: {type: integer}}}}}
components:
  parameters: {id: {name: id, in: path, required: true, schema: {type: integer}}}
  responses: {Pet: {description: It., content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}}
  schemas: {Pet: {type: object, properties: {young: {type: array, items: {$ref: '#/components/schemas/Pet'}}}}}
  securitySchemes: {secret: {type: http, scheme: basic}}
"##,
        )
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let whole = whole(&Described { contract: Some(&contract), ..quotes() });
        assert_references_lead_somewhere(&whole, &whole);
        let item = &whole["paths"]["/v1/quotes/pets/{id}"];
        assert_eq!(item["get"]["operationId"], "quotes.pet");
        let json = |operation: &Value| operation["responses"]["200"]["content"]["application/json"].clone();
        let data = &json(&item["get"])["schema"]["properties"]["data"];
        assert_eq!(data["$ref"], "#/components/schemas/quotes.Pet");
        assert!(item["delete"].is_null(), "a method that is not let through");
        let post = &whole["paths"]["/v1/quotes/pets"]["post"];
        assert_eq!(post["operationId"], "quotes.post /pets/");
        assert_eq!(json(post)["schema"]["properties"]["data"]["type"], "integer");
        assert!(whole["components"]["schemas"]["quotes.Pet"].is_object());
        assert!(whole["components"]["securitySchemes"]["quotes.secret"].is_null());

        let part = whole_of_part(&contract);
        assert_eq!(json(&part["paths"]["/v1/quotes/pets"]["post"])["schema"]["properties"]["data"], json!({}));
    }

    fn whole_of_part(contract: &Contract) -> Value {
        whole(&Described { contract: Some(contract), whole: false, ..quotes() })
    }
}
