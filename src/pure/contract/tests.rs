//! An upstream's description, good and bad, and requests held against it.

use super::*;

const PETS: &str = r##"
openapi: 3.1.0
info: {title: Pets, version: '1'}
paths:
  /pets:
    parameters:
      - {name: limit, in: query, schema: {type: integer, maximum: 7}}
    get:
      parameters:
        - $ref: '#/components/parameters/limit'
        - {name: sold, in: query, schema: {type: boolean}}
        - {name: tag, in: query, schema: {type: array, items: {type: string, maxLength: 3}, maxItems: 2}}
        - {name: id, in: query, explode: false, schema: {type: array, items: {type: integer}}}
        - {name: size, in: query, style: pipeDelimited, schema: {type: array, items: {type: number}}}
        - {name: filter, in: query, content: {application/json: {schema: {type: object, required: [by]}}}}
        - {name: deep, in: query, style: deepObject, schema: {type: object}}
        - {name: X-Shop, in: header, required: true, schema: {type: string, pattern: '^[a-z]+$'}}
        - {name: session, in: cookie, required: true, schema: {type: string}}
    post:
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: '#/components/schemas/Pet'}}
  /pets/{id}:
    get:
      parameters:
        - {name: id, in: path, required: true, schema: {type: integer, minimum: 1}}
    delete: {parameters: [{name: id, in: path, required: true, schema: {type: integer}}]}
  /pets/mine:
    get: {}
  /notes:
    put: {requestBody: {content: {text/plain: {}}}}
components:
  parameters:
    limit: {name: limit, in: query, schema: {type: integer, minimum: 1, maximum: 100}}
  schemas:
    Pet:
      type: object
      required: [name]
      additionalProperties: false
      properties:
        name: {type: string, minLength: 1, maxLength: 10}
        kind: {enum: [cat, dog]}
        born: {type: string, format: date}
        young: {type: array, items: {$ref: '#/components/schemas/Pet'}}
"##;

fn pets() -> Contract {
    Contract::parse(PETS).map_err(|mistakes| mistakes.join("\n")).unwrap()
}

/// `METHOD /path?query`, with a shop and perhaps a body: what is against the contract, if anything is.
fn check(request: &str, body: Option<&str>) -> Result<(), String> {
    let pets = pets();
    let (method, target) = request.split_once(' ').unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let header = |name: &str| (name == "X-Shop").then_some(b"corner".as_slice());
    let Found::Operation(operation, texts) = pets.find(method, path) else { panic!("{request} leads nowhere") };
    let asked = Asked { query, header: &header, body: body.map(str::as_bytes) };
    operation.check(&texts, &asked).map_err(|Breach { place, rule }| format!("{place} {rule}"))
}

#[test]
fn paths_lead_to_operations() {
    let pets = pets();
    let found = |method, path| match pets.find(method, path) {
        Found::Operation(operation, texts) => {
            format!(
                "{} {}",
                operation.method,
                texts.iter().map(|(name, text)| format!("{name}={text}")).collect::<String>()
            )
        }
        Found::OtherMethods(methods) => methods.join(", "),
        Found::Nothing => "nothing".to_owned(),
    };
    for (method, path, wanted) in [
        ("GET", "/pets", "GET "),
        ("GET", "/pets/", "GET "),
        ("HEAD", "/pets", "GET "),
        ("GET", "/pets/7", "GET id=7"),
        ("GET", "/pets/a%20b%2Fc", "GET id=a b/c"),
        ("GET", "/pets/mine", "GET "),
        ("GET", "/pets/m%69ne", "GET "),
        ("DELETE", "/pets/mine", "DELETE id=mine"),
        ("PATCH", "/pets/7", "GET, DELETE"),
        ("PUT", "/pets/mine", "GET, GET, DELETE"),
        ("GET", "", "nothing"),
        ("GET", "/", "nothing"),
        ("GET", "/pets//", "nothing"),
        ("GET", "/pets/7/8", "nothing"),
        ("GET", "/pets/%FF", "nothing"),
        ("GET", "/Pets", "nothing"),
    ] {
        assert_eq!(found(method, path), wanted, "{method} {path}");
    }
}

