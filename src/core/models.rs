//! Models: what a runtime can do with them, and what is known of each.

pub mod directory;
pub mod hub_cache;
