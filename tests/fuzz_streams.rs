//! Random and damaged responses for the parsers of event streams, chunks and errors.
//!
//! No parser may panic, the answer may not depend on the pieces in which the response arrives, and it must be the
//! answer of a simple parser.
//!
//! A failure names the number that its round is made of.

use std::io::{self, Read};
use std::num::NonZero;

use fusion::core::api::chat::{Receiver, replay};
use fusion::core::api::error::ServerError;
use fusion::core::api::sse::{Item, Parser};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

#[test]
#[expect(clippy::disallowed_methods, reason = "tests have an environment")]
fn damaged_responses_never_panic() {
    let responses = responses();
    let rounds =
        std::env::var("FUSION_TEST_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4_000);
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for first in 0..workers {
            let numbers = (first as u64..rounds).step_by(workers);
            let responses = &responses;
            scope.spawn(move || numbers.for_each(|number| round(number, responses)));
        }
    });
}

/// Numbers that look random: `SplitMix64`, by Sebastiano Vigna.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % u64::try_from(limit.max(1)).unwrap()).unwrap()
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Responses of real servers, from the cases and the recordings.
fn responses() -> Vec<Vec<u8>> {
    let cases: Value = serde_json::from_str(include_str!("cases/sse_cases.json")).unwrap();
    let errors: Value = serde_json::from_str(include_str!("cases/error_bodies.json")).unwrap();
    let chats = cases["cases"].as_array().unwrap().iter().filter(|case| case["level"] == "chat");
    let streams = chats.map(|case| {
        let events = case["expected"].as_array().into_iter().flatten();
        let data = events.filter_map(|event| event["data"].as_str());
        data.flat_map(|data| ["data: ", data, "\n\n"]).collect::<String>().into_bytes()
    });
    let bodies = errors["errors"].as_array().unwrap().iter();
    let bodies = bodies.map(|error| error["body"].as_str().unwrap().as_bytes().to_vec());
    let recorded = [
        &include_bytes!("cases/recorded/mlx_stream.txt")[..],
        include_bytes!("cases/recorded/mlx_thinking.txt"),
        include_bytes!("cases/recorded/mlx_keepalive.txt"),
        include_bytes!("cases/recorded/mlx_whole.json"),
    ];
    streams
        .chain(bodies)
        .chain(recorded.map(<[u8]>::to_vec))
        .filter(|response| !response.is_empty())
        .collect()
}

const FRAGMENTS: &[&str] = &[
    "data: ",
    "data:",
    "\n\n",
    "\n",
    "\r\n",
    "\r",
    ":",
    ": keepalive 1/2\n\n",
    "event: error\n",
    "error: {\"message\":\"x\"}\n",
    "[DONE]",
    "data: [DONE]\n\n",
    "\"content\":",
    "\"content\":\"a\\nb\"",
    "null",
    "\"finish_reason\":\"stop\"",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "\\",
    "\\ud83d",
    "\\u0000",
    "\u{feff}",
    "<think>",
    "</think>",
    "🙂",
    "é",
    "\u{2028}",
    "0",
    "-1e999",
    "\"error\":true,",
    "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n",
    "{\"choices\":[{\"message\":{\"content\":\"y\"},\"finish_reason\":\"stop\"}]}",
];

/// A response with some damage.
fn damaged(random: &mut Random, responses: &[Vec<u8>]) -> Vec<u8> {
    let mut response = random.pick(responses).clone();
    for _ in 0..random.below(6) {
        let start = random.below(response.len() + 1);
        let end = (start + random.below(40)).min(response.len());
        match random.below(7) {
            0 => drop(response.drain(start..end)),
            1 => drop(response.splice(start..end, random.pick(FRAGMENTS).bytes())),
            2 => drop(response.splice(start..start, random.pick(FRAGMENTS).bytes())),
            3 => drop(response.splice(start..start, response[start..end].to_vec())),
            4 => response[start..end].iter_mut().for_each(|byte| *byte ^= 1 << random.below(8)),
            5 => response.truncate(start),
            _ => {
                let other = random.pick(responses).clone();
                let from = random.below(other.len());
                drop(response.splice(start..end, other[from..].iter().copied()));
            }
        }
    }
    response
}

