//! The log of a runtime: rotation, the last lines, following, and keeping its size bounded.
