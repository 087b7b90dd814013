//! The command line: words, flags and exit codes over the app.

pub mod commands;
pub mod context;
pub mod dispatch;
pub mod error;
pub mod exit;
pub mod instances;
pub mod table;
pub mod terminal;
pub mod tree;
pub mod units;
pub mod words;
