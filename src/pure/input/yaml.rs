//! YAML bodies (YAML 1.2 core schema): one small mapping, without the parts of YAML that grow or reach out.

use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::granit_parser::ErrorKind;
use serde_saphyr::localizer::ExternalMessageSource;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Location, Options, Spanned};
use zeroize::Zeroizing;

use super::members::Members;
use super::{Fault, Input, Value, invalid_body};

/// How deep a document may nest.
const DEPTH_MAX: usize = 16;

/// The reason when it nests deeper, whoever notices: the scanner runs ahead of the count.
const TOO_DEEP: &str = "YAML nested too deep";

/// How many nodes a document of parameters may have, names included.
const NODES_MAX: usize = 512;

/// Reads the members of the mapping at the top of the only document. Anchors, aliases, merge keys and tags beyond those
/// of the core schema are refused.
///
/// A plain scalar is what YAML 1.2 says it is: `6` is a number and `yes` is text. A number written with a leading zero
/// stays text, so that `0755` keeps the digits that were written. Other numbers are kept as they were written too.
pub(super) fn read<'a>(input: &mut Input<'a>, text: &'a str) -> Result<(), Fault> {
    let mut fault = None;
    // Members that come twice are seen to where it is known which of them matter.
    let options = options(NODES_MAX, DuplicateKeyPolicy::PassThrough);
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options, |reader| {
        Members { input, fault: &mut fault, value: Node(text) }.deserialize(reader)
    });
    result.map_err(|error| fault.unwrap_or_else(|| refused(&error)))
}

/// What is told of an error, which itself may hold parts of the body.
pub(super) fn refused(error: &Error) -> Fault {
    let reason = reason(error);
    match error.location() {
        Some(at) => invalid_body(format!("{reason} at line {} column {}", at.line(), at.column())),
        None => invalid_body(reason),
    }
}

fn reason(error: &Error) -> &'static str {
    match error {
        Error::Budget { breach, .. } => match breach {
            BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } => "YAML with anchors or aliases",
            BudgetBreach::Documents { .. } => "more than one YAML document",
            BudgetBreach::Depth { .. } => TOO_DEEP,
            _ => "YAML with too much in it",
        },
        Error::ExternalMessage { source, .. } => match &**source {
            ExternalMessageSource::Parser(error) if *error.kind() == ErrorKind::RecursionLimitExceeded => TOO_DEEP,
            _ => "not valid YAML",
        },
        // Only a tag can be at odds with a scalar: one without a tag is text when it is nothing else.
        Error::UnsupportedTag { .. }
        | Error::InvalidScalar { .. }
        | Error::InvalidBooleanStrict { .. }
        | Error::InvalidBinaryBase64 { .. }
        | Error::BinaryNotUtf8 { .. } => "YAML with a tag that is not accepted",
        Error::DuplicateMappingKey { .. } => "YAML with a name that comes twice",
        Error::MergeKeyNotAllowed { .. } => "YAML with merge keys",
        Error::Eof { .. } => "an empty YAML document",
        Error::SerdeInvalidType { .. } => "not a YAML mapping",
        _ => "not valid YAML",
    }
}

/// Reads a value out of the text that it stands in.
#[derive(Clone, Copy)]
struct Node<'a>(&'a str);

impl<'a> DeserializeSeed<'a> for Node<'a> {
    type Value = Value<'a>;

    fn deserialize<D: Deserializer<'a>>(self, reader: D) -> Result<Value<'a>, D::Error> {
        let Spanned { value: Scalar(value), defined, .. } = Spanned::deserialize(reader)?;
        Ok(value.unwrap_or_else(|| written(self.0, &defined).map_or(Value::Other, Value::Number)))
    }
}

/// The number that stands somewhere in a text, as it is written there.
pub(super) fn written<'a>(text: &'a str, place: &Location) -> Option<&'a str> {
    let start = place.span().byte_offset()? as usize;
    let end = start + place.span().byte_len()? as usize;
    // It may have quotes around it when a tag says that it is one.
    Some(text.get(start..end)?.trim_matches(['"', '\'']))
}

/// Any value but a number, which is `None`: the reader makes a double of it, and only its place tells what was written.
/// Sequences and mappings are passed over and are [`Value::Other`].
struct Scalar<'a>(Option<Value<'a>>);

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(reader: D) -> Result<Scalar<'de>, D::Error> {
        reader.deserialize_any(ScalarVisitor).map(Scalar)
    }
}

struct ScalarVisitor;

impl<'de> Visitor<'de> for ScalarVisitor {
    type Value = Option<Value<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Value::Borrowed(text)))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.visit_string(text.to_owned())
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Some(Value::Owned(Zeroizing::new(text))))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(Some(Value::Null))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Some(Value::Other))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_seq(items).map(|_| Some(Value::Other))
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        IgnoredAny.visit_map(members).map(|_| Some(Value::Other))
    }
}

/// How documents of at most so many nodes are read, names included.
pub(super) fn options(nodes_max: usize, duplicate_keys: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_merge_keys: 0,
            max_documents: 1,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: nodes_max,
        },
        duplicate_keys: duplicate_keys,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}
