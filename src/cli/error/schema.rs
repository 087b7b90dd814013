//! Messages for `--schema`.

use std::fmt::Display;

use super::Failure;
use crate::cli::exit;
use crate::core::api::error::clean;
use crate::core::schema::{SchemaError, Violation};

impl Failure {
    /// Returns the failure of the schema in the file `name`.
    pub fn of_schema(name: &dyn Display, error: &SchemaError) -> Self {
        match error {
            SchemaError::NotJson(cause) => {
                Self::of(exit::of_schema(error), cause).about(format!("the schema {name} is not JSON"))
            }
            SchemaError::UnsupportedKeyword { .. } | SchemaError::Invalid { .. } => {
                Self::new(exit::of_schema(error), format!("the schema {name} cannot be used: {error}"))
            }
        }
    }
}

impl From<Violation> for Failure {
    /// The violation quotes the answer, so it is cleaned.
    fn from(violation: Violation) -> Self {
        let words = clean(&violation.to_string());
        Self::new(exit::of_violation(&violation), format!("the answer does not satisfy the schema: {words}"))
    }
}
