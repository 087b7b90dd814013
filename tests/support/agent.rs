//! A real coding agent in a sandbox, with a model that makes it write a file.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::ports::Port;
use super::{Finished, Sandbox, command_line, real};

/// What the model has the agent run.
const COMMAND: &str = "echo made > made.txt";

/// What the model says in the end.
const DONE: &str = "The file is written.";

/// Timeout of a launch: an agent without a network tries again and again, and four of them share the processors.
const TIMEOUT: Duration = Duration::from_secs(240);

/// An agent, with the arguments by which it does one task without asking.
pub struct RealAgent<'a> {
    pub name: &'a str,
    pub program: &'a Path,
    pub arguments: &'a [&'a str],
}

impl RealAgent<'_> {
    /// Launches it with the fake of this runtime. It writes the file, and says what the model says.
    #[track_caller]
    pub fn writes_a_file_with(&self, service: &str) {
        self.writes_a_file_beside(service, |_| {});
    }

    /// The same, in a sandbox with what the user has made there before.
    #[track_caller]
    pub fn writes_a_file_beside(&self, service: &str, prepare: impl FnOnce(&Sandbox)) {
        let sandbox = self.sandbox(service, "tiny");
        prepare(&sandbox);
        let model = match service {
            "mlx" => sandbox.model().display().to_string(),
            _ => "tiny".to_owned(),
        };
        let launched = self.launch(&sandbox, service, &model, &[]).assert_code(0);
        let made = std::fs::read_to_string(sandbox.project().join("made.txt"));
        assert_eq!(made.ok().as_deref(), Some("made\n"), "{launched}");
        assert!(launched.stdout().contains(DONE), "{launched}");
        sandbox.fusion(["gateway", "down"]).run().assert_code(0);
        sandbox.fusion(["down"]).run().assert_code(0);
    }

    /// Runs the command of the README for it, with a model that has it write a file.
    #[track_caller]
    pub fn runs_the_example_of_the_readme(&self) {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        let page = std::fs::read_to_string(page).expect("the README");
        let begin = format!("$ fusion launch {} ", self.name);
        let command = page.lines().find(|line| line.starts_with(&begin)).expect("an example");
        let model = command.split_whitespace().skip_while(|word| *word != "-m").nth(1).expect("a model");
        let sandbox = self.sandbox("ollama", model);
        let (name, tag) = model.split_once(':').expect("a name with a tag");
        let manifest =
            sandbox.home().join(".ollama/models/manifests/registry.ollama.ai/library").join(name).join(tag);
        std::fs::create_dir_all(manifest.parent().expect("a directory")).expect("the sandbox is writable");
        std::fs::write(manifest, "{}").expect("the sandbox is writable");
        let programs = Path::new(env!("CARGO_BIN_EXE_fusion")).parent().expect("a directory").display();
        let script = format!("PATH={programs}:$PATH; cd \"$1\" && {}", command.trim_start_matches("$ "));
        let project = sandbox.project();
        let launched =
            sandbox.command("bash").arg("-c").arg(script).arg("bash").arg(&project).timeout(TIMEOUT).run();
        launched.assert_code(0);
        assert_eq!(std::fs::read_to_string(project.join("made.txt")).ok().as_deref(), Some("made\n"));
        sandbox.fusion(["gateway", "down"]).run().assert_code(0);
        sandbox.fusion(["down"]).run().assert_code(0);
    }

    /// Launches it with the real server of MLX and the tiny model, which calls no tools: up to the first answer.
    /// Without the server a line says that this did not run, unless it is required.
    #[track_caller]
    #[expect(clippy::print_stderr, reason = "the user must see which tests did not run")]
    pub fn gets_an_answer_of_the_real_mlx(&self) {
        let Some(server) = real::find("mlx_lm.server") else {
            assert!(!real::is_required("mlx"), "there is no mlx_lm.server on PATH");
            eprintln!("NOT RUN: {} with the real mlx_lm.server, which is not on PATH", self.name);
            return;
        };
        let sandbox = Sandbox::without_config();
        self.install(&sandbox);
        real::install(&sandbox, &server);
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/tiny").display().to_string();
        let (port, gateway) = (sandbox.port("mlx"), Port::free());
        sandbox.write_config(&format!(
            "[mlx_server]\nport = {port}\nmodel = \"{model}\"\n\n[mlx_run]\nmodel = \"{model}\"\n\n[gateway]\nport = {}\n",
            gateway.number()
        ));
        let launched = self.launch(&sandbox, "mlx", &model, &["--force"]).assert_code(0);
        assert!(launched.stdout().contains("Hello! This is a tiny model on your own machine."), "{launched}");
        sandbox.fusion(["down"]).run().assert_code(0);
    }

    /// Runs it in a sandbox for this service.
    pub fn launch(&self, sandbox: &Sandbox, service: &str, model: &str, options: &[&str]) -> Finished {
        let own = ["launch", self.name, "--service", service, "-m", model];
        let arguments = own.iter().chain(options).chain(&["--"]).chain(self.arguments).copied();
        sandbox.fusion(arguments).timeout(TIMEOUT).run()
    }

    /// Returns a sandbox with the agent, and the fake of this runtime, whose model calls tools and has this name.
    fn sandbox(&self, service: &str, model: &str) -> Sandbox {
        let sandbox = Sandbox::new();
        self.install(&sandbox);
        let runs = format!("runs={COMMAND}");
        let models = format!("models={model}");
        let faults = [runs.as_str(), "version=0.20.0", "context=65536", models.as_str()];
        let gateway = Port::free();
        let config = match service {
            "mlx" => {
                sandbox.configure("", &command_line("mlx", &faults[..1]));
                read(&sandbox)
            }
            "ollama" => {
                sandbox.configure(&command_line("ollama", &faults), "");
                read(&sandbox)
            }
            // Its table is the last one.
            _ => {
                sandbox.configure("", "");
                read(&sandbox) + &models_dir(&sandbox) + &command_line(service, &faults)
            }
        };
        sandbox.write_config(&format!("{config}\n[gateway]\nport = {}\n", gateway.number()));
        sandbox
    }

    /// Puts it on the `PATH` of a sandbox, with the interpreter that it may need.
    pub fn install(&self, sandbox: &Sandbox) {
        real::install(sandbox, self.program);
        if let Some(node) = real::find("node") {
            real::install(sandbox, &node);
        }
    }
}

/// Returns the line of the configuration for a directory with a tiny model.
fn models_dir(sandbox: &Sandbox) -> String {
    let directory = sandbox.root().join("gguf");
    std::fs::create_dir(&directory).expect("the sandbox is writable");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut script = Command::new("python3");
    script
        .arg(tests.join("make_tiny_gguf.py"))
        .arg(tests.join("models/tiny"))
        .arg(directory.join("tiny.gguf"));
    assert!(script.status().expect("Python runs").success(), "the model is written");
    format!("models_dir = \"{}\"\n", directory.display())
}

fn read(sandbox: &Sandbox) -> String {
    std::fs::read_to_string(sandbox.config_dir().join("config.toml")).expect("the configuration")
}
