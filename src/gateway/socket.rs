//! `GET /ws`: the events over a WebSocket.

use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use futures_util::{SinkExt, StreamExt};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::body::ResponseBody;
use super::feed::{Feed, FeedListener};
use super::guard::{self, SUBPROTOCOL};
use super::headers::words;
use super::rejection::Rejection;
use super::respond::reject;
use super::task;
use super::wire::Wire;

/// How often a silent client gets a ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// Maximum size of a client's message: clients only send control frames.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Answers the handshake, and sends events from then on.
pub(super) fn open(
    feed: &Arc<Feed>,
    request: &mut Request<Incoming>,
) -> Result<Response<ResponseBody>, Rejection> {
    let headers = request.headers();
    let has = |name, wanted| words(headers, name).iter().any(|word| word.eq_ignore_ascii_case(wanted));
    let is_handshake = has(&UPGRADE, "websocket") && has(&CONNECTION, "upgrade");
    // HEAD is treated as GET, but opens nothing.
    if !is_handshake || request.method() != Method::GET {
        let rejection = Rejection::new(StatusCode::UPGRADE_REQUIRED, "/ws is a WebSocket");
        let mut response = reject(&rejection, Wire::Chat);
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return Ok(response);
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(Rejection::bad_request("the only version of WebSocket is 13"));
    }
    let malformed = || Rejection::bad_request("the key of the handshake is not 16 bytes in base64");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| is_key(key)).ok_or_else(malformed)?;
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).map_err(|_| malformed())?;
    let is_named = guard::offers_subprotocol(headers);
    let listener = feed.listen(None);
    task::start(serve(hyper::upgrade::on(request), listener));
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if is_named {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    Ok(response)
}

/// Returns whether the key of a handshake has its form (RFC 6455, section 4.1).
fn is_key(key: &HeaderValue) -> bool {
    BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16)
}

/// Sends events until one side ends.
async fn serve(upgrade: OnUpgrade, mut listener: FeedListener) {
    let Ok(upgraded) = upgrade.await else { return };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING_INTERVAL, PING_INTERVAL);
    let mut is_silent = false;
    loop {
        let messages = tokio::select! {
            events = listener.next() => {
                let Some(events) = events else { break };
                events.iter().map(|event| Message::text(event.json())).collect()
            }
            received = socket.next() => match received {
                // A close is answered while the rest is read.
                Some(Err(_)) | None => break,
                Some(Ok(_)) => {
                    is_silent = false;
                    continue;
                }
            },
            _ = pings.tick() => {
                // Two pings without a word: the client is gone.
                if std::mem::replace(&mut is_silent, true) {
                    break;
                }
                vec![Message::Ping(Bytes::new())]
            }
        };
        if send(&mut socket, messages).await.is_err() {
            break;
        }
    }
    // A client that is gone gets no close frame.
    let _ = socket.close(None).await;
}

/// Sends messages; fails if the client does not take them in time.
async fn send(
    socket: &mut WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    messages: Vec<Message>,
) -> Result<(), Error> {
    let sent = tokio::time::timeout(PING_INTERVAL, async {
        for message in messages {
            socket.feed(message).await?;
        }
        socket.flush().await
    });
    sent.await.unwrap_or(Err(Error::ConnectionClosed))
}
