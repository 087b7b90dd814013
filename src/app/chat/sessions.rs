//! The directory of all sessions: `NAME.jsonl` for each.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::session::{self, ChatSession, Contents, SavedSession, SessionError, SessionFile};
use crate::core::files::{self, FileError};
use crate::core::order;
use crate::core::timestamp::Timestamp;

const EXTENSION: &str = "jsonl";

/// Maximum length of the name of a session, in bytes.
const MAX_NAME_BYTES: usize = 100;

/// How many words of the first question are in the name of a session.
const NAME_WORDS: usize = 6;

/// Maximum length of these words, in characters.
const MAX_WORDS_CHARACTERS: usize = 40;

/// The sessions of this user.
#[derive(Debug, Clone)]
pub struct Sessions {
    directory: PathBuf,
}

/// A session in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    pub name: String,
    pub changed: SystemTime,
    pub contents: Contents,
}

impl Sessions {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Returns the file of the session called `name`.
    pub fn path(&self, name: &str) -> Result<PathBuf, SessionError> {
        if !is_name(name) {
            return Err(SessionError::InvalidName { name: name.to_owned() });
        }
        Ok(self.directory.join(format!("{name}.{EXTENSION}")))
    }

    /// Opens the session called `name` for further messages; returns `None` if there is none.
    pub fn open(&self, name: &str) -> Result<Option<SavedSession>, SessionError> {
        SessionFile::open(name, &self.path(name)?)
    }

    /// Opens the session called `name` only to read it, also while a process has it open; returns `None` if there is
    /// none.
    pub fn open_unsaved(&self, name: &str) -> Result<Option<SavedSession>, SessionError> {
        Ok(session::read(&self.path(name)?)?.map(SavedSession::unlocked))
    }

    /// Returns the name of the session with the newest message, of those with `service` if that is given.
    pub fn newest(&self, service: Option<&str>) -> Result<String, SessionError> {
        let found = self.names()?.into_iter().find(|(name, _)| {
            let of_service = |wanted: &str| {
                let contents = self.read(name).ok()?;
                Some(contents.header?.service == wanted)
            };
            service.is_none_or(|wanted| of_service(wanted) == Some(true))
        });
        let none_yet = || SessionError::NoneYet { of_service: service.map(str::to_owned) };
        found.map(|(name, _)| name).ok_or_else(none_yet)
    }

    /// Has every further line of a new session written to a file called `name`. Fails if there is one meanwhile.
    pub fn save_as(&self, session: &mut ChatSession, name: &str) -> Result<(), SessionError> {
        let path = self.path(name)?;
        files::make_directory(&self.directory)?;
        match SessionFile::create(name, &path)? {
            Some(file) => Ok(session.save_to(file)?),
            None => Err(SessionError::InUse { name: name.to_owned() }),
        }
    }

    /// Has every further line of a new session written to a file named after the date and the first question.
    pub fn save(
        &self,
        session: &mut ChatSession,
        question: &str,
        now: SystemTime,
    ) -> Result<(), SessionError> {
        files::make_directory(&self.directory)?;
        let name = name_of(question, now);
        for number in 1_u32.. {
            let name = if number == 1 { name.clone() } else { format!("{name}-{number}") };
            if let Some(file) = SessionFile::create(&name, &self.path(&name)?)? {
                return Ok(session.save_to(file)?);
            }
        }
        Err(SessionError::InvalidName { name })
    }

    /// Reads the session called `name`, also while a process has it open.
    pub fn read(&self, name: &str) -> Result<Contents, SessionError> {
        let missing = || SessionError::Missing { name: name.to_owned() };
        session::read(&self.path(name)?)?.ok_or_else(missing)
    }

    /// Returns all sessions, the newest first. One that cannot be read is left out.
    pub fn list(&self) -> Result<Vec<SessionRow>, SessionError> {
        let row = |(name, changed): (String, SystemTime)| {
            let contents = self.read(&name).ok()?;
            Some(SessionRow { name, changed, contents })
        };
        Ok(self.names()?.into_iter().filter_map(row).collect())
    }

