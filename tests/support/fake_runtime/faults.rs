//! The faults of the fake runtime.

use std::collections::BTreeMap;
use std::time::Duration;

/// Faults and behaviours by name, each with its value, which may be empty.
///
/// | fault | what happens |
/// |---|---|
/// | `print=TEXT`, `print-hex=HEX` | writes that to stderr first |
/// | `die=CODE` | exits at once |
/// | `die-after=MS` | exits with code 1 after this time |
/// | `die-when=FILE` | exits with code 3 when that file exists, its children stay |
/// | `signal=NUMBER` | ends itself by that signal at once |
/// | `bind-after=MS` | binds late |
/// | `bind-when=FILE` | binds when that file exists |
/// | `never-bind` | lives without listening |
/// | `hang` | binds, and answers nothing |
/// | `hang-while=FILE` | answers nothing while that file exists |
/// | `loading=MS` | answers 503 for this time |
/// | `status=CODE` | answers everything with that status |
/// | `chat-loading-while=FILE` | answers 503 to chats while that file exists |
/// | `chat-status=CODE` | answers chats with that status |
/// | `says=TEXT` | has this text in its error responses |
/// | `chat-hang` | answers everything but chats |
/// | `die-on-chat` | exits when it gets a chat |
/// | `token-after=MS` | waits before each token |
/// | `ignore-term` | does not end on SIGTERM |
/// | `slow-end=MS` | exits on SIGTERM after this time |
/// | `end-when=FILE` | ends on SIGTERM when that file exists |
/// | `children=N` | has N children |
/// | `children-ignore-term` | its children do not end on SIGTERM |
/// | `children-own-session` | its children have their own sessions |
/// | `fork-away` | starts itself in a new session, and exits with 0 |
/// | `forks-twice` | with `fork-away`: the parent of the server is no process of the service |
/// | `lingers=MS` | with `fork-away`: exits after this time only, and the server does not have the mark of its instance |
/// | `lingers-until=FILE` | the same, when that file exists |
/// | `hands-over-socket` | with `fork-away`: the first process binds, as nginx does, and the server gets its socket |
/// | `flood=BYTES` | writes this many bytes to the log, in lines of 100 bytes |
/// | `quiet` | does not print the requests |
/// | `dump=FILE` | writes its arguments, environment and descriptors to that file |
/// | `models=A,B` | the models it knows |
/// | `runs=COMMAND` | its model calls the tool that runs commands, with this command (see `agents.rs`) |
/// | `version=TEXT`, `context=N` | the version that Ollama reports, and the context of its loaded models |
/// | `digest=TEXT` | the digest of every model of Ollama, else the model's name |
/// | `gpu=PERCENT` | Ollama says that so much of each model is on the GPU |
pub(crate) struct Faults(pub(crate) BTreeMap<String, String>);

impl Faults {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text}: not a number")))
    }

    pub(crate) fn millis(&self, name: &str) -> Option<Duration> {
        self.number(name).map(Duration::from_millis)
    }
}

pub(crate) const FAULTS: &[&str] = &[
    "print",
    "print-hex",
    "die",
    "die-after",
    "die-when",
    "signal",
    "bind-after",
    "bind-when",
    "never-bind",
    "hang",
    "hang-while",
    "loading",
    "status",
    "chat-loading-while",
    "chat-status",
    "says",
    "chat-hang",
    "die-on-chat",
    "token-after",
    "ignore-term",
    "slow-end",
    "end-when",
    "children",
    "children-ignore-term",
    "children-own-session",
    "fork-away",
    "forks-twice",
    "lingers",
    "lingers-until",
    "hands-over-socket",
    "flood",
    "quiet",
    "dump",
    "models",
    "runs",
    "version",
    "context",
    "digest",
    "gpu",
    "child",
];
