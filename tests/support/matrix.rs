//! The kinds of services that keep the rules of the lifecycle: the built-in one of a runtime, an instance of a runtime, a
//! template of the file that replaces the start of a runtime, and any program.

use super::ports::Port;
use super::{Sandbox, command_line, fake_runtime};

/// A kind of service, and the name of one in the configuration of a test.
pub const SERVICES: [&str; 4] = ["ollama", "second", "replaced", "web"];

/// The tables of one kind of service, whose process has these faults. `[ROOT]` in faults is the root of the sandbox,
/// and `server` has more keys of the table that configures the service.
fn tables(sandbox: &Sandbox, service: &str, port: u16, server: &str, faults: &[&str]) -> String {
    let root = sandbox.root().display().to_string();
    let faults: Vec<String> = faults.iter().map(|fault| fault.replace("[ROOT]", &root)).collect();
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    let line = |role: &'static str| {
        let words = [fake_runtime(), role].into_iter().chain(faults.iter().copied());
        words.map(|word| format!("'{word}'")).collect::<Vec<_>>().join(" ")
    };
    let (command, ollama, mlx) = (command_line("ollama", &faults), line("ollama"), line("mlx"));
    let model = sandbox.model();
    let model = model.display();
    let server = format!("port = {port}\nstartup_timeout = 60\nstop_timeout = 3\n{server}");
    match service {
        "ollama" => format!("[ollama_server]\n{server}{command}\n"),
        "second" => format!("[instances.second]\ntemplate = \"ollama\"\n{server}{command}\n"),
        "replaced" => format!(
            "[templates.mlx]\n\
             start_command = \"\"\"{mlx} --port {{port}} --model {{model}}\"\"\"\n\
             [instances.replaced]\ntemplate = \"mlx\"\nmodel = \"{model}\"\n{server}"
        ),
        _ => format!(
            "[templates.any]\nstart_command = \"\"\"{ollama} --port {{port}}\"\"\"\n\
             health_endpoint = \"http://localhost:{{port}}/api/version\"\n\
             [instances.web]\ntemplate = \"any\"\n{server}"
        ),
    }
}

/// A sandbox with one kind of service that has these faults, at the port of Ollama.
pub fn sandbox(service: &str, faults: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    let tables = tables(&sandbox, service, sandbox.port("ollama"), "", faults);
    let elsewhere = format!("[ollama_server]\nport = {}\n", sandbox.port("llama"));
    sandbox.write_config(&if service == "ollama" { tables } else { elsewhere + &tables });
    sandbox
}

/// A sandbox with one service of each kind, in the order of [`SERVICES`]. The port is that of the last one.
pub fn fleet(server: &str, faults: &[&str]) -> (Sandbox, Port) {
    let (sandbox, last) = (Sandbox::new(), Port::free());
    let ports = [sandbox.port("ollama"), sandbox.port("mlx"), sandbox.port("llama"), last.number()];
    let all = SERVICES.iter().zip(ports);
    let all = all.map(|(service, port)| tables(&sandbox, service, port, server, faults));
    sandbox.write_config(&all.collect::<String>());
    (sandbox, last)
}

/// Runs a test with each kind of service that has these faults, all at once: it waits more than it computes.
pub fn for_each_service(faults: &[&str], test: impl Fn(&Sandbox, &str) + Sync) {
    let test = &test;
    std::thread::scope(|scope| {
        for service in SERVICES {
            scope.spawn(move || test(&sandbox(service, faults), service));
        }
    });
}

/// The role of the fake runtime that plays a service of this kind.
pub fn role_of(service: &str) -> &'static str {
    if service == "replaced" { "mlx" } else { "ollama" }
}

/// Changes the configuration.
pub fn reconfigure(sandbox: &Sandbox, change: impl FnOnce(String) -> String) {
    let file = sandbox.config_dir().join("config.toml");
    sandbox.write_config(&change(std::fs::read_to_string(file).expect("the configuration")));
}

/// Adds a key to the table of the service that [`sandbox`] configures.
pub fn add_key(sandbox: &Sandbox, line: &str) {
    let port = format!("port = {}\n", sandbox.port("ollama"));
    reconfigure(sandbox, |text| text.replace(&port, &format!("{port}{line}\n")));
}

/// What a command showed, with `[SERVICE]` for the name of the service, `[TABLE]` for its table in the configuration,
/// and `[PORT]` for its port.
pub fn shown(shown: &dyn std::fmt::Display, service: &str) -> String {
    let table = if service == "ollama" { "ollama_server".to_owned() } else { format!("instances.{service}") };
    let shown = shown.to_string().replace("[OLLAMA]", "[PORT]").replace(&table, "[TABLE]");
    shown.replace(service, "[SERVICE]").trim_end().to_owned()
}

/// Asserts what a command showed.
#[track_caller]
pub fn assert_shows(output: &dyn std::fmt::Display, service: &str, expected: &str) {
    assert_eq!(shown(output, service), expected);
}
