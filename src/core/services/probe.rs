//! Probes: what one request to an address finds, and repeated probes on another thread beside a wait.

use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::state::ResponseKind;
use crate::core::address::Address;
use crate::core::api::{ApiError, Client};
use crate::core::parallel::PendingValue;
use crate::core::runtimes::{Generation, Recognition, ServerFacts};
use crate::core::templates::{StatusCheck, Template};

/// The result of one probe of an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// No connection could be made; the reason in words.
    NoConnection(String),
    /// The connection was accepted, and no response came in time.
    NoResponse,
    /// A server of this template that is ready.
    Ready(ServerFacts),
    /// A server of this template that is not ready yet; the reason in words.
    NotReady(String),
    /// A server of this template that did not generate in time.
    NotGenerated,
    /// A server of this template that cannot generate until it is restarted; the reason in words.
    Broken(String),
    /// A server of this template that does not have the model; its message.
    ModelMissing(String),
    /// Another program; its response in words.
    OtherProgram(String),
}

impl ProbeResult {
    /// Returns the part that decides the state.
    pub fn response(&self) -> ResponseKind {
        match self {
            Self::NoConnection(_) | Self::NoResponse => ResponseKind::None,
            Self::Ready(_) => ResponseKind::Ready,
            Self::NotReady(_) | Self::NotGenerated | Self::Broken(_) | Self::ModelMissing(_) => {
                ResponseKind::NotReady
            }
            Self::OtherProgram(_) => ResponseKind::OtherProgram,
        }
    }

    /// Returns the result for a server that fusion did not start: only what the template recognises is of its kind.
    #[must_use]
    pub fn without_process(self, template: &Template) -> Self {
        match self {
            Self::Ready(_) if !template.is_recognisable() => {
                Self::OtherProgram("it accepts connections".to_owned())
            }
            Self::Ready(facts) if facts.is_unmarked => {
                Self::OtherProgram("it responds as servers of several kinds do".to_owned())
            }
            other => other,
        }
    }

    /// Returns a description for a user who waits.
    pub fn words(&self) -> String {
        match self {
            Self::NoConnection(why)
            | Self::NotReady(why)
            | Self::Broken(why)
            | Self::ModelMissing(why)
            | Self::OtherProgram(why) => why.clone(),
            Self::NoResponse => "it accepts connections and does not respond".to_owned(),
            Self::NotGenerated => "it has not generated anything yet".to_owned(),
            // Shown only for a server that fusion did not start.
            Self::Ready(_) => "another server of this kind responds there".to_owned(),
        }
    }
}

/// What is asked of a ready server beyond its status, which is cheap.
#[derive(Debug, Clone, Copy, Default)]
pub struct Depth<'a> {
    /// A chat of one token with this model.
    pub generation: Option<&'a str>,
    /// The requests of [`Template::detail_probes`].
    pub details: bool,
}

/// Probes once. Each request has `timeout`.
pub fn probe(template: &Template, address: &Address, depth: Depth<'_>, timeout: Duration) -> ProbeResult {
    let mut checks = template.status_checks(address).into_iter();
    let mut result = checks.next().map_or_else(
        || ProbeResult::NoConnection("there is nothing to ask".to_owned()),
        |first| checked(&first, address, timeout),
    );
    for check in checks {
        match (&result, checked(&check, address, timeout)) {
            // What recognised the server also told its facts.
            (ProbeResult::Ready(_), ProbeResult::Ready(_)) => {}
            (ProbeResult::Ready(_), other) => result = ProbeResult::NotReady(other.words()),
            _ => break,
        }
    }
    if let Some(model) = depth.generation {
        result = with_generation(result, address, model, timeout);
    }
    match result {
        ProbeResult::Ready(facts) if depth.details => {
            ProbeResult::Ready(with_details(facts, template, address, timeout))
        }
        result => result,
    }
}

/// Adds what a ready server reports when asked for more.
fn with_details(
    mut facts: ServerFacts,
    template: &Template,
    address: &Address,
    timeout: Duration,
) -> ServerFacts {
    for request in template.detail_probes() {
        let client = Client::with_timeout(address, timeout).with_long_responses();
        if let Ok(response) = client.get(request.path)
            && let Recognition::Ready(more) = (request.read)(&response)
        {
            facts.models = more.models.or(facts.models);
            facts.version = more.version.or(facts.version);
            facts.context = more.context.or(facts.context);
            facts.gpu_shares.extend(more.gpu_shares);
        }
    }
    facts
}

