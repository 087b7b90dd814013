//! `GET /api/events`: the events as server-sent events.

use std::sync::Arc;
use std::time::Duration;

use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use tokio::sync::mpsc;

use super::body::ResponseBody;
use super::feed::{Feed, FeedListener};
use super::headers;
use super::task;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// How often a comment keeps a silent stream open.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// What tells a browser after how many milliseconds it may connect again.
const RETRY: &str = "retry: 2000\n\n";

/// Returns a stream of events after the one that the client names, or from now on.
pub(super) fn stream(feed: &Arc<Feed>, request: &HeaderMap) -> Response<ResponseBody> {
    // A malformed id is treated as an unknown one.
    let last = request
        .get(LAST_EVENT_ID)
        .map(|id| id.to_str().ok().and_then(|id| id.parse().ok()).unwrap_or(u64::MAX));
    let (sender, receiver) = mpsc::channel(1);
    task::start(send(feed.listen(last), sender));
    let mut response = Response::new(ResponseBody::Fed(receiver));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers::mark_as_stream(headers);
    response
}

/// Sends events until the client leaves. A slow client misses the oldest events, and is told so.
async fn send(mut listener: FeedListener, sender: mpsc::Sender<Bytes>) {
    let mut text = RETRY.to_owned();
    loop {
        if sender.send(Bytes::from(text)).await.is_err() {
            return;
        }
        text = tokio::select! {
            events = listener.next() => match events {
                Some(events) => events.iter().map(|event| event.as_sse()).collect(),
                None => return,
            },
            () = tokio::time::sleep(COMMENT_INTERVAL) => ": keep-alive\n\n".to_owned(),
            () = sender.closed() => return,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::feed::News;

    #[test]
    fn listener_that_reads_late_gets_a_resync() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let feed = Arc::new(Feed::default());
        let publish = |count: usize| {
            (0..count)
                .for_each(|_| feed.publish(None, News::ConfigChanged { ok: true, message: String::new() }));
        };
        let kinds = |text: Bytes| {
            let text = String::from_utf8_lossy(&text).into_owned();
            let kinds = text.lines().filter_map(|line| line.strip_prefix("event: "));
            kinds.map(str::to_owned).collect::<Vec<_>>()
        };
        runtime.block_on(async {
            let (sender, mut receiver) = mpsc::channel(1);
            task::start(send(feed.listen(None), sender));
            publish(1);
            // The greeting waits to be read, and the first event behind it.
            tokio::task::yield_now().await;
            publish(1000);
            tokio::task::yield_now().await;
            let mut told = Vec::new();
            while told.last().is_none_or(|last| last != "resync") {
                told.extend(kinds(receiver.recv().await.expect("it goes on")));
            }
            publish(2);
            told.extend(kinds(receiver.recv().await.expect("it goes on")));
            assert_eq!(told, ["config_changed", "resync", "config_changed", "config_changed"]);
        });
    }
}
