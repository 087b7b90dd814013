//! A coding agent that does nothing: prints a version, as `opencode --version` does.

fn main() {
    println!("opencode 1.0.0");
}
