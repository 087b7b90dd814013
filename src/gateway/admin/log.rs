//! The log of an instance: its last lines, and with `follow=1` new lines until the client leaves or the server ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::body::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use tokio::sync::mpsc;

use super::{AdminAnswer, known};
use crate::app::ServiceLog;
use crate::core::logs::{LogReader, ReadProgress};
use crate::gateway::body::ResponseBody;
use crate::gateway::query;
use crate::gateway::rejection::Rejection;
use crate::gateway::state::{Gateway, Setup};
use crate::gateway::task;

/// Number of lines if the client names none.
const DEFAULT_LINES: u64 = 200;

/// How often the log is read for new lines.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// How often the process is checked while nothing is written.
const LIVENESS_INTERVAL: Duration = Duration::from_secs(1);

/// How many blocks wait for a slow client.
const WAITING_BLOCKS: usize = 4;

/// Answers `GET /api/instances/{name}/log`.
pub(super) fn log(gateway: &Gateway, name: &str, query: &str) -> AdminAnswer {
    let lines = match query::value(query, "lines").as_deref() {
        None => DEFAULT_LINES,
        Some("all") => u64::MAX,
        Some(text) => text
            .parse()
            .map_err(|_| Rejection::bad_request(format!("`lines` is a number or `all`, not {text:?}")))?,
    };
    let follow = matches!(query::value(query, "follow").as_deref(), Some("1" | "true"));
    let setup = gateway.setup();
    let reader = LogReader::open(&setup.app.log(known(&setup, name)?).path(), lines).map_err(|error| {
        Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, crate::core::events::chain(&error))
    })?;
    let Some(reader) = reader else {
        let message = format!("{name} has no log: it was not started yet");
        return Err(Rejection::new(StatusCode::NOT_FOUND, message));
    };
    let permit = Arc::clone(&gateway.log_readers).try_acquire_owned();
    let permit = permit.map_err(|_| Rejection::unavailable("too many clients read logs").retry_after(1))?;
    let (sender, receiver) = mpsc::channel(WAITING_BLOCKS);
    let name = name.to_owned();
    task::start_blocking(move || {
        send(&setup, &name, reader, follow, &sender);
        drop(permit);
    });
    let mut response = hyper::Response::new(ResponseBody::Fed(receiver));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// Sends the log in blocks. A disk error ends it.
fn send(setup: &Setup, name: &str, mut reader: LogReader, follow: bool, sender: &mpsc::Sender<Bytes>) {
    let Some(service) = setup.app.service(name) else { return };
    let log = setup.app.log(service);
    let mut left = if follow { u64::MAX } else { reader.remaining() };
    let mut checked = Instant::now();
    let mut has_ended = false;
    let mut block = Vec::new();
    while left > 0 && !sender.is_closed() {
        block.clear();
        match reader.read(&mut block) {
            Ok(ReadProgress::Read) => {
                block.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                left -= block.len() as u64;
                if sender.blocking_send(Bytes::copy_from_slice(&block)).is_err() {
                    return;
                }
            }
            Ok(ReadProgress::Truncated) if follow => {}
            Ok(ReadProgress::UpToDate) if follow && !has_ended => {
                if checked.elapsed() >= LIVENESS_INTERVAL {
                    checked = Instant::now();
                    // Once more after its end, for its last lines.
                    has_ended = is_over(&log);
                }
                std::thread::sleep(POLL_INTERVAL);
            }
            Ok(ReadProgress::Truncated | ReadProgress::UpToDate) | Err(_) => return,
        }
    }
}

/// Returns whether the log will not grow any more.
fn is_over(log: &ServiceLog<'_>) -> bool {
    matches!(log.running(), Ok(None)) && !log.is_changing()
}
