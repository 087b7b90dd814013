//! The terminal and the standard streams: the only place with escape codes.

pub mod cells;
pub mod filter;
pub mod keyboard;
pub mod line_editor;
pub mod progress;
pub mod reporter;
pub mod screen;
pub mod signals;
pub mod status_line;
pub mod streams;
pub mod ui;
pub mod waiting;
