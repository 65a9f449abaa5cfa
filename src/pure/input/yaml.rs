//! YAML bodies (YAML 1.2 core schema): one small mapping, without the parts of YAML that grow or reach out.

use serde::de::DeserializeSeed;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Error, Options};

use super::members::Members;
use super::{Fault, Input, invalid_body};

/// How deep a document may nest.
const DEPTH_MAX: usize = 16;

/// How many nodes a document may have, names included.
const NODES_MAX: usize = 512;

/// Reads the members of the mapping at the top of the only document. Anchors, aliases, merge keys and tags beyond those
/// of the core schema are refused.
///
/// A plain scalar is what YAML 1.2 says it is: `6` is a number and `yes` is text. A number written with a leading zero
/// stays text, so that `0755` keeps the digits that were written.
pub(super) fn read<'a>(input: &mut Input<'a>, text: &'a str) -> Result<(), Fault> {
    let mut fault = None;
    let result = serde_saphyr::with_deserializer_from_str_with_options(text, options(), |reader| {
        Members { input, fault: &mut fault }.deserialize(reader)
    });
    result.map_err(|error| {
        fault.unwrap_or_else(|| {
            let reason = match &error {
                Error::Budget { breach, .. } => match breach {
                    BudgetBreach::Anchors { .. } | BudgetBreach::Aliases { .. } => "YAML with anchors or aliases",
                    BudgetBreach::Documents { .. } => "more than one YAML document",
                    _ => "YAML with too much in it",
                },
                Error::SerdeInvalidType { .. } => "not a YAML mapping",
                _ => "not valid YAML",
            };
            match error.location() {
                Some(at) => invalid_body(format!("{reason} at line {} column {}", at.line(), at.column())),
                None => invalid_body(reason),
            }
        })
    })
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_merge_keys: 0,
            max_documents: 1,
            max_depth: DEPTH_MAX,
            flow_nesting_limit: DEPTH_MAX,
            max_nodes: NODES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}
