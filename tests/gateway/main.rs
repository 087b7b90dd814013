//! The gateway in front of scripted servers: each test is named after a fault that was seen in a program of its kind.

#![allow(clippy::must_use_candidate, unreachable_pub, reason = "helpers of tests")]

mod admin;
mod backend;
mod client_gone;
mod connections;
mod crowds;
mod events;
mod framing;
mod hostile;
mod http;
mod models;
mod pages;
mod places;
#[path = "../support/ports.rs"]
mod ports;
#[path = "../support/programs.rs"]
mod programs;
mod promises;
mod reload;
mod stage;
mod starts;
mod streams;
mod translation;

use std::time::{Duration, Instant};

const CHAT: &str = "/v1/chat/completions";

/// A request for the model that every scripted server has.
const TINY: &str = r#"{"model":"tiny","messages":[]}"#;
const TINY_STREAM: &str = r#"{"model":"tiny","stream":true,"messages":[]}"#;

/// One event with a token, the last one, and the end mark.
const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n";
const LAST: &str = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// Waits until `condition` holds. Only a failing test waits long.
#[track_caller]
fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Returns how often a test does it: as `FUSION_TEST_ROUNDS` says, else a `few` times.
#[expect(clippy::disallowed_methods, reason = "tests have an environment")]
fn rounds(few: usize) -> usize {
    std::env::var("FUSION_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(few)
}

/// Numbers that are the same in each run (Knuth, volume 2, section 3.3.4).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
