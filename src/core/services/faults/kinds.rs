//! The kinds of services into which every fault is injected.

use std::sync::Arc;

use crate::core::config::Config;
use crate::core::runtimes::{self, Table};
use crate::core::templates::Template;

/// What a service is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServiceKind {
    BuiltIn,
    InstanceOfRuntime,
    AnyProgram,
}

/// Every fault is injected into each kind of service.
pub(super) fn for_each_kind(test: impl Fn(ServiceKind)) {
    [ServiceKind::BuiltIn, ServiceKind::InstanceOfRuntime, ServiceKind::AnyProgram]
        .into_iter()
        .for_each(test);
}

impl ServiceKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BuiltIn => "ollama",
            Self::InstanceOfRuntime => "second",
            Self::AnyProgram => "web",
        }
    }

    pub(super) fn config(self, port: u16) -> String {
        let server = format!("port = {port}\nstartup_timeout = 30\nstop_timeout = 1\n");
        let command = "command = [\"/bin/sh\"]\n";
        match self {
            Self::BuiltIn => format!("[ollama_server]\n{server}{command}"),
            Self::InstanceOfRuntime => {
                format!("[instances.second]\ntemplate = \"ollama\"\n{server}{command}")
            }
            Self::AnyProgram => format!(
                "[templates.any]\n{command}health_endpoint = \"/\"\n[instances.web]\ntemplate = \"any\"\n{server}"
            ),
        }
    }

    pub(super) fn template(self, table: Table, config: &Config) -> Template {
        match self {
            Self::BuiltIn | Self::InstanceOfRuntime => {
                Template::Runtime(runtimes::find(table, "ollama").unwrap())
            }
            Self::AnyProgram => {
                Template::program(Arc::clone(config.template("any").unwrap()), None, self.name(), None)
            }
        }
    }
}
