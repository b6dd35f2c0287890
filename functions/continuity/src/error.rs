//! Errors of the stores, and how an error and its causes are printed.

use std::error::Error;

/// A control table or journal call that did not succeed. Whether it took effect is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The service refused or did not answer.
    #[error("{operation} on table `{table}` failed")]
    Call {
        /// The DynamoDB operation.
        operation: &'static str,
        /// The table.
        table: String,
        /// What the SDK said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// There is no such table: nothing is deployed, or it is gone already.
    #[error("there is no table `{0}`")]
    NoTable(String),
    /// An item is there but cannot be read.
    #[error("item `{id}` of table `{table}` is malformed: {reason}")]
    Malformed {
        /// The table.
        table: String,
        /// The item's key.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// An error and all its causes on one line, outermost first.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