/// Returns the result where the first thing that a probe asks accepts no connection. Cheaper than a probe, which prepares
/// a request first; but another connection where one is accepted.
pub fn refusal(template: &Template, address: &Address, timeout: Duration) -> Option<ProbeResult> {
    let result = match template.status_checks(address).first()? {
        StatusCheck::Endpoint { address, timeout: own, .. } => accepts(address, timeout.min(*own)),
        StatusCheck::Runtime(_) | StatusCheck::Port => accepts(address, timeout),
    };
    matches!(result, ProbeResult::NoConnection(_)).then_some(result)
}

fn checked(check: &StatusCheck, address: &Address, timeout: Duration) -> ProbeResult {
    match check {
        StatusCheck::Runtime(request) => match Client::with_timeout(address, timeout).get(request.path) {
            Ok(response) => from_recognition((request.read)(&response)),
            Err(error) => from_error(&error),
        },
        StatusCheck::Endpoint { address, path, timeout: own } => {
            match Client::with_timeout(address, timeout.min(*own)).get(path) {
                Ok(response) if (200..300).contains(&response.status) => {
                    ProbeResult::Ready(ServerFacts::default())
                }
                Ok(response) => ProbeResult::OtherProgram(format!("HTTP {} to {path}", response.status)),
                Err(error) => from_error(&error),
            }
        }
        StatusCheck::Port => accepts(address, timeout),
    }
}

/// Returns whether a connection to the port is accepted.
fn accepts(address: &Address, timeout: Duration) -> ProbeResult {
    let address = address.dial();
    let candidates = match (address.host.as_str(), address.port).to_socket_addrs() {
        Ok(candidates) => candidates,
        Err(error) => return ProbeResult::NoConnection(error.to_string()),
    };
    let mut why = "the host has no address".to_owned();
    for candidate in candidates {
        match TcpStream::connect_timeout(&candidate, timeout) {
            Ok(_) => return ProbeResult::Ready(ServerFacts::default()),
            Err(error) => why = error.to_string(),
        }
    }
    ProbeResult::NoConnection(why)
}

/// Makes a ready server generate a token. Keeps the facts that it reported.
fn with_generation(result: ProbeResult, address: &Address, model: &str, timeout: Duration) -> ProbeResult {
    match result {
        ProbeResult::Ready(facts) => match generate(address, model, timeout) {
            ProbeResult::Ready(_) => ProbeResult::Ready(facts),
            other => other,
        },
        other => other,
    }
}

/// Makes a server generate one token within `timeout`.
pub fn generate(address: &Address, model: &str, timeout: Duration) -> ProbeResult {
    match Client::with_timeout(address, timeout).one_token(model) {
        Ok(response) => match Generation::from_response(&response) {
            Generation::Works => ProbeResult::Ready(ServerFacts::default()),
            Generation::NotYet(words) => ProbeResult::NotReady(words),
            Generation::ModelMissing(words) => ProbeResult::ModelMissing(words),
            Generation::Refused(words) => ProbeResult::Broken(words),
        },
        Err(ApiError::TimedOut { connecting: false, .. }) => ProbeResult::NotGenerated,
        Err(error) => from_error(&error),
    }
}

fn from_recognition(recognition: Recognition) -> ProbeResult {
    match recognition {
        Recognition::Ready(facts) => ProbeResult::Ready(facts),
        Recognition::NotReady(why) => ProbeResult::NotReady(why),
        Recognition::Broken(why) => ProbeResult::Broken(why),
        Recognition::OtherProgram(what) => ProbeResult::OtherProgram(what),
    }
}

fn from_error(error: &ApiError) -> ProbeResult {
    match error {
        ApiError::Connect { source, .. } => ProbeResult::NoConnection(source.to_string()),
        ApiError::TimedOut { connecting: false, .. } | ApiError::Cancelled => ProbeResult::NoResponse,
        ApiError::TimedOut { connecting: true, .. } => {
            ProbeResult::NoConnection("the connection timed out".to_owned())
        }
        ApiError::Closed { .. } => {
            ProbeResult::OtherProgram("it closed the connection without a response".to_owned())
        }
        ApiError::Protocol { source, .. } => ProbeResult::OtherProgram(source.to_string()),
    }
}

