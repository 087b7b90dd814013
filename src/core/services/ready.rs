//! Readiness: what one look at an address finds, and looking again and again beside the wait.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Answered;
use crate::core::address::Address;
use crate::core::api::{ApiError, Client};
use crate::core::runtimes::{Answer, Generation, Runtime, ServerFacts};

/// What one look at an address found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// Nobody accepts connections; why, in words.
    NoConnection(String),
    /// Somebody accepts connections and does not answer in time.
    Silent,
    /// This kind of runtime, able to answer requests.
    Ready(ServerFacts),
    /// This kind of runtime, unable to answer requests now; why, in words.
    NotReady(String),
    /// This kind of runtime, which did not generate in the time it had.
    NotGenerated,
    /// This kind of runtime, and it will not be able to answer until it is started anew; why, in words.
    Broken(String),
    /// This kind of runtime, without the model that it was asked for; what it said.
    ModelMissing(String),
    /// Something else; what it said, in words.
    SomethingElse(String),
}

impl Sight {
    /// As far as the verdict depends on it.
    pub fn answered(&self) -> Answered {
        match self {
            Self::NoConnection(_) | Self::Silent => Answered::Nothing,
            Self::Ready(_) => Answered::Ready,
            Self::NotReady(_) | Self::NotGenerated | Self::Broken(_) | Self::ModelMissing(_) => {
                Answered::NotReady
            }
            Self::SomethingElse(_) => Answered::SomethingElse,
        }
    }

    /// In words, for a person who waits.
    pub fn words(&self) -> String {
        match self {
            Self::NoConnection(why)
            | Self::NotReady(why)
            | Self::Broken(why)
            | Self::ModelMissing(why)
            | Self::SomethingElse(why) => why.clone(),
            Self::Silent => "it accepts connections and does not answer".to_owned(),
            Self::NotGenerated => "it has not generated anything yet".to_owned(),
            // Only of somebody else are these words needed.
            Self::Ready(_) => "another server of this kind answers there".to_owned(),
        }
    }
}

/// How thoroughly to look.
#[derive(Debug, Clone, Copy)]
pub enum Depth<'a> {
    /// The cheap request.
    Status,
    /// That, and a chat of one token with this model.
    Generation(&'a str),
}

/// Looks once. Each request may take as long as `limit`.
pub fn look(runtime: &dyn Runtime, address: &Address, depth: Depth<'_>, limit: Duration) -> Sight {
    let client = Client::with_limit(address, limit);
    let probe = runtime.status_probe();
    let sight = match client.get(probe.path) {
        Ok(reply) => from_answer((probe.read)(reply.status, &reply.body)),
        Err(error) => from_error(&error),
    };
    match depth {
        Depth::Generation(model) => deepen(sight, address, model, limit),
        Depth::Status => sight,
    }
}

/// Has a server that says it is ready prove it. What it told of itself stays.
fn deepen(sight: Sight, address: &Address, model: &str, limit: Duration) -> Sight {
    match sight {
        Sight::Ready(facts) => match generate(address, model, limit) {
            Sight::Ready(_) => Sight::Ready(facts),
            other => other,
        },
        other => other,
    }
}

/// Has a server generate one token, within `limit`.
pub fn generate(address: &Address, model: &str, limit: Duration) -> Sight {
    match Client::with_limit(address, limit).one_token(model) {
        Ok(reply) => match Generation::from_reply(&reply) {
            Generation::Works => Sight::Ready(ServerFacts::default()),
            Generation::NotYet(words) => Sight::NotReady(words),
            Generation::ModelMissing(words) => Sight::ModelMissing(words),
            Generation::Refused(words) => Sight::Broken(words),
        },
        Err(ApiError::TimedOut { connecting: false, .. }) => Sight::NotGenerated,
        Err(error) => from_error(&error),
    }
}

fn from_answer(answer: Answer) -> Sight {
    match answer {
        Answer::Ready(facts) => Sight::Ready(facts),
        Answer::NotReady(why) => Sight::NotReady(why),
        Answer::Broken(why) => Sight::Broken(why),
        Answer::SomethingElse(what) => Sight::SomethingElse(what),
    }
}

fn from_error(error: &ApiError) -> Sight {
    match error {
        ApiError::Connect { source, .. } => Sight::NoConnection(source.to_string()),
        ApiError::TimedOut { connecting: false, .. } => Sight::Silent,
        ApiError::TimedOut { connecting: true, .. } => {
            Sight::NoConnection("no connection could be made in time".to_owned())
        }
        ApiError::Closed { .. } => {
            Sight::SomethingElse("it closed the connection without an answer".to_owned())
        }
        ApiError::Protocol { source, .. } => Sight::SomethingElse(source.to_string()),
    }
}

/// How soon to look again: attempts to connect leave no trace, requests may each leave a line in the log.
fn pause_after(sight: &Sight) -> Duration {
    match sight {
        Sight::NoConnection(_) => Duration::from_millis(10),
        _ => FIRST_PAUSE,
    }
}