#[test]
fn parameters_are_held_against_their_schemas() {
    for (request, wanted) in [
        ("GET /pets", ""),
        ("GET /pets?limit=100&unknown=x&session=", ""),
        ("GET /pets?limit=0", "parameter limit must be at least 1"),
        ("GET /pets?limit=101", "parameter limit must be at most 100"),
        ("GET /pets?limit=ten", "parameter limit must be of type integer"),
        ("GET /pets?limit=", "parameter limit must be of type integer"),
        ("GET /pets?limit=1&limit=2", "parameter limit is there twice"),
        ("GET /pets?sold=true", ""),
        ("GET /pets?sold=1", "parameter sold must be of type boolean"),
        ("GET /pets?tag=abc&tag=d", ""),
        ("GET /pets?tag=123", ""),
        ("GET /pets?tag=abcd", "parameter tag must have at most 3 characters"),
        ("GET /pets?tag=a&tag=b&tag=c", "parameter tag must have at most 2 items"),
        ("GET /pets?id=1,2,3", ""),
        ("GET /pets?id=1,x", "parameter id must be of type integer"),
        ("GET /pets?size=1.5%7C2", ""),
        ("GET /pets?size=1.5%7Cwide", "parameter size must be of type number"),
        ("GET /pets?filter=%7B%22by%22:1%7D", ""),
        ("GET /pets?filter=%7B%7D", "parameter filter must have the member by"),
        ("GET /pets?filter=%7B", "parameter filter must be JSON (RFC 8259)"),
        ("GET /pets/1", ""),
        ("GET /pets/0", "parameter id must be at least 1"),
        ("GET /pets/zero", "parameter id must be of type integer"),
    ] {
        assert_eq!(check(request, None).err().unwrap_or_default(), wanted, "{request}");
    }
}

#[test]
fn a_header_that_is_required_must_be_there_and_be_right() {
    let pets = pets();
    let Found::Operation(operation, _) = pets.find("GET", "/pets") else { panic!() };
    let with = |line: Option<&'static [u8]>| {
        let asked = Asked { query: "", header: &|_| line, body: None };
        operation.check(&[], &asked).err().map(|breach| breach.rule.into_owned())
    };
    assert_eq!(with(None).as_deref(), Some("is missing"));
    assert_eq!(with(Some(b"Corner")).as_deref(), Some("must match the pattern ^[a-z]+$"));
    assert_eq!(with(Some(b"corner")), None);
}