/// Returns the pause before the next probe: short after a failed connection, longer after a request, which may add a
/// line to the server's log.
fn pause_after(result: &ProbeResult) -> Duration {
    match result {
        ProbeResult::NoConnection(_) => Duration::from_millis(10),
        _ => MIN_PAUSE,
    }
}

const MIN_PAUSE: Duration = Duration::from_millis(25);

/// Maximum pause after failed generations. Each pause is twice the one before, because a generation may be costly.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Timeout of a status request during a wait. A server that loads a model may need long for its first response.
pub const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Probes repeatedly on another thread, while the caller watches other things.
///
/// It probes only on request: fusion would cut an unused probe off when it ends, and servers log that as an error.
pub struct Watch {
    template: Template,
    address: Address,
    /// Asked for one token once the server is ready.
    model: Option<String>,
    deadline: Instant,
    /// When the next probe may be sent.
    not_before: Instant,
    pause_after_generation: Duration,
    /// The probe that was requested and has no result yet.
    pending: Option<PendingValue<(ProbeResult, bool)>>,
}

impl Watch {
    /// Probes until `deadline`, and sends a one-token chat if `model` is given.
    pub fn begin(template: Template, address: Address, model: Option<String>, deadline: Instant) -> Self {
        Self {
            template,
            address,
            model,
            deadline,
            not_before: Instant::now(),
            pause_after_generation: MIN_PAUSE,
            pending: None,
        }
    }

    /// Returns the next result if it arrives within `timeout`; `None` after the deadline.
    pub fn next(&mut self, timeout: Duration) -> Option<ProbeResult> {
        if self.pending.is_none() {
            if Instant::now() >= self.deadline {
                std::thread::sleep(timeout);
                return None;
            }
            self.pending = Some(self.request());
        }
        let (result, has_generated) = self.pending.as_ref()?.wait(timeout)?;
        self.pending = None;
        let mut pause = pause_after(&result);
        if has_generated {
            pause = self.pause_after_generation;
            self.pause_after_generation = MAX_PAUSE.min(pause * 2);
        }
        self.not_before = Instant::now() + pause;
        Some(result)
    }

    /// Begins one probe; its result, and whether a token was asked for.
    fn request(&self) -> PendingValue<(ProbeResult, bool)> {
        let Self { template, address, model, deadline, not_before, .. } = self;
        let (template, address, model) = (template.clone(), address.clone(), model.clone());
        let (deadline, not_before) = (*deadline, *not_before);
        PendingValue::begin(move || {
            std::thread::sleep(not_before.saturating_duration_since(Instant::now()));
            let left = deadline.saturating_duration_since(Instant::now()).max(MIN_PAUSE);
            let result = probe(&template, &address, Depth::default(), left.min(STATUS_TIMEOUT));
            match (model, result) {
                (Some(model), ProbeResult::Ready(facts)) => {
                    (with_generation(ProbeResult::Ready(facts), &address, &model, left), true)
                }
                (_, result) => (result, false),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::core::runtimes::{self, TABLE};

    /// A host that does not accept the connection has no listener.
    #[test]
    fn connect_timeout_is_no_connection() {
        let result = |connecting| from_error(&ApiError::TimedOut { address: "there".to_owned(), connecting });
        assert_eq!(result(true), ProbeResult::NoConnection("the connection timed out".to_owned()));
        assert_eq!(result(false), ProbeResult::NoResponse);
    }

    /// An unused probe would be cut off when fusion ends.
    #[test]
    fn watch_probes_only_on_request() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let timeout = Duration::from_secs(60);
        let respond = || {
            let (mut stream, _) = server.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"version\":\"1\"}").unwrap();
        };
        let template = Template::Runtime(runtimes::find(TABLE, "ollama").unwrap());
        let address = Address { host: "127.0.0.1".to_owned(), port };
        let mut watch = Watch::begin(template, address, None, Instant::now() + timeout);
        for _ in 0..2 {
            assert_eq!(watch.next(Duration::ZERO), None);
            respond();
            assert!(matches!(watch.next(timeout), Some(ProbeResult::Ready(_))));
            server.set_nonblocking(true).unwrap();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(300) {
                assert!(server.accept().is_err(), "it was requested again");
                std::thread::sleep(Duration::from_millis(5));
            }
            server.set_nonblocking(false).unwrap();
        }
    }
}