const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// The longest pause after generations that failed, each of which may have cost the server much: twice the one before.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Looks again and again in a thread of its own, so that whoever waits can see to other things meanwhile.
///
/// It looks only while the next sight is awaited: a look that nobody needs any more would be cut off when fusion ends,
/// and servers log that as an error. The thread ends soon after the watch is dropped or the deadline has passed.
pub struct Watch(Arc<Shared>);

/// What a watch and its thread share.
struct Shared {
    turn: Mutex<Turn>,
    changed: Condvar,
}

/// Whose turn it is.
enum Turn {
    /// Nobody awaits a sight.
    Idle,
    /// One is awaited.
    Asked,
    /// Here it is.
    Seen(Sight),
    /// Nobody will ask any more.
    Dropped,
}

impl Shared {
    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the next turn, unless nobody is left to whom it would matter.
    fn take(&self, next: Turn) {
        let mut turn = self.turn();
        if !matches!(*turn, Turn::Dropped) {
            *turn = next;
        }
        self.changed.notify_all();
    }

    /// Waits until a sight is asked for; `false` when none ever will be.
    fn is_asked(&self) -> bool {
        let waits = |turn: &mut Turn| matches!(turn, Turn::Idle | Turn::Seen(_));
        let turn = self.changed.wait_while(self.turn(), waits).unwrap_or_else(PoisonError::into_inner);
        matches!(*turn, Turn::Asked)
    }
}

/// How long a status request may take while somebody waits; a server that loads may need long for its first answer.
pub const STATUS_LIMIT: Duration = Duration::from_secs(5);

impl Watch {
    /// Begins to look, until `deadline`; with a one-token chat if a `model` is given.
    pub fn begin(
        runtime: &'static dyn Runtime,
        address: Address,
        model: Option<String>,
        deadline: Instant,
    ) -> Self {
        let shared = Arc::new(Shared { turn: Mutex::new(Turn::Idle), changed: Condvar::new() });
        let watch = Self(Arc::clone(&shared));
        std::thread::spawn(move || {
            let mut pause_after_generation = FIRST_PAUSE;
            while shared.is_asked() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return;
                }
                let mut sight = look(runtime, &address, Depth::Status, left.min(STATUS_LIMIT));
                let mut pause = pause_after(&sight);
                if let (Some(model), Sight::Ready(_)) = (&model, &sight) {
                    sight = deepen(sight, &address, model, left);
                    pause = pause_after_generation;
                    pause_after_generation = LONGEST_PAUSE.min(pause * 2);
                }
                shared.take(Turn::Seen(sight));
                std::thread::sleep(pause);
            }
        });
        watch
    }

    /// The next sight, if there is one within `patience`; none after the deadline.
    pub fn next(&mut self, patience: Duration) -> Option<Sight> {
        let Self(shared) = self;
        let mut turn = shared.turn();
        if matches!(*turn, Turn::Idle) {
            *turn = Turn::Asked;
            shared.changed.notify_all();
        }
        let waits = |turn: &mut Turn| matches!(turn, Turn::Asked);
        let waited = shared.changed.wait_timeout_while(turn, patience, waits);
        let (mut turn, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if matches!(*turn, Turn::Asked) {
            return None;
        }
        match mem::replace(&mut *turn, Turn::Idle) {
            Turn::Seen(sight) => Some(sight),
            _ => None,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.take(Turn::Dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;
    use crate::core::runtimes::{self, TABLE};

    /// A host that answers nothing is not one where somebody listens.
    #[test]
    fn a_connection_that_is_not_made_in_time_is_none() {
        let sight = |connecting| from_error(&ApiError::TimedOut { address: "there".to_owned(), connecting });
        assert_eq!(sight(true), Sight::NoConnection("no connection could be made in time".to_owned()));
        assert_eq!(sight(false), Sight::Silent);
    }

    /// Fusion ends soon after an answer is good enough, and would cut off a look that nobody needs any more.
    #[test]
    fn nothing_is_asked_after_an_answer_unless_another_is_awaited() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let ever = Duration::from_secs(60);
        let answer = || {
            let (mut stream, _) = server.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"version\":\"1\"}").unwrap();
        };
        let runtime = runtimes::find(TABLE, "ollama").unwrap();
        let address = Address { host: "127.0.0.1".to_owned(), port };
        let mut watch = Watch::begin(runtime, address, None, Instant::now() + ever);
        for _ in 0..2 {
            assert_eq!(watch.next(Duration::ZERO), None);
            answer();
            assert!(matches!(watch.next(ever), Some(Sight::Ready(_))));
            server.set_nonblocking(true).unwrap();
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(300) {
                assert!(server.accept().is_err(), "it was asked again");
                std::thread::sleep(Duration::from_millis(5));
            }
            server.set_nonblocking(false).unwrap();
        }
    }
}
