//! The rule that a value broke, in words, without the value.

use std::borrow::Cow;

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind as Kind};

/// What the value must be. Limits and names come from the document; nothing comes from the request.
pub(super) fn rule(error: &ValidationError<'_>) -> Cow<'static, str> {
    match error.kind() {
        Kind::Type { kind: TypeKind::Single(kind) } => format!("must be of type {kind}").into(),
        Kind::Type { kind: TypeKind::Multiple(kinds) } => {
            let names: Vec<String> = kinds.iter().map(|kind| kind.to_string()).collect();
            format!("must be of type {}", names.join(" or ")).into()
        }
        Kind::Required { property } => match property.as_str() {
            Some(name) => format!("must have the member {name}").into(),
            None => "lacks a member".into(),
        },
        Kind::Enum { options } => format!("must be one of {options}").into(),
        Kind::Constant { expected_value } => format!("must be {expected_value}").into(),
        Kind::Minimum { limit } => format!("must be at least {limit}").into(),
        Kind::Maximum { limit } => format!("must be at most {limit}").into(),
        Kind::ExclusiveMinimum { limit } => format!("must be more than {limit}").into(),
        Kind::ExclusiveMaximum { limit } => format!("must be less than {limit}").into(),
        Kind::MultipleOf { multiple_of } => format!("must be a multiple of {multiple_of}").into(),
        Kind::MinLength { limit } => format!("must have at least {limit} characters").into(),
        Kind::MaxLength { limit } => format!("must have at most {limit} characters").into(),
        Kind::MinItems { limit } => format!("must have at least {limit} items").into(),
        Kind::MaxItems { limit } => format!("must have at most {limit} items").into(),
        Kind::AdditionalItems { limit } => format!("must have at most {limit} items").into(),
        Kind::MinProperties { limit } => format!("must have at least {limit} members").into(),
        Kind::MaxProperties { limit } => format!("must have at most {limit} members").into(),
        Kind::UniqueItems => "must have no item twice".into(),
        Kind::Pattern { pattern } => format!("must match the pattern {pattern}").into(),
        Kind::Format { format } => format!("must have the format {format}").into(),
        Kind::AdditionalProperties { .. } | Kind::UnevaluatedProperties { .. } | Kind::PropertyNames { .. } => {
            "has a member that it must not have".into()
        }
        Kind::UnevaluatedItems { .. } => "has an item that it must not have".into(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "must match one of its schemas".into(),
        Kind::OneOfMultipleValid { .. } => "must match one of its schemas, and matches several".into(),
        _ => "must match its schema".into(),
    }
}
