//! Grants that no end-to-end run in a local cloud can use, and why each is there all the same. A grant that is used must not be
//! here, nor one that is not granted: the list can only shrink.

/// Purpose of the role, action, reason.
pub const UNUSED: &[(&str, &str, &str)] = &[];
