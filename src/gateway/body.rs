//! The bodies of responses: one that is passed on holds the lease of its service until its end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::end_mark::{EndMark, usage_of_response};
use super::headers;
use super::meter::{Meter, Outcome};
use super::pool::{Connection, Pool};
use super::rejection::Rejection;
use super::seats::Lease;
use super::translate::{StreamEnd, Translator};
use super::wire::Wire;

/// How often a client that waits for a loading model gets a comment.
pub(super) const COMMENT_INTERVAL: Duration = Duration::from_secs(5);

/// How much of the end of a JSON answer is kept.
const COUNTED_BYTES: usize = 4096;

/// How many bytes pass together, unless the server has sent more in one piece. Then other requests get their turn: a
/// fast server and a fast client would keep them out.
const MAX_IN_TURN: usize = 16 * 1024;

const COMMENT: &[u8] = b": loading\n\n";

/// The body of any response.
pub(super) enum ResponseBody {
    /// Known bytes.
    Whole(Option<Bytes>),
    /// What a server sends.
    Passed(Box<PassedBody>),
    /// What a task of the gateway sends, until it ends.
    Fed(mpsc::Receiver<Bytes>),
    /// A stream that began before the server was ready.
    Loading(Box<Loading>),
    /// The error event was sent. The connection is then aborted, so no client takes this for a complete answer.
    Aborting(Option<Bytes>),
}

/// Aborts the connection.
#[derive(Debug, thiserror::Error)]
#[error("the response of the server broke off")]
pub(super) struct BrokeOff;

/// The response of a server on its way to the client.
pub(super) struct PassedBody {
    incoming: Incoming,
    /// Dropping it closes the connection to the server.
    connection: Option<Connection>,
    pool: Arc<Pool>,
    treatment: Treatment,
    /// Whether the server's response broke off, once it is over.
    over: Option<bool>,
    /// Whether the last byte that passed ends a line.
    ends_line: bool,
    /// How many bytes have passed in this turn.
    in_turn: usize,
    wire: Wire,
    meter: Box<Meter>,
    _lease: Lease,
}

/// How the gateway treats the bytes of a response.
pub(super) enum Treatment {
    /// They pass unread.
    Unread,
    /// A whole answer in JSON, whose end has its usage. Where nothing but the end of the connection delimits it, only
    /// its last byte tells a cut from an end.
    Counted { end: Vec<u8>, is_delimited: bool },
    /// A stream of events, whose end must be marked.
    Watched(EndMark),
    /// A stream of events in another wire than the client's.
    Translated(Box<Translator>),
}

/// The future of the response to a request whose model loads.
pub(super) type Pending = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Rejection>> + Send>>;

pub(super) struct Loading {
    response: Pending,
    comments: Interval,
    wire: Wire,
}

impl PassedBody {
    pub(super) fn new(
        incoming: Incoming,
        connection: Connection,
        pool: Arc<Pool>,
        treatment: Treatment,
        wire: Wire,
        meter: Box<Meter>,
        lease: Lease,
    ) -> Self {
        Self {
            incoming,
            connection: Some(connection),
            pool,
            treatment,
            over: None,
            ends_line: true,
            in_turn: 0,
            wire,
            meter,
            _lease: lease,
        }
    }

    fn finish(&mut self) {
        self.meter.costs(match &self.treatment {
            Treatment::Unread => None,
            Treatment::Counted { end, .. } => usage_of_response(end),
            Treatment::Watched(end) => end.seen.usage,
            Treatment::Translated(translator) => translator.usage(),
        });
        self.meter.ends(Outcome::Ok);
        if let Some(connection) = self.connection.take() {
            self.pool.keep(connection);
        }
    }
}

impl ResponseBody {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Some(bytes.into()))
    }

    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }

    /// Returns a stream that begins with a comment, and has one more at each interval until the response is there.
    pub(super) fn loading(response: Pending, wire: Wire) -> Self {
        let mut comments = interval(COMMENT_INTERVAL);
        comments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self::Loading(Box::new(Loading { response, comments, wire }))
    }
}