    /// Removes the session called `name`, unless a process has it open.
    pub fn remove(&self, name: &str) -> Result<(), SessionError> {
        let path = self.path(name)?;
        let Some(_locked) = SessionFile::open(name, &path)? else {
            return Err(SessionError::Missing { name: name.to_owned() });
        };
        Ok(files::remove(&path)?)
    }

    /// Returns the names with the time of the last change, the newest first.
    fn names(&self) -> Result<Vec<(String, SystemTime)>, SessionError> {
        let entries = match self.directory.read_dir() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(FileError::io("list", &self.directory))?,
        };
        let session_name = |path: &Path| {
            let is_session = path.extension().is_some_and(|extension| extension == EXTENSION);
            path.file_stem()?.to_str().filter(|name| is_session && is_name(name)).map(str::to_owned)
        };
        let mut names: Vec<_> = entries
            .flatten()
            .filter_map(|entry| Some((session_name(&entry.path())?, entry.metadata().ok()?.modified().ok()?)))
            .collect();
        order::sort_by(&mut names, |(one, earlier), (other, later)| {
            later.cmp(earlier).then_with(|| other.cmp(one))
        });
        Ok(names)
    }
}

/// Returns whether a session can have this name, which is part of a file's name.
fn is_name(name: &str) -> bool {
    let is_allowed = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_' | '.');
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name.chars().all(is_allowed)
        && !name.starts_with(['.', '-'])
}

