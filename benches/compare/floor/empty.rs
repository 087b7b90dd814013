//! Does nothing: what starting a Rust program costs.

fn main() {}
