//! The coding agents that fusion launches: what each needs to work with a local model, for one process only.

mod setups;

use std::fmt;
use std::path::Path;

/// How an agent is launched.
#[derive(Debug)]
pub struct Agent {
    pub name: &'static str,
    pub display_name: &'static str,
    /// Its program on `PATH`.
    pub program: &'static str,
    /// The oldest version that works.
    pub minimum: Option<AgentVersion>,
    pub wire: AgentWire,
    /// The context length in tokens below which its own instructions leave no room to work.
    pub min_context: u64,
    /// Whether it can do nothing with a model that calls no tools.
    pub needs_tools: bool,
    /// The command that installs it.
    pub install: &'static str,
    /// Returns what it needs for a target.
    pub setup: fn(&AgentTarget<'_>) -> AgentSetup,
}

/// What an agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentWire {
    /// OpenAI's chat completions, which every runtime has.
    Chat,
    /// Anthropic's `/v1/messages`.
    Messages,
    /// OpenAI's `/v1/responses`.
    Responses,
}

impl AgentWire {
    /// Returns the name of the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }
}

/// The server and the model that an agent shall use.
#[derive(Debug, Clone, Copy)]
pub struct AgentTarget<'a> {
    /// The base of its URLs, without a path and a slash at the end.
    pub url: &'a str,
    /// The key that the server wants, or any.
    pub key: &'a str,
    /// The model by the server's name for it.
    pub model: &'a str,
    /// The context length in tokens that the agent is told, if it is known.
    pub context: Option<u64>,
    /// Whether the agent gets fewer tools and shorter instructions, for small models.
    pub lean: bool,
    /// The directory of the agent's files, which is fusion's own.
    pub directory: &'a Path,
}

/// What an agent gets: for its process only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentSetup {
    /// The arguments before those of the user.
    pub before: Vec<String>,
    /// The arguments after those of the user.
    pub after: Vec<String>,
    pub env: Vec<(&'static str, String)>,
    /// Files in the directory of the agent, by name.
    pub files: Vec<(&'static str, String)>,
}

/// The agents that fusion launches.
pub static AGENTS: [Agent; 7] = [
    Agent {
        name: "codex",
        display_name: "Codex",
        program: "codex",
        minimum: Some(AgentVersion(0, 169, 0)),
        wire: AgentWire::Responses,
        min_context: 16_384,
        needs_tools: true,
        install: "npm install --global @openai/codex",
        setup: setups::codex,
    },
    Agent {
        name: "claude",
        display_name: "Claude Code",
        program: "claude",
        minimum: Some(AgentVersion(2, 1, 197)),
        wire: AgentWire::Messages,
        min_context: 16_384,
        needs_tools: true,
        install: "npm install --global @anthropic-ai/claude-code",
        setup: setups::claude,
    },
    Agent {
        name: "opencode",
        display_name: "opencode",
        program: "opencode",
        minimum: None,
        wire: AgentWire::Chat,
        min_context: 16_384,
        needs_tools: true,
        install: "npm install --global opencode-ai",
        setup: setups::opencode,
    },
    Agent {
        name: "aider",
        display_name: "aider",
        program: "aider",
        minimum: None,
        wire: AgentWire::Chat,
        min_context: 4_096,
        needs_tools: false,
        install: "uv tool install aider-chat",
        setup: setups::aider,
    },
    Agent {
        name: "qwen-code",
        display_name: "Qwen Code",
        program: "qwen",
        minimum: None,
        wire: AgentWire::Chat,
        min_context: 16_384,
        needs_tools: true,
        install: "npm install --global @qwen-code/qwen-code",
        setup: setups::qwen_code,
    },
    Agent {
        name: "crush",
        display_name: "Crush",
        program: "crush",
        minimum: None,
        wire: AgentWire::Chat,
        min_context: 16_384,
        needs_tools: true,
        install: "npm install --global @charmland/crush",
        setup: setups::crush,
    },
    Agent {
        name: "pi",
        display_name: "pi",
        program: "pi",
        minimum: None,
        wire: AgentWire::Chat,
        min_context: 8_192,
        needs_tools: true,
        install: "npm install --global @mariozechner/pi-coding-agent",
        setup: setups::pi,
    },
];

/// The agents that fusion does not launch, with the reason.
pub const NOT_OFFERED: [(&str, &str); 2] = [
    ("gemini-cli", "it speaks only Google's own API, which no local server has"),
    ("cursor-agent", "it works only through the servers of its makers"),
];

/// Returns the agent called `name`, or whose program is.
pub fn find(name: &str) -> Option<&'static Agent> {
    AGENTS.iter().find(|agent| agent.name == name || agent.program == name)
}

/// A version of a program: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentVersion(pub u64, pub u64, pub u64);

impl AgentVersion {
    /// Returns the first version in what a program prints, such as `codex-cli 0.171.0` or `2.1.332 (Claude Code)`.
    pub fn find(text: &str) -> Option<Self> {
        text.split(|character: char| character.is_whitespace() || character == '/').find_map(|word| {
            let word = word.trim_start_matches('v');
            let mut parts = word.splitn(3, '.');
            let number = |part: &str| {
                let digits = part.find(|end: char| !end.is_ascii_digit()).unwrap_or(part.len());
                part[..digits].parse().ok()
            };
            let (major, minor) = (parts.next()?.parse().ok()?, number(parts.next()?)?);
            Some(Self(major, minor, parts.next().and_then(number).unwrap_or_default()))
        })
    }
}

impl fmt::Display for AgentVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_any_output() {
        for (text, version) in [
            ("codex-cli 0.171.0\n", Some(AgentVersion(0, 171, 0))),
            ("2.1.332 (Claude Code)", Some(AgentVersion(2, 1, 332))),
            ("aider 0.86.2", Some(AgentVersion(0, 86, 2))),
            ("crush version v0.96.1-rc2", Some(AgentVersion(0, 96, 1))),
            ("opencode/1.18", Some(AgentVersion(1, 18, 0))),
            ("no version", None),
            ("", None),
            ("99999999999999999999.1.1", None),
        ] {
            assert_eq!(AgentVersion::find(text), version, "{text:?}");
        }
        assert!(
            AgentVersion(0, 169, 0) <= AgentVersion(0, 171, 0)
                && AgentVersion(2, 1, 197) > AgentVersion(2, 1, 9)
        );
    }

    #[test]
    fn names_and_programs_are_unique() {
        let mut words: Vec<&str> = AGENTS.iter().flat_map(|agent| [agent.name, agent.program]).collect();
        words.extend(NOT_OFFERED.iter().map(|(name, _)| name));
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), 10);
        assert_eq!(find("qwen").map(|agent| agent.name), Some("qwen-code"));
        assert!(find("gemini-cli").is_none());
    }
}