/// Returns `2026-11-28-why-is-the-sky-blue`.
fn name_of(question: &str, now: SystemTime) -> String {
    let date: String = Timestamp::from(now).to_string().chars().take(10).collect();
    let words =
        question.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.take(NAME_WORDS).map(str::to_lowercase).collect();
    let words: String = words.join("-").chars().take(MAX_WORDS_CHARACTERS).collect();
    let mut name = format!("{date}-{words}");
    // A number may follow.
    while name.len() > MAX_NAME_BYTES - 10 {
        name.pop();
    }
    name.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Map, json};

    use super::super::conversation::{ChatMessage, Role, SessionHeader, SessionLine};
    use super::*;

    fn header(service: &str) -> SessionHeader {
        SessionHeader {
            service: service.to_owned(),
            model: "m".to_owned(),
            system: "s".to_owned(),
            parameters: Map::new(),
        }
    }

    fn line(role: Role, text: &str) -> SessionLine {
        SessionLine::Message(ChatMessage { role, ..ChatMessage::question(json!(text)) })
    }

    fn sessions() -> (tempfile::TempDir, Sessions) {
        let directory = tempfile::tempdir().unwrap();
        let sessions = Sessions::new(directory.path().join("sessions"));
        (directory, sessions)
    }

    fn saved(sessions: &Sessions, name: &str) -> ChatSession {
        let mut session = ChatSession::new(header("mlx"));
        sessions.save_as(&mut session, name).unwrap();
        session
    }

    #[test]
    fn a_session_is_named_after_date_and_words() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(500_000);
        for (question, name) in [
            ("Why is the sky blue?", "2027-01-15-why-is-the-sky-blue"),
            ("  \"What's\" this?/../x and so on and on", "2027-01-15-what-s-this-x-and-so"),
            ("Übergröße 日本", "2027-01-15-übergröße-日本"),
            ("?!", "2027-01-15"),
            (&"x".repeat(1000), "2027-01-15-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
        ] {
            assert_eq!(name_of(question, now), name);
            assert!(is_name(&name_of(question, now)));
        }
        assert!(is_name(&format!("{}-9999999", name_of(&"日".repeat(1000), now))));
    }

    #[test]
    fn names_that_are_paths_are_refused() {
        let (_directory, sessions) = sessions();
        for name in ["", ".", "..", ".x", "-x", "a/b", "a b", "a\n", &"x".repeat(101)] {
            assert!(matches!(sessions.read(name), Err(SessionError::InvalidName { .. })), "{name:?}");
        }
    }

    #[test]
    fn every_line_is_in_the_file_at_once() {
        let (_directory, sessions) = sessions();
        let mut session = saved(&sessions, "one");
        session.push(&line(Role::User, "q")).unwrap();
        session.push(&line(Role::Assistant, "a")).unwrap();
        let text = std::fs::read_to_string(sessions.path("one").unwrap()).unwrap();
        insta::assert_snapshot!(text, @r#"
        {"service":"mlx","model":"m","system":"s","parameters":{}}
        {"role":"user","content":"q"}
        {"role":"assistant","content":"a"}
        "#);
        let contents = sessions.read("one").unwrap();
        assert_eq!((contents.header, contents.damaged), (Some(header("mlx")), 0));
        assert_eq!(contents.conversation, session.conversation);
    }

    #[test]
    fn a_second_process_is_refused() {
        let (_directory, sessions) = sessions();
        let session = saved(&sessions, "one");
        assert!(matches!(sessions.open("one"), Err(SessionError::InUse { .. })));
        assert!(matches!(sessions.remove("one"), Err(SessionError::InUse { .. })));
        drop(session);
        assert!(sessions.open("one").unwrap().is_some());
        sessions.remove("one").unwrap();
        assert!(sessions.open("one").unwrap().is_none());
        assert!(matches!(sessions.remove("one"), Err(SessionError::Missing { .. })));
    }

    #[test]
    fn damaged_lines_are_skipped_and_kept() {
        let (_directory, sessions) = sessions();
        let mut session = saved(&sessions, "one");
        session.push(&line(Role::User, "q")).unwrap();
        drop(session);
        let path = sessions.path("one").unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend_from_slice(b"{\"role\":\"assistant\",\"content\":\"a\"}\n\xff\xfe\n[1]\n{\"role\":\"us");
        std::fs::write(&path, &bytes).unwrap();
        let opened = sessions.open("one").unwrap().unwrap();
        assert_eq!(opened.contents.damaged, 3);
        let (mut session, written) = opened.resume(header("other"));
        written.unwrap();
        assert_eq!(session.service, "mlx");
        session.push(&line(Role::User, "q2")).unwrap();
        drop(session);
        let after = std::fs::read(&path).unwrap();
        assert_eq!(after, [&bytes, &b"\n{\"role\":\"user\",\"content\":\"q2\"}\n"[..]].concat());
        let texts: Vec<String> =
            sessions.read("one").unwrap().conversation.messages().iter().map(ChatMessage::text).collect();
        assert_eq!(texts, ["q", "a", "q2"]);
    }

    #[test]
    fn a_damaged_header_is_replaced() {
        let (_directory, sessions) = sessions();
        std::fs::create_dir(sessions.path("one").unwrap().parent().unwrap()).unwrap();
        for content in ["", "{\"servi\n"] {
            std::fs::write(sessions.path("one").unwrap(), content).unwrap();
            let (session, written) = sessions.open("one").unwrap().unwrap().resume(header("mlx"));
            written.unwrap();
            assert_eq!((session.service.as_str(), session.conversation.model.as_str()), ("mlx", "m"));
            drop(session);
            assert_eq!(sessions.read("one").unwrap().header, Some(header("mlx")));
        }
    }

    #[test]
    fn the_newest_session_is_the_last_written() {
        let (_directory, sessions) = sessions();
        assert!(matches!(sessions.newest(None), Err(SessionError::NoneYet { .. })));
        for (name, service, hour) in [("a", "mlx", 3), ("b", "ollama", 2), ("c", "mlx", 1)] {
            let mut session = ChatSession::new(header(service));
            sessions.save_as(&mut session, name).unwrap();
            let file = std::fs::File::open(sessions.path(name).unwrap()).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_hours(hour)).unwrap();
        }
        let newest = |service| sessions.newest(service).unwrap();
        assert_eq!([newest(None), newest(Some("ollama")), newest(Some("mlx"))], ["a", "b", "a"]);
        let listed: Vec<String> = sessions.list().unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(listed, ["a", "b", "c"]);
    }

    #[test]
    fn equal_names_get_a_number() {
        let (_directory, sessions) = sessions();
        let names = [(); 3].map(|()| {
            let mut session = ChatSession::new(header("mlx"));
            sessions.save(&mut session, "Hi", SystemTime::UNIX_EPOCH).unwrap();
            session.name().unwrap().to_owned()
        });
        assert_eq!(names, ["1970-01-01-hi", "1970-01-01-hi-2", "1970-01-01-hi-3"]);
    }
}