impl Treatment {
    /// Returns whether an answer whose connection has ended is not whole.
    fn is_cut(&self) -> bool {
        let is_end = |end: &[u8]| matches!(end.trim_ascii_end().last(), Some(b'}' | b']'));
        matches!(self, Self::Counted { end, is_delimited: false } if !is_end(end))
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, BrokeOff>>>;

fn data(bytes: impl Into<Bytes>) -> Polled {
    Poll::Ready(Some(Ok(Frame::data(bytes.into()))))
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Polled {
        loop {
            let next = match &mut *self {
                Self::Whole(bytes) => return bytes.take().map_or(Poll::Ready(None), data),
                Self::Fed(receiver) => {
                    return receiver
                        .poll_recv(context)
                        .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))));
                }
                Self::Aborting(event) => return abort(event, context),
                Self::Passed(passed) => match ready!(poll_passed(passed, context)) {
                    Ok(frame) => return Poll::Ready(frame.map(Ok)),
                    Err(next) => next,
                },
                Self::Loading(loading) => match ready!(poll_loading(loading, context)) {
                    Ok(comment) => return data(comment),
                    Err(next) => next,
                },
            };
            *self = next;
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Passed(passed)
                if matches!(passed.treatment, Treatment::Unread | Treatment::Counted { .. }) =>
            {
                passed.incoming.size_hint()
            }
            _ => SizeHint::default(),
        }
    }
}

/// Sends the event, then aborts. In between the event must be flushed, which happens when the body is pending.
fn abort(event: &mut Option<Bytes>, context: &mut Context<'_>) -> Polled {
    match event.take() {
        Some(bytes) if !bytes.is_empty() => {
            *event = Some(Bytes::new());
            data(bytes)
        }
        Some(_) => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        None => Poll::Ready(Some(Err(BrokeOff))),
    }
}

/// Bytes that pass to the client together, however the server has cut them.
#[derive(Default)]
struct Together {
    /// The first piece, which is not copied if it stays alone.
    first: Option<Bytes>,
    all: Vec<u8>,
}

impl Together {
    fn push(&mut self, bytes: Bytes) {
        if self.first.is_none() && self.all.is_empty() {
            self.first = Some(bytes);
        } else {
            self.all().extend_from_slice(&bytes);
        }
    }

    /// Returns the bytes as one buffer, to which more can be appended.
    fn all(&mut self) -> &mut Vec<u8> {
        if let Some(first) = self.first.take() {
            self.all.extend_from_slice(&first);
        }
        &mut self.all
    }

    fn len(&self) -> usize {
        self.first.as_ref().map_or(self.all.len(), Bytes::len)
    }

    /// Returns the bytes as a frame; `None` if there are none.
    fn frame(self) -> Option<Frame<Bytes>> {
        (self.len() > 0).then(|| Frame::data(self.first.unwrap_or_else(|| self.all.into())))
    }
}

/// Returns the next frame, or the next state of the body.
fn poll_passed(
    passed: &mut PassedBody,
    context: &mut Context<'_>,
) -> Poll<Result<Option<Frame<Bytes>>, ResponseBody>> {
    if passed.in_turn >= MAX_IN_TURN {
        passed.in_turn = 0;
        context.waker().wake_by_ref();
        return Poll::Pending;
    }
    let mut together = Together::default();
    loop {
        if let Some(has_broken_off) = passed.over {
            return Poll::Ready(
                together.frame().map_or_else(|| ended(passed, has_broken_off), |frame| Ok(Some(frame))),
            );
        }
        if let Some(connection) = &mut passed.connection {
            connection.drive(context);
        }
        let bytes = match Pin::new(&mut passed.incoming).poll_frame(context) {
            Poll::Pending => {
                let frame = together.frame();
                if frame.is_none() {
                    passed.in_turn = 0;
                }
                return frame.map_or(Poll::Pending, |frame| Poll::Ready(Ok(Some(frame))));
            }
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            Poll::Ready(end) => {
                passed.over = Some(end.is_some() || passed.treatment.is_cut());
                continue;
            }
        };
        passed.meter.receives_piece();
        passed.in_turn += bytes.len();
        match &mut passed.treatment {
            Treatment::Unread | Treatment::Counted { .. } => {
                if let Treatment::Counted { end, .. } = &mut passed.treatment {
                    end.extend_from_slice(&bytes[bytes.len().saturating_sub(COUNTED_BYTES)..]);
                    end.drain(..end.len().saturating_sub(COUNTED_BYTES));
                }
                together.push(bytes);
                // hyper does not poll a body of known length for its end.
                if passed.incoming.is_end_stream() {
                    passed.finish();
                    return Poll::Ready(Ok(together.frame()));
                }
            }
            Treatment::Watched(end) => {
                end.push(&bytes);
                passed.ends_line = bytes.last().is_none_or(|last| *last == b'\n');
                together.push(bytes);
            }
            Treatment::Translated(translator) => {
                translator.push(&bytes, together.all());
                if translator.ending() == Some(StreamEnd::Failed) {
                    passed.meter.ends(Outcome::Cut);
                    let events = std::mem::take(together.all());
                    return Poll::Ready(Err(ResponseBody::Aborting(Some(events.into()))));
                }
            }
        }
        if together.len() >= MAX_IN_TURN {
            return Poll::Ready(Ok(together.frame()));
        }
    }
}

