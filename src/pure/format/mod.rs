//! The formats an answer can have.

/// One of the formats an answer can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `application/json`.
    Json,
    /// `application/xml`.
    Xml,
    /// `application/yaml`.
    Yaml,
    /// `text/csv`.
    Csv,
}