#[test]
fn bodies_are_held_against_their_schemas_and_never_repeated() {
    for (body, wanted) in [
        (r#"{"name":"Tom"}"#, ""),
        (r#"{"name":"Tom","kind":"cat","born":"2020-02-29","young":[{"name":"Tim"}]}"#, ""),
        ("", "body must be JSON (RFC 8259)"),
        (r#"{"name":"#, "body must be JSON (RFC 8259)"),
        ("[]", "body must be of type object"),
        ("{}", "body must have the member name"),
        (r#"{"name":"TOPSECRET-TOPSECRET"}"#, "body /name must have at most 10 characters"),
        (r#"{"name":"Tom","kind":"TOPSECRET"}"#, r#"body /kind must be one of ["cat","dog"]"#),
        (r#"{"name":"Tom","born":"TOPSECRET"}"#, "body /born must have the format date"),
        (r#"{"name":"Tom","TOPSECRET":1}"#, "body has a member that it must not have"),
        (r#"{"name":"Tom","young":[{"name":"Tim"},{}]}"#, "body /young/1 must have the member name"),
    ] {
        let found = check("POST /pets", Some(body)).err().unwrap_or_default();
        assert_eq!(found, wanted, "{body}");
    }
    assert_eq!(check("POST /pets", None).unwrap_err(), "body is missing");
    assert_eq!(check("PUT /notes", Some("anything")), Ok(()));
    assert_eq!(check("PUT /notes", None), Ok(()));
}

#[test]
fn a_place_far_down_is_cut() {
    let text = "openapi: 3.1.0\npaths: {/: {post: {requestBody: {content: {application/json: {schema: \
                {additionalProperties: {type: integer}}}}}}}}";
    let contract = Contract::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let Found::Operation(operation, _) = contract.find("POST", "/") else { panic!() };
    let body = format!(r#"{{"{}":"x"}}"#, "é".repeat(1_000));
    let asked = Asked { query: "", header: &|_| None, body: Some(body.as_bytes()) };
    let breach = operation.check(&[], &asked).unwrap_err();
    assert!(breach.place.len() < 220 && breach.place.ends_with('…'), "{}", breach.place);
    assert_eq!(breach.rule, "must be of type integer");
}

#[test]
fn version_3_0_is_read_in_its_own_terms() {
    let text = "openapi: 3.0.3\npaths: {/: {get: {parameters: [\
                {name: a, in: query, schema: {type: number, minimum: 1, exclusiveMinimum: true}},\
                {name: b, in: query, schema: {type: number, maximum: 9, exclusiveMaximum: false}}]},\
                post: {requestBody: {content: {application/json: {schema: \
                {type: object, properties: {c: {type: string, nullable: true, enum: [x]}}}}}}}}}";
    let contract = Contract::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let check = |method, query, body: Option<&str>| {
        let Found::Operation(operation, _) = contract.find(method, "") else { panic!() };
        let asked = Asked { query, header: &|_| None, body: body.map(str::as_bytes) };
        operation.check(&[], &asked).map_err(|breach| breach.rule.into_owned())
    };
    assert_eq!(check("GET", "a=1", None).unwrap_err(), "must be more than 1");
    assert_eq!(check("GET", "a=1.5&b=9", None), Ok(()));
    assert_eq!(check("GET", "b=9.5", None).unwrap_err(), "must be at most 9");
    assert_eq!(check("POST", "", Some(r#"{"c":null}"#)), Ok(()));
    assert_eq!(check("POST", "", Some(r#"{"c":"y"}"#)).unwrap_err(), r#"must be one of ["x",null]"#);
}

#[test]
fn a_pattern_that_would_take_ages_is_given_up() {
    let text =
        "openapi: 3.1.0\npaths: {/: {get: {parameters: [{name: a, in: query, schema: {pattern: '^(a|a)*(?=b)$'}}]}}}";
    let contract = Contract::parse(text).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
    let Found::Operation(operation, _) = contract.find("GET", "") else { panic!() };
    let query = format!("a={}", "a".repeat(5_000));
    assert!(operation.check(&[], &Asked { query: &query, header: &|_| None, body: None }).is_err());
}

#[test]
fn mistakes_are_all_named_with_their_places() {
    let head = "openapi: 3.1.0\npaths: ";
    for (paths, wanted) in [
        ("{}", "/paths must name at least one path"),
        ("{pets: {get: {}}}", "/paths/pets must begin with a slash"),
        ("{'/{a}.json': {get: {}}}", "/paths/~1{a}.json must have a parameter as a whole segment, or none"),
        ("{/: {get: {parameters: [{in: query}]}}}", "/paths/~1/get/parameters/0 must have a name"),
        (
            "{/: {get: {parameters: [{name: a, in: body, schema: {}}]}}}",
            "/paths/~1/get/parameters/0 must be in path, query, header or cookie",
        ),
        (
            "{/: {get: {parameters: [{name: a, in: query}]}}}",
            "/paths/~1/get/parameters/0 must have either schema or content",
        ),
        ("{/: {get: {parameters: [{$ref: '#/none'}]}}}", "/paths/~1/get/parameters/0 refers to what is not there"),
        (
            "{/: {get: {parameters: [{$ref: 'https://example.org/#/a'}]}}}",
            "/paths/~1/get/parameters/0 must refer to the document itself",
        ),
        ("{/: {$ref: '#/paths/~1'}}", "/paths/~1 refers in a circle"),
        ("{/: {post: {requestBody: {}}}}", "/paths/~1/post/requestBody must have content"),
    ] {
        let mistakes = Contract::parse(&format!("{head}{paths}")).err().unwrap_or_default();
        assert_eq!(mistakes, [wanted], "{paths}");
    }
    let twice = "{/: {post: {requestBody: {}}}, a: {}}";
    assert_eq!(Contract::parse(&format!("{head}{twice}")).err().unwrap().len(), 2);
    let schema = "{/: {get: {parameters: [{name: a, in: query, schema: {type: text}}]}}}";
    let mistakes = Contract::parse(&format!("{head}{schema}")).err().unwrap();
    assert!(mistakes[0].starts_with("/paths/~1/get/parameters/0/schema must be a JSON schema: "), "{mistakes:?}");
    for text in ["", "[", "swagger: '2.0'", "openapi: 4.0.0", "openapi: 3"] {
        assert_eq!(Contract::parse(text).err().unwrap().len(), 1, "{text}");
    }
}
