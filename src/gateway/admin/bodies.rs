//! The bodies of `POST /api/instances` and `/api/templates`, read strictly: what they ask for, and whether that is a
//! command line.

use std::fmt::Display;

use serde_json::{Map, Value};

use super::super::wire::ApiFailure;
use crate::core::address::Address;
use crate::core::config::edit::NewInstance;
use crate::core::json_object;

/// Keys with which a client would choose what runs on this machine, or where the gateway connects.
const COMMAND_LINE: [&str; 9] = [
    "args",
    "command",
    "env",
    "extra_body",
    "health_endpoint",
    "models_dir",
    "start_command",
    "stop_command",
    "working_dir",
];

/// An instance that a client wants.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct InstanceBody {
    pub(super) name: String,
    pub(super) template: String,
    /// The further keys.
    keys: Map<String, Value>,
}

/// A template that a client wants.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TemplateBody {
    pub(super) name: String,
    /// The keys of its table.
    pub(super) keys: Map<String, Value>,
}

impl InstanceBody {
    /// Reads the body. `may_choose_commands` says whether this client has shown the token.
    pub(super) fn read(body: &[u8], may_choose_commands: bool) -> Result<Self, ApiFailure> {
        const WHAT: &str = "an instance";
        let mut keys = object(body, WHAT)?;
        let (name, template) = (taken(&mut keys, "name", WHAT)?, taken(&mut keys, "template", WHAT)?);
        keys.retain(|_, value| !value.is_null());
        refuse_command_line(&keys, may_choose_commands)?;
        Ok(Self { name, template, keys })
    }

    /// Returns the instance for the configuration, which checks names and ranges.
    pub(super) fn into_new(self) -> Result<NewInstance, ApiFailure> {
        let mut new = NewInstance { name: self.name, template: self.template, ..NewInstance::default() };
        for (key, value) in self.keys {
            let wrong = |expected: &str| ApiFailure::new(400, format!("`{key}` is not {expected}"));
            match key.as_str() {
                "port" => {
                    let port = value.as_u64().and_then(|port| port.try_into().ok());
                    new.port = Some(port.ok_or_else(|| wrong("a port, 1 to 65535"))?);
                }
                "model" => new.model = Some(text(value).ok_or_else(|| wrong("a string"))?),
                "working_dir" => new.working_dir = Some(text(value).ok_or_else(|| wrong("a string"))?),
                "tags" => {
                    let Value::Array(tags) = value else { return Err(wrong("a list of strings")) };
                    let tags: Option<Vec<String>> = tags.into_iter().map(text).collect();
                    new.tags = tags.ok_or_else(|| wrong("a list of strings"))?;
                }
                "env" => {
                    let Value::Object(env) = value else { return Err(wrong("an object of strings")) };
                    for (name, value) in env {
                        new.env.push((name, text(value).ok_or_else(|| wrong("an object of strings"))?));
                    }
                }
                _ => {
                    let message = format!(
                        "unknown key `{key}`; valid here: `name`, `template`, `port`, `model`, `working_dir`, `tags`, `env`"
                    );
                    return Err(ApiFailure::new(400, message));
                }
            }
        }
        Ok(new)
    }
}

impl TemplateBody {
    /// Reads the body. `may_choose_commands` says whether this client has shown the token.
    pub(super) fn read(body: &[u8], may_choose_commands: bool) -> Result<Self, ApiFailure> {
        const WHAT: &str = "a template";
        let mut keys = object(body, WHAT)?;
        let name = taken(&mut keys, "name", WHAT)?;
        if !["start_command", "command"].iter().any(|key| keys.contains_key(*key)) {
            return Err(ApiFailure::new(400, "a template needs `start_command` or `command`"));
        }
        refuse_command_line(&keys, may_choose_commands)?;
        Ok(Self { name, keys })
    }
}

/// Reads a JSON object that stands for `what`.
fn object(body: &[u8], what: &str) -> Result<Map<String, Value>, ApiFailure> {
    json_object::parse(body).map_err(|error| malformed(what, &error))
}

/// Takes a text out of the object.
fn taken(keys: &mut Map<String, Value>, key: &'static str, what: &str) -> Result<String, ApiFailure> {
    match keys.remove(key) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(ApiFailure::new(400, format!("`{key}` is not a string")).with_param(key)),
        None => Err(malformed(what, &format_args!("missing field `{key}`"))),
    }
}

fn malformed(what: &str, fault: &dyn Display) -> ApiFailure {
    ApiFailure::new(400, format!("the body is not {what}: {fault}"))
}

/// Fails if a key is a part of a command line, unless the client may choose one.
fn refuse_command_line(keys: &Map<String, Value>, may_choose_commands: bool) -> Result<(), ApiFailure> {
    match command_line(keys).filter(|_| !may_choose_commands) {
        Some(key) => {
            let message = format!(
                "`{key}` is a part of a command line, which this gateway takes from the network only with `gateway.token`"
            );
            Err(ApiFailure::new(403, message).with_param(key))
        }
        None => Ok(()),
    }
}

/// Returns the first key that is a part of a command line.
fn command_line(keys: &Map<String, Value>) -> Option<&'static str> {
    let is_foreign = |host: &str| !Address { host: host.to_owned(), port: 1 }.is_loopback();
    let is_text =
        |key: &str, test: &dyn Fn(&str) -> bool| keys.get(key).and_then(Value::as_str).is_some_and(test);
    if is_text("host", &is_foreign) {
        return Some("host");
    }
    if is_text("model", &|model| model.starts_with('-')) {
        return Some("model");
    }
    COMMAND_LINE.into_iter().find(|key| keys.contains_key(*key))
}

fn text(value: Value) -> Option<String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(body: &Value, has_token: bool) -> u16 {
        InstanceBody::read(body.to_string().as_bytes(), has_token)
            .map_or_else(|failure| failure.status, |_| 200)
    }

    #[test]
    fn command_lines_need_the_token() {
        for (key, value) in [
            ("args", json!(["--x"])),
            ("command", json!(["x"])),
            ("env", json!({ "LD_PRELOAD": "x" })),
            ("health_endpoint", json!("http://evil.example")),
            ("host", json!("0.0.0.0")),
            ("model", json!("--trust-remote-code")),
            ("models_dir", json!("/")),
            ("start_command", json!("x")),
            ("stop_command", json!("x")),
            ("working_dir", json!("/")),
        ] {
            let mut body = json!({ "name": "a", "template": "mlx" });
            body[key] = value;
            assert_eq!(status(&body, false), 403, "{body}");
            assert_eq!(status(&body, true), 200, "{body}");
        }
    }

    #[test]
    fn bodies_are_read_strictly() {
        for (body, expected) in [
            (json!({ "name": "a", "template": "mlx" }), 200),
            (json!({ "name": "a", "template": "mlx", "port": 1, "model": "m", "host": "localhost" }), 200),
            (json!({ "name": "a", "template": "mlx", "args": null }), 200),
            (json!({ "name": "a" }), 400),
            (json!({ "template": "mlx" }), 400),
            (json!({ "name": 7, "template": "mlx" }), 400),
            (json!({ "name": "a", "template": null }), 400),
            (json!([]), 400),
            (json!({}), 400),
        ] {
            assert_eq!(status(&body, false), expected, "{body}");
        }
        assert!(InstanceBody::read(b"{", false).is_err());
    }
}