/// Decides how the client's response ends after the server's has ended.
fn ended(passed: &mut PassedBody, has_broken_off: bool) -> Result<Option<Frame<Bytes>>, ResponseBody> {
    let event = match &mut passed.treatment {
        Treatment::Unread | Treatment::Counted { .. } if has_broken_off => None,
        Treatment::Unread | Treatment::Counted { .. } => {
            passed.finish();
            return Ok(None);
        }
        // The answer is complete; what follows does not matter.
        Treatment::Watched(end) if end.seen.may_end() && !(end.seen.is_lost && has_broken_off) => {
            if has_broken_off {
                passed.connection = None;
            }
            passed.finish();
            return Ok(None);
        }
        // The server has reported its error itself.
        Treatment::Watched(end) if end.seen.has_error => {
            passed.meter.ends(Outcome::Cut);
            return if has_broken_off { Err(ResponseBody::Aborting(Some(Bytes::new()))) } else { Ok(None) };
        }
        Treatment::Watched(_) => Some(cut_event(passed.ends_line, passed.wire)),
        Treatment::Translated(translator) => {
            let mut events = Vec::new();
            if translator.end(&mut events) == StreamEnd::Whole {
                if has_broken_off {
                    passed.connection = None;
                }
                passed.finish();
                return if events.is_empty() { Ok(None) } else { Err(ResponseBody::whole(events)) };
            }
            Some(events.into())
        }
    };
    passed.meter.ends(Outcome::Cut);
    // Without an event, what was passed on is flushed all the same.
    Err(ResponseBody::Aborting(event.or_else(|| Some(Bytes::new()))))
}

fn cut_event(ends_line: bool, wire: Wire) -> Bytes {
    let rejection = Rejection::new(StatusCode::BAD_GATEWAY, "the server ended the answer before its end")
        .code("stream_cut");
    // What was cut within an event must not swallow this one.
    let separator = if ends_line { "\n" } else { "\n\n" };
    format!("{separator}{}", rejection.event(wire)).into()
}

/// Returns the next comment, or the next state of the body.
fn poll_loading(
    loading: &mut Loading,
    context: &mut Context<'_>,
) -> Poll<Result<&'static [u8], ResponseBody>> {
    if let Poll::Ready(response) = loading.response.as_mut().poll(context) {
        let wire = loading.wire;
        return Poll::Ready(Err(match response {
            Ok(response) => continued(response, wire),
            Err(rejection) => ResponseBody::Aborting(Some(rejection.event(wire).into())),
        }));
    }
    ready!(loading.comments.poll_tick(context));
    Poll::Ready(Ok(COMMENT))
}

/// Returns the rest of a stream whose head was sent before the response was there.
fn continued(response: Response<ResponseBody>, wire: Wire) -> ResponseBody {
    if response.status() == StatusCode::OK && headers::is_event_stream(response.headers()) {
        return response.into_body();
    }
    let message = format!("the server answered HTTP {} to the request", response.status());
    ResponseBody::Aborting(Some(Rejection::new(response.status(), message).event(wire).into()))
}

/// Returns the head of a stream that begins before the server is ready.
pub(super) fn stream_head() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers::mark_as_stream(&mut headers);
    headers
}