/// Gives a response in pieces.
struct Pieces<'a> {
    rest: &'a [u8],
    random: Random,
    longest: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = (1 + self.random.below(self.longest)).min(self.rest.len()).min(buffer.len());
        let (piece, rest) = self.rest.split_at(length);
        buffer[..length].copy_from_slice(piece);
        self.rest = rest;
        Ok(length)
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    text: String,
    reasoning: String,
}

impl Receiver for Taken {
    fn text(&mut self, text: &str) -> io::Result<()> {
        assert!(!text.is_empty());
        self.text.push_str(text);
        Ok(())
    }

    fn reasoning(&mut self, text: &str) -> io::Result<()> {
        self.reasoning.push_str(text);
        Ok(())
    }

    fn progress(&mut self, _: u64, _: u64) {}

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// All results of a response, as text that can be compared.
fn taken(response: &[u8], longest: usize, seed: u64) -> (Taken, String) {
    let mut taken = Taken::default();
    let pieces = Pieces { rest: response, random: Random(seed), longest };
    let outcome = replay(pieces, &json!({ "stop": ["never said"] }), &mut taken);
    (taken, format!("{:?} {:?}", outcome.answer, outcome.result))
}

fn round(number: u64, responses: &[Vec<u8>]) {
    let mut random = Random(number);
    let response = damaged(&mut random, responses);
    let whole = taken(&response, usize::MAX, number);
    let described = || format!("round {number}: {:?}", String::from_utf8_lossy(&response));
    for longest in [1, 1 + random.below(64)] {
        assert_eq!(whole, taken(&response, longest, number), "{} in pieces of up to {longest}", described());
    }
    if let Some(text) = simple_parser(&response).filter(|_| whole.1.ends_with("Ok(())")) {
        assert_eq!(whole.0.text, text, "{}", described());
    }
    let error = ServerError::from_response(500, &response);
    assert!(!error.message.is_empty() && error.message.chars().count() <= 300, "{}", described());
    assert!(!error.message.contains(char::is_control), "{}", described());
}

/// A chunk without duplicate keys.
#[derive(Deserialize)]
struct Once {
    #[serde(default, rename = "choices")]
    _choices: Vec<OnceChoice>,
    #[serde(default, rename = "usage")]
    _usage: IgnoredAny,
    #[serde(default, rename = "error")]
    _error: IgnoredAny,
    #[serde(default, rename = "object")]
    _object: IgnoredAny,
    #[serde(default, rename = "model")]
    _model: IgnoredAny,
}

#[derive(Deserialize)]
struct OnceChoice {
    #[serde(default, rename = "index")]
    _index: IgnoredAny,
    #[serde(default, rename = "delta")]
    _delta: Option<OnceDelta>,
    #[serde(default, rename = "message")]
    _message: Option<OnceDelta>,
    #[serde(default, rename = "finish_reason")]
    _finish_reason: IgnoredAny,
}

#[derive(Deserialize)]
struct OnceDelta {
    #[serde(default, rename = "content")]
    _content: IgnoredAny,
    #[serde(default, rename = "reasoning_content")]
    _reasoning_content: IgnoredAny,
    #[serde(default, rename = "reasoning")]
    _reasoning: IgnoredAny,
    #[serde(default, rename = "tool_calls")]
    _tool_calls: IgnoredAny,
}

/// The text of a stream, with every event parsed into a `Value`. `None` if other rules apply.
fn simple_parser(response: &[u8]) -> Option<String> {
    let mut parser = Parser::default();
    let mut text = String::new();
    let mut input = response;
    while let Some(item) = parser.next(&mut input).ok()? {
        let Item::Event(event) = item else { continue };
        if event.name != "message" {
            continue;
        }
        if event.data == "[DONE]" {
            break;
        }
        // The parser refuses a duplicate key; a `Value` takes the last.
        serde_json::from_str::<Once>(&event.data).ok()?;
        // The parser skips a lone surrogate in other fields; a `Value` cannot hold it.
        let chunk: Value = serde_json::from_str(&event.data).ok()?;
        for choice in chunk["choices"].as_array().into_iter().flatten() {
            if choice["index"].as_u64().unwrap_or_default() == 0 {
                let part = if choice["delta"].is_object() { &choice["delta"] } else { &choice["message"] };
                text.push_str(part["content"].as_str().unwrap_or_default());
            }
        }
    }
    (!text.is_empty() && !text.contains("think")).then_some(text)
}
